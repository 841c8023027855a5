"""The parts of a DICOM file, whichever way it is written, and that one that ends too early says so."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from hbdp_fed.data.defects import EMPTY, MISSING, TRUNCATED, UNREADABLE, Defect
from hbdp_fed.data.dicom.header import read_header
from tests.data.dicom.writing import BIG_ENDIAN, CT, DEFLATED, EXPLICIT, IMPLICIT, POSITION, element, write_dicom

PIXELS = np.arange(12, dtype=np.int16).reshape(3, 4)
TABLE = {0x00283010: ("SQ", [{0x00283002: ("US", [3, 0, 16]), 0x00283006: ("US", [1, 2, 3])}])}


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN])
def test_attributes_are_the_same_in_every_transfer_syntax(syntax: str, tmp_path: Path) -> None:
    given = {**CT, **TABLE, POSITION: ("DS", [-1.5, 2, 3e1])}
    file = read_header(write_dicom(tmp_path / "a", PIXELS, given, syntax=syntax))
    assert file.syntax == syntax
    header = file.header
    assert (header.integer("Rows"), header.integer("Columns"), header.text("Modality")) == (3, 4, "CT")
    assert header.decimals("ImagePositionPatient") == [-1.5, 2.0, 30.0]
    (item,) = header.items("VOILUTSequence")
    assert np.frombuffer(item.raw("LUTData"), f"{item.order}u2").tolist() == [1, 2, 3]
    assert not header.has("WindowWidth")


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_a_file_without_its_first_part_is_read(syntax: str, tmp_path: Path) -> None:
    given = {0x00080005: ("CS", "ISO_IR 100")}
    file = read_header(write_dicom(tmp_path / "a", PIXELS, given, syntax=syntax, preamble=False))
    assert file.syntax == syntax
    assert file.header.integer("Columns") == 4


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
    assert read_header(path).header.integer("Rows") == 3


def test_nothing_of_the_person_is_kept(tmp_path: Path) -> None:
    header = read_header(write_dicom(tmp_path / "a", PIXELS, {0x00100010: ("PN", "Doe^Jane")})).header
    assert b"Doe" not in b"".join(header.values.values())


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.97])
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED])
def test_a_file_that_ends_too_early_is_no_image(kept: float, syntax: str, tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", np.arange(900, dtype=np.uint16).reshape(30, 30), CT, syntax=syntax)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(150, int(kept * len(whole)))])
    with pytest.raises(Defect) as caught:
        read_header(path)
    assert caught.value.kind in {TRUNCATED, UNREADABLE}
    assert caught.value.path == path
    if kept > 0.5:
        assert caught.value.kind == TRUNCATED


def test_what_is_no_dicom_file_is_told_apart(tmp_path: Path) -> None:
    def kind(content: bytes | None) -> str:
        path = tmp_path / "a.dcm"
        if content is None:
            path = tmp_path / "none.dcm"
        else:
            path.write_bytes(content)
        with pytest.raises(Defect) as caught:
            read_header(path)
        return caught.value.kind

    assert kind(None) == MISSING
    assert kind(b"") == EMPTY
    assert kind(b"\x89PNG\r\n" + b"x" * 400) == UNREADABLE
    assert (
        kind(b"\0" * 128 + b"DICM" + element(0x00020010, "UI", EXPLICIT) + element(0x00080060, "CS", "SR"))
        == UNREADABLE
    )


def test_sequences_cannot_be_nested_without_end(tmp_path: Path) -> None:
    head = b"\0" * 128 + b"DICM" + element(0x00020010, "UI", EXPLICIT)
    opening = struct.pack("<HH2sHI", 0x0009, 0x1001, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    path = tmp_path / "a"
    path.write_bytes(head + 5000 * opening)
    with pytest.raises(Defect, match="sequences within each other"):
        read_header(path)
