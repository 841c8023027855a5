"""What a DICOM file says of its image, and whether its pixels are all there; none are decoded (DICOM PS3.5, PS3.10)."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
from PIL import Image
from pydicom import FileDataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import parse_fragments
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from hbdp_fed.data.defects import TRUNCATED, UNREADABLE, Defect, check_file

KEYWORDS = (
    "Modality", "SliceThickness", "SpacingBetweenSlices", "SeriesInstanceUID", "ImagePositionPatient",
    "ImageOrientationPatient", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames",
    "Rows", "Columns", "PixelSpacing", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "WindowCenter",
    "WindowWidth", "RescaleIntercept", "RescaleSlope", "VOILUTFunction", "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "ModalityLUTSequence", "VOILUTSequence",
)  # fmt: skip
"""What is kept. The rest of a header is a person's, and nobody's business here."""

_BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,  # a length that no file has
    OSError,
    RuntimeError,  # with it NotImplementedError, and RecursionError of sequences within each other
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What pydicom and its decoders raise on files that are broken, by accident or on purpose."""

_PREAMBLE, _PREFIX = 128, b"DICM"
_GROUP_8 = (b"\x08\x00", b"\x00\x08")
"""What a file without the prefix begins with, in either order of bytes."""
_GROUP_2 = b"\x02\x00"
"""What the elements that name the transfer syntax begin with."""

_PIXELS = b"\xe0\x7f\x10\x00"
_UNDEFINED = 0xFFFFFFFF
_MARK = 8
"""Bytes of the mark that ends encapsulated pixels."""

_LARGEST = 2**31
_MOST_INFLATED = 2**29
_LONGEST = 2**20
"""Bytes of a file, of a deflated one's content, and of an attribute that is kept."""
_LONGEST_NAME = 64
"""Letters of an identifier (PS3.5, 6.2)."""

_ENCODINGS: Mapping[tuple[bool | None, bool | None], UID] = MappingProxyType(
    {(True, True): ImplicitVRLittleEndian, (False, True): ExplicitVRLittleEndian, (False, False): ExplicitVRBigEndian}
)
"""By whether representations are left out, and whether numbers begin with their lowest byte."""


@dataclass(frozen=True)
class DicomFile:
    """A file's header.

    Attributes:
        path: The file.
        header: The attributes among :data:`KEYWORDS` that it has.
        syntax: Its transfer syntax; of deflated files, that of their content.
        length: The bytes of its pixels; of encapsulated ones, with their marks.
    """

    path: Path
    header: FileDataset
    syntax: UID
    length: int


