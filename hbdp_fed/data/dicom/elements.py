"""Takes a DICOM file apart, up to its pixels (DICOM PS3.5, section 7 and annex A; PS3.10, section 7)."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hbdp_fed.data.bad_records import reason
from hbdp_fed.data.defects import TRUNCATED, UNREADABLE, Defect, check_file
from hbdp_fed.data.dicom.attributes import TAGS, DataSet

_KEPT = frozenset(TAGS.values())
_SEQUENCES = {TAGS["ModalityLUTSequence"], TAGS["VOILUTSequence"]}
_PIXELS = 0x7FE00010
_SYNTAX = 0x00020010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF

_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
"""Value representations whose length has four bytes."""

_PREAMBLE, _PREFIX = 128, b"DICM"
_DEEPEST = 32
_MOST_INFLATED = 2**31

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"

Buffer = bytes | mmap.mmap


@dataclass(frozen=True)
class DicomFile:
    """A file's header, and where its pixels are.

    Attributes:
        path: The file.
        syntax: The UID of its transfer syntax.
        header: Its attributes.
        start: Where the value of the pixels begins, in the file or, if that is deflated, in what it inflates to.
        length: Its bytes; None if they are in fragments.
        is_words: Whether they were written as words of two bytes.
    """

    path: Path
    syntax: str
    header: DataSet
    start: int
    length: int | None
    is_words: bool

    def fragments(self) -> list[bytes]:
        """The bytes of the pixels: one piece, or those of a compressed frame.

        Raises:
            Defect: if the file ends before they do.
        """
        with _Mapped(self.path) as data:
            content = _inflated(data, self.syntax)
            if self.length is not None:
                return [content[self.start : self.start + self.length]]
            return [content[start:end] for start, end in _fragments(content, self.start, self.header.order)]


@dataclass(frozen=True)
class _Form:
    """How elements are written."""

    is_explicit: bool
    order: str


_META = _Form(is_explicit=True, order="<")
_FORMS: Mapping[str, _Form] = {
    IMPLICIT: _Form(is_explicit=False, order="<"),
    BIG_ENDIAN: _Form(is_explicit=True, order=">"),
}


def read_header(path: Path) -> DicomFile:
    """Read what stands before a file's pixels.

    Raises:
        Defect: if it is no DICOM file, ends too early or has no pixels.
    """
    check_file(path)
    try:
        with _Mapped(path) as data:
            return _parsed(path, data)
    except Defect as defect:
        raise Defect(defect.kind, defect.text, path) from defect
    except (OSError, struct.error, zlib.error, ValueError, RecursionError) as error:
        raise Defect(UNREADABLE, f"cannot be read as DICOM ({reason(error)})", path) from error


class _Mapped:
    """A file as bytes, of which only those that are looked at are read."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._map: mmap.mmap | None = None

    def __enter__(self) -> mmap.mmap:
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def __exit__(self, *_: object) -> None:
        if self._map is not None:
            self._map.close()
        self._file.close()


def _parsed(path: Path, data: mmap.mmap) -> DicomFile:
    syntax, start = _beginning(data)
    content = _inflated(data, syntax)
    reader = _Reader(content, _FORMS.get(syntax, _META))
    header, _ = reader.elements(0 if syntax == DEFLATED else start, len(content), depth=0)
    if reader.pixels is None:
        raise Defect(UNREADABLE, "holds no pixels")
    begins, length, representation = reader.pixels
    if length == _UNDEFINED:
        # Only to see that they are all there.
        _fragments(content, begins, header.order)
    elif begins + length > len(content):
        raise Defect(TRUNCATED, f"ends {begins + length - len(content)} bytes before its pixels do")
    return DicomFile(path, syntax, header, begins, None if length == _UNDEFINED else length, representation == b"OW")


def _beginning(data: Buffer) -> tuple[str, int]:
    """The transfer syntax, and where the data set begins."""
    has_prefix = data[_PREAMBLE : _PREAMBLE + len(_PREFIX)] == _PREFIX
    position = _PREAMBLE + len(_PREFIX) if has_prefix else 0
    syntax = ""
    while data[position : position + 2] == b"\2\0":
        group, element, _, length, value = _explicit(data, position, "<")
        if value + length > len(data):
            raise Defect(TRUNCATED, "ends within its header")
        if group << 16 | element == _SYNTAX:
            syntax = data[value : value + length].decode("latin-1").strip(" \0")
        position = value + length
    if not syntax:
        # Files from before 1993, and some programs' of today, do not say it.
        if not has_prefix and data[position : position + 2] != b"\10\0":
            raise Defect(UNREADABLE, "is no DICOM file")
        syntax = EXPLICIT if _is_word(data[position + 4 : position + 6]) else IMPLICIT
    return syntax, position


