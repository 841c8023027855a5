"""What is read before the pixels, whichever way a file is written, and that whatever harms a file is told."""

from __future__ import annotations

import importlib
import logging
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hbdp_fed.data import dicom as package
from hbdp_fed.data.defects import EMPTY, MISSING, TRUNCATED, UNREADABLE, Defect
from hbdp_fed.data.dicom import header as headers
from hbdp_fed.data.dicom.header import integer, numbers, read_header, text
from hbdp_fed.data.dicom.image import shown
from tests.data.dicom.writing import (
    BIG_ENDIAN,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    POSITION,
    RLE,
    beginning,
    element,
    write_dicom,
)

PIXELS = np.arange(12, dtype=np.int16).reshape(3, 4)
TABLE = {0x00283010: ("SQ", [{0x00283002: ("US", [3, 0, 16]), 0x00283006: ("US", [1, 2, 3])}])}
PERSON = {0x00100010: ("PN", "Doe^Jane"), 0x00100020: ("LO", "ZX-81"), 0x00104000: ("LT", "Doe again")}


def refused(path: Path) -> Defect:
    with pytest.raises(Defect) as caught:
        read_header(path)
    assert caught.value.path == path
    return caught.value


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN])
def test_attributes_are_the_same_in_every_transfer_syntax(syntax: str, tmp_path: Path) -> None:
    given = {**CT, **TABLE, POSITION: ("DS", [-1.5, 2, 3e1])}
    file = read_header(write_dicom(tmp_path / "a", PIXELS, given, syntax=syntax))
    # What was deflated is read as what it inflates to.
    assert file.syntax == (EXPLICIT if syntax == DEFLATED else syntax)
    assert file.length == 24
    header = file.header
    assert (integer(header, "Rows"), integer(header, "Columns"), text(header, "Modality")) == (3, 4, "CT")
    assert numbers(header, "ImagePositionPatient") == [-1.5, 2.0, 30.0]
    assert numbers(header, "WindowWidth") == []
    (item,) = header.VOILUTSequence
    assert list(item.LUTDescriptor) == [3, 0, 16]


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
def test_a_file_without_its_first_part_is_read(syntax: str, tmp_path: Path) -> None:
    given = {0x00080005: ("CS", "ISO_IR 100")}
    path = write_dicom(tmp_path / "a", PIXELS, given, syntax=syntax, preamble=False)
    file = read_header(path)
    assert file.syntax == syntax
    assert integer(file.header, "Columns") == 4
    np.testing.assert_allclose(shown(file, window=(0.0, 11.0)), PIXELS / 11, atol=1e-12)


def test_a_sequence_without_a_length_is_passed_over(tmp_path: Path) -> None:
    """With items of either kind in it, and of a private tag that says nothing of its content."""
    inner = element(0x00100010, "PN", "Somebody")
    items = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    items += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    sequence = (
        struct.pack("<HH2sHI", 0x0009, 0x1001, b"SQ", 0, 0xFFFFFFFF) + items + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    )
    path = write_dicom(tmp_path / "a", PIXELS)
    whole = path.read_bytes()
    at = whole.index(element(0x00280002, "US", 1))
    path.write_bytes(whole[:at] + sequence + whole[at:])
    header = read_header(path).header
    assert integer(header, "Rows") == 3
    assert "Somebody" not in str(header)


def test_nothing_of_the_person_is_kept(tmp_path: Path) -> None:
    header = read_header(write_dicom(tmp_path / "a", PIXELS, PERSON)).header
    assert {element.keyword for element in header} <= set(headers.KEYWORDS)
    assert not any(word in str(header) for word in ("Doe", "ZX-81"))


