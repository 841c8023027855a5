"""The pixels of a frame as numbers, from the bytes that a transfer syntax keeps them as (PS3.5, 8 and annex G)."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hbdp_fed.data.bad_records import reason
from hbdp_fed.data.defects import NO_DECODER, SHAPE, TRUNCATED, UNREADABLE, Defect
from hbdp_fed.data.dicom.elements import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, DicomFile
from hbdp_fed.data.photographs import UNREADABLE as BROKEN

RLE = "1.2.840.10008.1.2.5"
_JPEG_PREFIX = "1.2.840.10008.1.2.4."
JPEG_BASELINE, JPEG_EXTENDED = f"{_JPEG_PREFIX}50", f"{_JPEG_PREFIX}51"
JPEG_2000 = (f"{_JPEG_PREFIX}90", f"{_JPEG_PREFIX}91")

_WITHOUT_DECODER: Mapping[str, str] = {
    f"{_JPEG_PREFIX}57": "lossless JPEG",
    f"{_JPEG_PREFIX}70": "lossless JPEG",
    f"{_JPEG_PREFIX}80": "JPEG-LS",
    f"{_JPEG_PREFIX}81": "JPEG-LS",
    f"{_JPEG_PREFIX}201": "high-throughput JPEG 2000",
    f"{_JPEG_PREFIX}202": "high-throughput JPEG 2000",
    f"{_JPEG_PREFIX}203": "high-throughput JPEG 2000",
}
"""What hospitals use besides, for messages."""

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
RGB = "RGB"
YBR = ("YBR_FULL", "YBR_FULL_422")
YBR_422 = "YBR_FULL_422"
_TRANSFORMED = ("YBR_ICT", "YBR_RCT")
"""The decoder of JPEG 2000 returns them as RGB."""

_COLOURS: Mapping[str, int] = {
    **dict.fromkeys((*MONOCHROME, PALETTE), 1), **dict.fromkeys((RGB, *YBR, *_TRANSFORMED), 3)
}  # fmt: skip
_MOST_PIXELS = 2**28
_RLE_HEADER = 64


@dataclass(frozen=True)
class Frame:
    """What a header says of the pixels.

    Attributes:
        rows: Height.
        columns: Width.
        samples: 1, or 3 of colours.
        photometric: What they mean, a key of DICOM's.
        allocated: Bits that a sample takes.
        stored: Bits of it that count.
        high: The highest bit that counts.
        is_signed: Whether samples can be negative.
        is_planar: Whether one colour follows the other instead of one pixel the other.
        order: ``<`` or ``>``.
        is_swapped: Whether bytes stand in the wrong order, since words of two were written.
    """

    rows: int
    columns: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    high: int
    is_signed: bool
    is_planar: bool
    order: str
    is_swapped: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), or with three colours."""
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)


def frame_of(file: DicomFile) -> Frame:
    """What a header says of the pixels, checked.

    Raises:
        Defect: if they cannot be read here: several frames, unknown colours, a compression without decoder.
    """
    header = file.header
    frames = header.decimals("NumberOfFrames")
    if frames and frames[0] > 1:
        raise Defect(SHAPE, f"has {frames[0]:g} frames; an image has one, and a volume is a folder of slices")
    allocated = header.integer("BitsAllocated")
    stored = header.integer("BitsStored", allocated)
    frame = Frame(
        rows=header.integer("Rows"),
        columns=header.integer("Columns"),
        samples=header.integer("SamplesPerPixel", 1),
        photometric=header.text("PhotometricInterpretation"),
        allocated=allocated,
        stored=stored,
        high=header.integer("HighBit", stored - 1),
        is_signed=header.integer("PixelRepresentation", 0) == 1,
        is_planar=header.integer("PlanarConfiguration", 0) == 1,
        order=header.order,
        is_swapped=header.order == ">" and allocated == 8 and file.is_words,
    )
    if frame.photometric not in _COLOURS:
        raise Defect(UNREADABLE, f"has pixels of the kind '{frame.photometric}'; known are {', '.join(_COLOURS)}")
    if frame.samples != _COLOURS[frame.photometric]:
        raise Defect(UNREADABLE, f"has {frame.samples} samples a pixel, which {frame.photometric} has not")
    if not 0 < frame.rows * frame.columns <= _MOST_PIXELS:
        raise Defect(SHAPE, f"has {frame.rows} x {frame.columns} pixels")
    if allocated not in (8, 16, 32) or not 0 < stored <= allocated or not stored <= frame.high + 1 <= allocated:
        raise Defect(UNREADABLE, f"has samples of {stored} bits in {allocated}; known are 8, 16 and 32")
    _check_decoder(file, frame)
    return frame