def _inflated(data: mmap.mmap, syntax: str) -> Buffer:
    if syntax != DEFLATED:
        return data
    _, start = _beginning(data)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(data[start:], _MOST_INFLATED)
    if not inflater.eof:
        raise Defect(TRUNCATED, "ends before its compressed content does, or that is too large")
    return content


def _is_word(letters: bytes) -> bool:
    return letters.isalpha() and letters.isupper()


def _explicit(data: Buffer, position: int, order: str) -> tuple[int, int, bytes, int, int]:
    """Group, element, representation, length and where the value begins."""
    group, element, representation, length = struct.unpack_from(f"{order}HH2sH", data, position)
    if representation not in _LONG:
        return group, element, representation, length, position + 8
    (length,) = struct.unpack_from(f"{order}I", data, position + 8)
    return group, element, representation, length, position + 12


def _fragments(data: Buffer, position: int, order: str) -> list[tuple[int, int]]:
    """Begin and end of each fragment of encapsulated pixels, without the table of offsets (PS3.5, A.4)."""
    places: list[tuple[int, int]] = []
    while True:
        if position + 8 > len(data):
            raise Defect(TRUNCATED, "ends before its pixels do")
        group, element, length = struct.unpack_from(f"{order}HHI", data, position)
        tag, position = group << 16 | element, position + 8
        if tag == _SEQUENCE_END:
            return places[1:]
        if tag != _ITEM:
            raise Defect(UNREADABLE, "has pixels that are no sequence of fragments")
        if position + length > len(data):
            raise Defect(TRUNCATED, f"ends {position + length - len(data)} bytes before its pixels do")
        places.append((position, position + length))
        position += length


class _Reader:
    """Goes through the elements of a content.

    Attributes:
        pixels: Where the value of the pixels begins, and its length and representation, once they were met.
    """

    def __init__(self, data: Buffer, form: _Form) -> None:
        self._data = data
        self._form = form
        self.pixels: tuple[int, int, bytes] | None = None

    def elements(self, position: int, end: int, *, depth: int) -> tuple[DataSet, int]:
        """The attributes between two places, or up to the mark that ends an item, and where that was."""
        if depth > _DEEPEST:
            raise Defect(UNREADABLE, f"has sequences within each other, more than {_DEEPEST} deep")
        values: dict[int, bytes] = {}
        sequences: dict[int, tuple[DataSet, ...]] = {}
        while position + 8 <= end:
            tag, representation, length, value = self._element(position)
            if tag in (_ITEM_END, _SEQUENCE_END):
                position += 8
                break
            if tag == _PIXELS and depth == 0:
                self.pixels = (value, length, representation)
                break
            if length == _UNDEFINED or tag in _SEQUENCES:
                reader = self
                if representation == b"UN":  # PS3.5, 6.2.2: such a sequence is implicit, whatever the file is
                    reader = _Reader(self._data, _FORMS[IMPLICIT])
                sequences[tag], position = reader.items(value, end, length, depth=depth)
                continue
            position = value + length
            if position > end:
                raise Defect(TRUNCATED, "ends within its header")
            if tag in _KEPT:
                values[tag] = self._data[value:position]
        return DataSet(self._form.order, values, sequences), position

    def items(self, position: int, end: int, length: int, *, depth: int) -> tuple[tuple[DataSet, ...], int]:
        """The items of a sequence, and where it ends."""
        stop = end if length == _UNDEFINED else position + length
        if stop > end:
            raise Defect(TRUNCATED, "ends within a sequence")
        found: list[DataSet] = []
        while position + 8 <= stop:
            group, element, size = struct.unpack_from(f"{self._form.order}HHI", self._data, position)
            tag, position = group << 16 | element, position + 8
            if tag == _SEQUENCE_END:
                return tuple(found), position
            if tag != _ITEM:
                raise Defect(UNREADABLE, "has a sequence with something between its items")
            last = stop if size == _UNDEFINED else position + size
            if last > stop:
                raise Defect(TRUNCATED, "ends within a sequence")
            item, reached = self.elements(position, last, depth=depth + 1)
            found.append(item)
            position = reached if size == _UNDEFINED else last
        if length == _UNDEFINED:
            raise Defect(TRUNCATED, "ends within a sequence")
        return tuple(found), stop

    def _element(self, position: int) -> tuple[int, bytes, int, int]:
        """Tag, representation, length and where the value begins."""
        order = self._form.order
        group, element, length = struct.unpack_from(f"{order}HHI", self._data, position)
        is_mark = group == 0xFFFE  # these never have a representation
        if is_mark or not self._form.is_explicit or not _is_word(self._data[position + 4 : position + 6]):
            return group << 16 | element, b"", length, position + 8
        group, element, representation, length, value = _explicit(self._data, position, order)
        return group << 16 | element, representation, length, value