def read_header(path: Path) -> DicomFile:
    """Read what stands before a file's pixels, and see that these are all there.

    Raises:
        Defect: if it is no DICOM file, ends too early, has no pixels or is larger than any image.
    """
    check_file(path)
    with broken_as_defect("cannot be read as DICOM", path), opened(path) as stream:
        try:
            header = dcmread(stream, stop_before_pixels=True, force=True, specific_tags=list(KEYWORDS))
            length = _length_of_pixels(stream, header)
        except Defect:
            raise
        except _BROKEN:
            if stream.tell() < _size(stream):
                raise
            raise Defect(TRUNCATED, "ends within an attribute") from None
        syntax = header.file_meta.get("TransferSyntaxUID") or _ENCODINGS[header.original_encoding]
        header.file_meta.TransferSyntaxUID = syntax
        return DicomFile(path, header, UID(syntax), length)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's content; where that was deflated, inflated.

    Raises:
        Defect: if it is no DICOM file, or larger than any image.
    """
    with path.open("rb") as file:
        if _size(file) > _LARGEST:
            raise Defect(UNREADABLE, f"has more than {_LARGEST} bytes, which no image has")
        start = file.read(_PREAMBLE + len(_PREFIX))
        file.seek(0)
        if start[_PREAMBLE:] == _PREFIX:
            meta = read_file_meta_info(path)
            if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
                # pydicom would inflate it, however large it becomes.
                file.seek(len(start) + 12 + int(meta.FileMetaInformationGroupLength))
                yield io.BytesIO(_inflated(file.read()))
                return
        elif start[:2] not in _GROUP_8:
            raise Defect(UNREADABLE, "is no DICOM file")
        yield file


@contextmanager
def broken_as_defect(what: str, path: Path | None = None) -> Iterator[None]:
    """Turns whatever a broken file raises into a defect, and gives a defect the file's path.

    Raises:
        Defect: if anything is wrong.
    """
    try:
        yield
    except Defect as defect:
        raise Defect(defect.kind, defect.text, defect.path or path) from defect
    except _BROKEN as error:
        # Not its words: pydicom's may quote whatever stands in the file.
        raise Defect(UNREADABLE, f"{what} ({type(error).__name__})", path) from None


def numbers(header: Dataset, keyword: str) -> list[float]:
    """The values of an attribute; none, if it is not there or empty.

    Raises:
        Defect: if one is no finite number.
    """
    with broken_as_defect(f"has something in {keyword} that is no number"):
        value = header.get(keyword)
        values = [] if value is None or value == "" else np.atleast_1d(np.asarray(value, dtype=np.float64)).tolist()
    if not np.isfinite(values).all():
        raise Defect(UNREADABLE, f"has numbers in {keyword} that are not finite")
    return values


def integer(header: Dataset, keyword: str, default: int | None = None) -> int:
    """An attribute that is one whole number.

    Raises:
        Defect: if it is none, or not there and without a default.
    """
    values = numbers(header, keyword)
    if not values and default is not None:
        return default
    if len(values) != 1 or values[0] != int(values[0]):
        raise Defect(UNREADABLE, f"has {'no' if not values else 'an odd'} {keyword}")
    return int(values[0])


def text(header: Dataset, keyword: str) -> str:
    """The first value of an attribute, or an empty text.

    Raises:
        Defect: if it cannot be read, or is longer than a name of anything.
    """
    with broken_as_defect(f"has something in {keyword} that is no name"):
        value = header.get(keyword) or ""
        name = str(value if isinstance(value, str) else value[0])
        if len(name) > _LONGEST_NAME:
            raise ValueError(name)
        return name


def _size(stream: BinaryIO) -> int:
    place = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(place)
    return size


def _inflated(data: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(data, _MOST_INFLATED)
    if not inflater.eof:
        if len(content) == _MOST_INFLATED:
            raise Defect(UNREADABLE, f"inflates to {_MOST_INFLATED} bytes or more, which no image has")
        raise Defect(TRUNCATED, "ends before its compressed content does")
    if content[:2] == _GROUP_2 or content[_PREAMBLE : _PREAMBLE + len(_PREFIX)] == _PREFIX:
        raise Defect(UNREADABLE, "holds another file, which may be deflated in its turn")
    return content


def _length_of_pixels(stream: BinaryIO, header: FileDataset) -> int:
    """The bytes of the pixels that the stream stands before.

    Raises:
        Defect: if it does not hold them all.
    """
    size, place = _size(stream), stream.tell()
    # Some files are not encoded as their transfer syntax says, which pydicom tells of each attribute alone.
    is_implicit, is_little = header.original_encoding
    for element in header.elements():
        if isinstance(element, RawDataElement):
            _check_whole(element)
            is_implicit, is_little = element.is_implicit_VR, element.is_little_endian
    order, wanted = "<" if is_little else ">", 8 if is_implicit else 12
    head = stream.read(wanted)
    if place > size or len(head) < wanted:
        if "Rows" in header:
            raise Defect(TRUNCATED, "ends before its pixels begin")
        raise Defect(UNREADABLE, "holds no pixels")
    if head[:4] != (_PIXELS if is_little else b"\x7f\xe0\x00\x10"):
        raise Defect(UNREADABLE, "holds no pixels that are whole numbers")
    (length,) = struct.unpack(f"{order}I", head[-4:])
    end = stream.tell() + length if length != _UNDEFINED else _end_of_fragments(stream, order)
    if end > size:
        raise Defect(TRUNCATED, f"ends {end - size} bytes before its pixels do")
    return end - place - len(head)


def _check_whole(element: RawDataElement) -> None:
    if element.length == _UNDEFINED:
        return
    if element.length > len(element.value or b""):
        raise Defect(TRUNCATED, "ends within an attribute")
    if element.length > _LONGEST:
        raise Defect(UNREADABLE, f"has an attribute {element.tag} of {element.length} bytes")


def _end_of_fragments(stream: BinaryIO, order: str) -> int:
    """Where encapsulated pixels end with their mark (PS3.5, A.4)."""
    _, places = parse_fragments(stream, endianness=order)
    if len(places) < 2:
        raise Defect(TRUNCATED, "ends before its pixels begin")
    stream.seek(places[-1] + 4)
    (length,) = struct.unpack(f"{order}I", stream.read(4))
    return int(places[-1] + 8 + length + _MARK)