def stored_pixels(file: DicomFile, frame: Frame) -> NDArray[Any]:
    """The samples as integers, (rows, columns) or (rows, columns, 3), colours as RGB.

    Raises:
        Defect: if they cannot be decoded.
    """
    try:
        return _DECODERS[file.syntax](b"".join(file.fragments()), frame)
    except (*BROKEN, RuntimeError) as error:
        if isinstance(error, Defect):
            raise
        raise Defect(UNREADABLE, f"has pixels that cannot be decoded ({reason(error)})") from error


def _check_decoder(file: DicomFile, frame: Frame) -> None:
    if file.syntax not in _DECODERS:
        told = _WITHOUT_DECODER.get(file.syntax, f"the transfer syntax {file.syntax or '(none)'}")
        raise Defect(NO_DECODER, f"{_IS_KEPT} {told}, {_NO_DECODER}")
    if file.syntax == JPEG_EXTENDED and frame.stored > 8:
        raise Defect(NO_DECODER, f"{_IS_KEPT} JPEG of {frame.stored} bits, {_NO_DECODER}")
    if file.syntax in JPEG_2000 and (frame.stored > 16 or (frame.samples > 1 and frame.stored > 8)):
        raise Defect(NO_DECODER, f"{_IS_KEPT} JPEG 2000 of {frame.stored} bits a colour, {_NO_DECODER}")
    if file.length is not None and file.syntax in _NATIVE:
        wanted = _native_bytes(frame)
        if file.length < wanted:
            raise Defect(TRUNCATED, f"has {file.length} bytes of pixels, but its header asks for {wanted}")


_IS_KEPT = "has pixels kept as"
_NO_DECODER = "which nothing here decodes; store it uncompressed (gdcmconv --raw, dcmdjpeg or dcmdjpls do)"


def _native_bytes(frame: Frame) -> int:
    # Two neighbours share their colour.
    samples = 2 if frame.photometric == YBR_422 else frame.samples
    return frame.rows * frame.columns * samples * frame.allocated // 8