def test_nothing_that_pydicom_finds_odd_is_warned_of_or_logged(tmp_path: Path) -> None:
    """It would quote the odd UID, say."""
    path = write_dicom(tmp_path / "a", np.zeros((3, 40), np.uint16), {0x0020000E: ("UI", "Doe")}, shape=(3, 4))

    def warned() -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if is_quiet:
                importlib.reload(package)  # pytest takes back what the package filtered when it was imported
            file = read_header(path)
            text(file.header, "SeriesInstanceUID")
            shown(file, window=None)
        return [str(one.message) for one in caught]

    logged: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = logged.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        is_quiet = False
        assert any("Doe" in line for line in warned())
        is_quiet = True
        assert warned() == []
    finally:
        logging.getLogger().removeHandler(handler)
    assert not [record for record in logged if record.name.startswith("pydicom")]


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.97])
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED])
def test_a_file_that_ends_too_early_is_no_image(kept: float, syntax: str, tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", np.arange(900, dtype=np.uint16).reshape(30, 30), CT, syntax=syntax)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(190, int(kept * len(whole)))])
    assert refused(path).kind in ({TRUNCATED} if kept > 0.5 else {TRUNCATED, UNREADABLE})


def test_every_place_where_a_file_can_end_is_told(tmp_path: Path) -> None:
    """Of a header with sequences, and of pixels in fragments. Once its size is known, it is an image that was cut."""
    for pixels, syntax in ((PIXELS, EXPLICIT), (b"fragment", RLE)):
        path = write_dicom(tmp_path / "a", pixels, {**CT, **TABLE}, syntax=syntax, shape=(3, 4))
        whole = path.read_bytes()
        sized = whole.index(element(0x00280010, "US", 3)) + 10
        for end in range(1, len(whole), 3):
            path.write_bytes(whole[:end])
            assert refused(path).kind in ({TRUNCATED} if end >= sized else {TRUNCATED, UNREADABLE}), end


def test_what_is_no_image_is_told_apart(tmp_path: Path) -> None:
    def kind(content: bytes | None) -> str:
        path = tmp_path / ("a.dcm" if content is not None else "none.dcm")
        if content is not None:
            path.write_bytes(content)
        return refused(path).kind

    assert kind(None) == MISSING
    assert kind(b"") == EMPTY
    assert kind(b"\x89PNG\r\n" + b"x" * 400) == UNREADABLE
    assert kind(beginning(EXPLICIT) + element(0x00080060, "CS", "SR")) == UNREADABLE
    assert kind(beginning(EXPLICIT) + element(0x00280010, "US", 3)) == TRUNCATED


def _nested(path: Path) -> None:
    opening = struct.pack("<HH2sHI", 0x0009, 0x1001, b"SQ", 0, 0xFFFFFFFF)
    path.write_bytes(beginning(EXPLICIT) + 50000 * (opening + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)))


def _inflating(path: Path) -> None:
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    path.write_bytes(beginning(DEFLATED) + packer.compress(bytes(2**21)) + packer.flush())


def _inflating_twice(path: Path) -> None:
    def deflated(content: bytes) -> bytes:
        packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
        return beginning(DEFLATED) + packer.compress(content) + packer.flush()

    path.write_bytes(deflated(deflated(bytes(2**21))))


def _endless_table(path: Path) -> None:
    """Of four gigabytes, by its own word."""
    head = struct.pack("<HH2sHI", 0x0028, 0x1201, b"OW", 0, 0xFFFFFFF0)
    path.write_bytes(beginning(EXPLICIT) + element(0x00280010, "US", 3) + head + bytes(100))


def _long_table(path: Path) -> None:
    write_dicom(path, PIXELS, {0x00281201: ("OW", bytes(2**21))})


def _huge(path: Path) -> None:
    """With nothing in it: it takes no place on the disk."""
    with path.open("wb") as file:
        file.truncate(2**31 + 1)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_nested, r"cannot be read as DICOM \(RecursionError\)"),
        (_inflating, "inflates to 1048576 bytes or more, which no image has"),
        (_inflating_twice, "holds another file, which may be deflated in its turn"),
        (_endless_table, "ends within an attribute"),
        (_long_table, r"has an attribute \(0028,1201\) of 2097152 bytes"),
        (_huge, "has more than 2147483648 bytes, which no image has"),
    ],
)
def test_files_made_to_exhaust_a_machine_are_refused(
    harm: Callable[[Path], None], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headers, "_MOST_INFLATED", 2**20)
    harm(tmp_path / "a")
    with pytest.raises(Defect, match=told):
        read_header(tmp_path / "a")


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED])
def test_random_harm_is_a_defect_that_tells_nothing_of_the_person(syntax: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    window = {0x00281050: ("DS", 40), 0x00281051: ("DS", 80)}
    whole = write_dicom(tmp_path / "a", PIXELS, {**CT, **TABLE, **window, **PERSON}, syntax=syntax).read_bytes()
    read, told = 0, []
    for number in range(150):
        harmed = bytearray(whole)
        for place in rng.integers(132, len(whole), 1 + number % 4):
            harmed[place] = rng.integers(256)
        (tmp_path / "a").write_bytes(harmed)
        try:
            shown(read_header(tmp_path / "a"), window=None)
            read += 1
        except Defect as defect:
            told.append(str(defect))
    assert 0 < read < 150
    assert not any(word in line for line in told for word in ("Doe", "ZX-81"))
