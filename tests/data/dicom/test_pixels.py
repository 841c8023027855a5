"""The numbers of the pixels, from every way of keeping them that there is a decoder for."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hbdp_fed.data.defects import NO_DECODER, SHAPE, TRUNCATED, UNREADABLE, Defect
from hbdp_fed.data.dicom.header import read_header
from hbdp_fed.data.dicom.pixels import frame_of, stored_pixels
from tests.data.dicom.writing import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG,
    JPEG_2000,
    JPEG_LOSSLESS,
    RLE,
    write_dicom,
)


def pixels_of(path: Path) -> NDArray[Any]:
    file = read_header(path)
    return stored_pixels(file, frame_of(file))


def refused(path: Path) -> Defect:
    with pytest.raises(Defect) as caught:
        pixels_of(path)
    return caught.value


def packed(plane: bytes) -> bytes:
    """Run lengths in the plainest way: runs of equal bytes, and single ones as they are."""
    out = bytearray()
    at = 0
    while at < len(plane):
        run = 1
        while at + run < len(plane) and run < 128 and plane[at + run] == plane[at]:
            run += 1
        out += bytes([257 - run, plane[at]]) if run > 1 else bytes([0, plane[at]])
        at += run
    return bytes(out) + b"\x80" * (len(out) % 2)


def run_lengths(*planes: bytes) -> bytes:
    segments = [packed(plane) for plane in planes]
    starts = [64 + sum(map(len, segments[:number])) for number in range(len(segments))]
    return struct.pack("<16I", len(segments), *starts, *[0] * (15 - len(segments))) + b"".join(segments)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32])
def test_uncompressed_numbers_are_what_was_written(syntax: str, dtype: type[Any], tmp_path: Path) -> None:
    info = np.iinfo(dtype)
    pixels = np.array([[info.min, info.max, 1], [2, 3, 100]], dtype=dtype)
    np.testing.assert_array_equal(pixels_of(write_dicom(tmp_path / "a", pixels, syntax=syntax)), pixels)


def test_bits_that_do_not_count_are_left_out(tmp_path: Path) -> None:
    """Twelve bits of sixteen, signed; the others hold an overlay."""
    values = np.array([[-2048, -1], [0, 2047]])
    stored = (values & 0xFFF | 0xA000).astype(np.uint16).view(np.int16)
    np.testing.assert_array_equal(pixels_of(write_dicom(tmp_path / "a", stored, stored=12)), values)


@pytest.mark.parametrize("is_planar", [False, True])
def test_colours_are_in_their_order(is_planar: bool, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    kept = np.ascontiguousarray(pixels.transpose(2, 0, 1)) if is_planar else pixels
    path = write_dicom(tmp_path / "a", kept, {0x00280006: ("US", int(is_planar))}, shape=(4, 6), photometric="RGB")
    np.testing.assert_array_equal(pixels_of(path), pixels)


def test_brightness_and_differences_become_colours(tmp_path: Path) -> None:
    """As Pillow converts them, up to a step: it computes with whole numbers."""
    colours = np.random.default_rng(1).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    kept = np.asarray(Image.fromarray(colours).convert("YCbCr"))
    expected = np.asarray(Image.fromarray(kept, "YCbCr").convert("RGB")).astype(int)
    found = pixels_of(write_dicom(tmp_path / "a", kept, photometric="YBR_FULL"))
    assert np.abs(found - expected).max() <= 1
    # Two neighbours with one colour.
    halved = np.concatenate([kept[:, ::2, :1], kept[:, 1::2, :1], kept[:, ::2, 1:]], axis=-1)
    found = pixels_of(write_dicom(tmp_path / "b", halved, shape=(8, 6), photometric="YBR_FULL_422"))
    shared = kept.copy()
    shared[:, 1::2, 1:] = shared[:, ::2, 1:]
    expected = np.asarray(Image.fromarray(shared, "YCbCr").convert("RGB")).astype(int)
    assert np.abs(found - expected).max() <= 1


def test_run_lengths_give_the_same_numbers(tmp_path: Path) -> None:
    values = np.repeat(np.array([[-300, 5], [7, 32000]], dtype=np.int16), 40, axis=1)
    wide = values.astype(">i2").view(np.uint8).reshape(-1, 2)
    data = run_lengths(wide[:, 0].tobytes(), wide[:, 1].tobytes())
    attributes = dict.fromkeys((2621696, 2621697), ("US", 16)) | {0x00280102: ("US", 15), 0x00280103: ("US", 1)}
    path = write_dicom(tmp_path / "a", data, attributes, syntax=RLE, shape=(2, 80))
    np.testing.assert_array_equal(pixels_of(path), values)
    cut = write_dicom(tmp_path / "b", data[:-6], attributes, syntax=RLE, shape=(2, 80))
    assert refused(cut).kind == UNREADABLE


def test_single_bits_are_read_from_the_lowest_on(tmp_path: Path) -> None:
    attributes = {0x00280100: ("US", 1), 0x00280101: ("US", 1), 0x00280102: ("US", 0)}
    path = write_dicom(tmp_path / "a", np.array([0b10110001, 0b1], np.uint8), attributes, shape=(3, 3))
    np.testing.assert_array_equal(pixels_of(path), [[1, 0, 0], [0, 1, 1], [0, 1, 1]])


def test_more_compressed_bytes_than_pixels_are_refused_by_the_header(tmp_path: Path) -> None:
    """Run lengths of them would fill the memory."""
    path = write_dicom(tmp_path / "a", b"\x81\0" * 50000, syntax=RLE, shape=(4, 4))
    with pytest.raises(Defect, match="bytes of compressed pixels, which would be 16 without"):
        frame_of(read_header(path))


def test_jpeg_2000_gives_the_same_numbers(tmp_path: Path) -> None:
    values = np.random.default_rng(2).integers(0, 4096, (40, 50)).astype(np.uint16)
    out = io.BytesIO()
    Image.fromarray(values).save(out, "JPEG2000", irreversible=False)
    attributes = {0x00280100: ("US", 16), 0x00280101: ("US", 16), 0x00280102: ("US", 15)}
    path = write_dicom(tmp_path / "a", out.getvalue(), attributes, syntax=JPEG_2000, shape=(40, 50))
    np.testing.assert_array_equal(pixels_of(path), values)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "YBR_FULL_422"])
def test_jpeg_is_what_pillow_makes_of_it(photometric: str, tmp_path: Path) -> None:
    coarse = np.random.default_rng(3).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((32, 24)).convert("L" if photometric == "MONOCHROME2" else "RGB")
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=95)
    path = write_dicom(tmp_path / "a", out.getvalue(), syntax=JPEG, shape=(24, 32), photometric=photometric)
    assert np.abs(pixels_of(path).astype(int) - np.asarray(picture).astype(int)).mean() < 5
    other = write_dicom(tmp_path / "b", out.getvalue(), syntax=JPEG, shape=(24, 30), photometric=photometric)
    assert refused(other).kind == SHAPE


@pytest.mark.parametrize(
    ("syntax", "stored", "told"),
    [
        (JPEG_LOSSLESS, 8, r"JPEG Lossless, .*, which nothing here decodes; .*, or install one of: .*pylibjpeg"),
        (
            "1.2.840.10008.1.2.4.80",
            8,
            r"JPEG-LS Lossless .*, which nothing here decodes; .* install one of: .*pyjpegls",
        ),
        ("1.2.840.10008.1.2.4.51", 12, r"JPEG Extended .* of 12 bits a sample, which nothing here decodes; store it"),
        (JPEG_2000, 24, r"JPEG 2000 .* of 24 bits a sample, which nothing here decodes; store it uncompressed"),
        ("1.2.3.4", 8, r"kept as 1\.2\.3\.4, which nothing here decodes; store it uncompressed"),
    ],
)
def test_without_a_decoder_the_header_is_enough_to_say_so(syntax: str, stored: int, told: str, tmp_path: Path) -> None:
    attributes = {0x00280100: ("US", 32), 0x00280101: ("US", stored), 0x00280102: ("US", stored - 1)}
    path = write_dicom(tmp_path / "a", b"never read", attributes, syntax=syntax, shape=(4, 4))
    with pytest.raises(Defect, match=told) as caught:
        frame_of(read_header(path))
    assert caught.value.kind == NO_DECODER


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({0x00280008: ("IS", 30)}, SHAPE),
        ({0x00280010: ("US", 0)}, SHAPE),
        ({0x00280010: ("US", 60)}, TRUNCATED),
        ({0x00280100: ("US", 12)}, UNREADABLE),
        ({0x00280101: ("US", 12), 0x00280102: ("US", 15)}, UNREADABLE),
        ({0x00280103: ("US", 2)}, UNREADABLE),
        ({0x00280004: ("CS", "HSV")}, UNREADABLE),
        ({0x00280002: ("US", 3)}, UNREADABLE),
    ],
)
def test_what_is_no_single_image_is_refused_by_its_header(
    attributes: dict[int, tuple[str, Any]], kind: str, tmp_path: Path
) -> None:
    path = write_dicom(tmp_path / "a", np.zeros((4, 4), np.uint16), attributes)
    with pytest.raises(Defect) as caught:
        frame_of(read_header(path))
    assert caught.value.kind == kind