def _native(data: bytes, frame: Frame) -> NDArray[Any]:
    if frame.is_swapped:
        data = np.frombuffer(data[: len(data) // 2 * 2], dtype=">u2").astype("<u2").tobytes()
    values = np.frombuffer(data[: _native_bytes(frame)], dtype=f"{frame.order}u{frame.allocated // 8}")
    if frame.photometric == YBR_422:
        pairs = values.reshape(frame.rows, frame.columns // 2, 4)
        brightness = pairs[..., :2].reshape(frame.rows, frame.columns)
        colours = np.repeat(pairs[..., 2:], 2, axis=1)
        return _rgb(np.concatenate([brightness[..., None], colours], axis=-1), frame)
    if frame.samples > 1 and frame.is_planar:
        values = np.moveaxis(values.reshape(frame.samples, frame.rows, frame.columns), 0, -1)
    return _rgb(_signed(values.reshape(frame.shape), frame), frame)


def _run_lengths(data: bytes, frame: Frame) -> NDArray[Any]:
    """PS3.5, annex G: a segment a byte of a sample, the most significant first."""
    count, *starts = struct.unpack_from("<16I", data)
    wanted = frame.samples * frame.allocated // 8
    if count != wanted:
        raise Defect(UNREADABLE, f"has {count} segments of run lengths, but needs {wanted}")
    ends = [*starts[1:count], len(data)]
    size = frame.rows * frame.columns
    planes = [_unpacked(data[start:end], size) for start, end in zip(starts[:count], ends, strict=True)]
    whole = np.stack(planes).reshape(frame.samples, frame.allocated // 8, size)
    # Bytes of a sample side by side, as a number is kept in big endian.
    values = np.ascontiguousarray(whole.transpose(2, 0, 1)).view(f">u{frame.allocated // 8}")
    return _rgb(_signed(values.reshape(frame.shape), frame), frame)


def _unpacked(data: bytes, size: int) -> NDArray[np.uint8]:
    out = bytearray()
    position = 0
    while len(out) < size:
        if position + 1 >= len(data):
            raise Defect(TRUNCATED, "has run lengths that end before its pixels do")
        count = data[position]
        if count < 128:
            out += data[position + 1 : position + 2 + count]
            position += 2 + count
        elif count > 128:
            out += data[position + 1 : position + 2] * (257 - count)
            position += 2
        else:
            position += 1
    return np.frombuffer(bytes(out[:size]), dtype=np.uint8)


def _jpeg(data: bytes, frame: Frame) -> NDArray[Any]:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        if frame.photometric == RGB and "adobe_transform" not in picture.info:
            # Without Adobe's mark Pillow takes three colours for YCbCr; asked for YCbCr, it leaves them alone.
            picture.draft("YCbCr", picture.size)
            return _fitting(np.array(picture), frame)
        return _fitting(np.array(picture.convert("L" if frame.samples == 1 else "RGB")), frame)


def _jpeg_2000(data: bytes, frame: Frame) -> NDArray[Any]:
    precision, is_signed = _sample_size(data)
    with Image.open(io.BytesIO(data), formats=("JPEG2000",)) as picture:
        values = np.array(picture)
    if frame.samples > 1:
        values = _rgb(values, frame)
        return _fitting(values, frame)
    # Pillow makes samples as wide as their container, and positive.
    width = 8 * values.dtype.itemsize
    wide = values.astype(np.int32)
    if is_signed:
        return _fitting((wide - (1 << (width - 1))) >> (width - precision), frame)
    return _fitting(_extended(wide >> (width - precision), precision, frame.is_signed), frame)


def _sample_size(data: bytes) -> tuple[int, bool]:
    """Bits of a sample and whether it is signed, by the code stream's marker SIZ (ISO 15444-1, A.5.1)."""
    begins = data.find(b"\xff\x4f\xff\x51")
    if begins < 0 or begins + 43 > len(data):
        raise Defect(TRUNCATED, "has pixels that are no JPEG 2000")
    size = data[begins + 42]
    return (size & 0x7F) + 1, bool(size & 0x80)


def _signed(values: NDArray[Any], frame: Frame) -> NDArray[Any]:
    """The bits that count, as numbers: others may hold an overlay."""
    if frame.stored < frame.allocated:
        values = (values >> (frame.high + 1 - frame.stored)) & ((1 << frame.stored) - 1)
    return _extended(values.astype(np.int64), frame.stored, frame.is_signed)


def _extended(values: NDArray[Any], bits: int, is_signed: bool) -> NDArray[Any]:
    if not is_signed:
        return values
    return np.where(values >= 1 << (bits - 1), values - (1 << bits), values)


def _rgb(values: NDArray[Any], frame: Frame) -> NDArray[Any]:
    """Colours that are kept as brightness and differences (PS3.3, C.7.6.3.1.2) as red, green and blue."""
    if frame.photometric not in YBR:
        return values
    middle, most = 1 << (frame.stored - 1), (1 << frame.stored) - 1
    brightness, blue, red = np.moveaxis(values.astype(np.float64), -1, 0)
    blue, red = blue - middle, red - middle
    colours = np.stack(
        [brightness + 1.402 * red, brightness - 0.344136 * blue - 0.714136 * red, brightness + 1.772 * blue], axis=-1
    )
    rounded: NDArray[np.int64] = np.rint(colours).clip(0, most).astype(np.int64)
    return rounded


def _fitting(values: NDArray[Any], frame: Frame) -> NDArray[Any]:
    if values.shape != frame.shape:
        raise Defect(SHAPE, f"has {values.shape} samples, but its header says {frame.shape}")
    return values


_NATIVE = (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN)
_DECODERS: Mapping[str, Callable[[bytes, Frame], NDArray[Any]]] = {
    **dict.fromkeys(_NATIVE, _native),
    RLE: _run_lengths,
    JPEG_BASELINE: _jpeg,
    JPEG_EXTENDED: _jpeg,
    **dict.fromkeys(JPEG_2000, _jpeg_2000),
}
