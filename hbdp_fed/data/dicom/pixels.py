"""The pixels of a frame as numbers: what a header promises of them, and what pydicom decodes (PS3.3, C.7.6.3)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder, pixel_array
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, JPEGExtended12Bit

from hbdp_fed.data.defects import NO_DECODER, SHAPE, TRUNCATED, UNREADABLE, Defect
from hbdp_fed.data.dicom.header import DicomFile, broken_as_defect, integer, numbers, opened, text

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
_COLOURS: Mapping[str, int] = {
    **dict.fromkeys((*MONOCHROME, PALETTE), 1),
    **dict.fromkeys(("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"), 3),
}
"""Samples a pixel, by DICOM's words for what they mean."""

_DEPTHS = (1, 8, 16, 32)
_MOST_PIXELS = 2**28
_PILLOW = ("pillow",)
_JPEG_2000 = (JPEG2000, JPEG2000Lossless)
_OF_PILLOW = (JPEGBaseline8Bit, JPEGExtended12Bit, *_JPEG_2000)

_NEEDED = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "PixelData",
)  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """What a header says of the pixels.

    Attributes:
        rows: Height.
        columns: Width.
        samples: 1, or 3 of colours.
        photometric: What they mean, a key of DICOM's.
        stored: Bits of a sample that count.
    """

    rows: int
    columns: int
    samples: int
    photometric: str
    stored: int

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
    frames = numbers(header, "NumberOfFrames")
    if frames and frames[0] > 1:
        raise Defect(SHAPE, f"has {frames[0]:g} frames; an image has one, and a volume is a folder of slices")
    allocated, stored = integer(header, "BitsAllocated"), integer(header, "BitsStored")
    frame = Frame(
        rows=integer(header, "Rows"),
        columns=integer(header, "Columns"),
        samples=integer(header, "SamplesPerPixel"),
        photometric=text(header, "PhotometricInterpretation"),
        stored=stored,
    )
    if frame.photometric not in _COLOURS:
        raise Defect(UNREADABLE, f"has a PhotometricInterpretation that is none of {', '.join(_COLOURS)}")
    if frame.samples != _COLOURS[frame.photometric]:
        raise Defect(UNREADABLE, f"has {frame.samples} samples a pixel, which {frame.photometric} has not")
    if not 0 < frame.rows * frame.columns <= _MOST_PIXELS:
        raise Defect(SHAPE, f"has {frame.rows} x {frame.columns} pixels")
    # pydicom takes the lowest bits for those that count.
    if allocated not in _DEPTHS or not 0 < stored <= allocated or integer(header, "HighBit", stored - 1) != stored - 1:
        raise Defect(UNREADABLE, f"has samples of {stored} bits in {allocated}; known are the lowest bits of {_DEPTHS}")
    if integer(header, "PixelRepresentation") not in (0, 1):
        raise Defect(UNREADABLE, "has a PixelRepresentation that is neither 0 nor 1")
    _check_decoder(file, frame)
    _check_length(file)
    return frame


def stored_pixels(file: DicomFile, frame: Frame) -> NDArray[Any]:
    """The samples as integers, (rows, columns) or (rows, columns, 3), colours as RGB.

    Raises:
        Defect: if they cannot be decoded.
    """
    with broken_as_defect("has pixels that cannot be decoded"):
        with opened(file.path) as stream:
            content = dcmread(stream, force=True, specific_tags=list(_NEEDED))
        content.file_meta = file.header.file_meta
        if file.syntax in _OF_PILLOW:
            _check_size(content.PixelData, frame)
        try:
            pixels = pixel_array(content, allow_excess_frames=False)
        except RuntimeError as error:
            # A line for each decoder.
            told = str(error).strip().splitlines()[-1].strip()
            raise Defect(UNREADABLE, f"has pixels that cannot be decoded ({told})") from error
        if pixels.shape != frame.shape:
            raise Defect(SHAPE, f"has {pixels.shape} samples, but its header says {frame.shape}")
        return pixels


def _check_decoder(file: DicomFile, frame: Frame) -> None:
    """That one of pydicom's plugins that are installed decodes the pixels.

    Raises:
        Defect: otherwise.
    """
    kept = f"has pixels kept as {file.syntax.name if file.syntax.is_valid else 'nobody knows what'}"
    advice = "store it uncompressed (gdcmconv --raw, dcmdjpeg or dcmdjpls do)"
    try:
        decoder = get_decoder(file.syntax)
    except NotImplementedError as error:
        raise Defect(NO_DECODER, f"{kept}, which nothing here decodes; {advice}") from error
    if not decoder.is_available:
        plugins = ", ".join(line.partition(" ")[0] for line in decoder.missing_dependencies)
        raise Defect(NO_DECODER, f"{kept}, which nothing here decodes; {advice}, or install one of: {plugins}")
    if decoder.available_plugins != _PILLOW:
        return
    # What Pillow alone has no word for.
    is_deep = frame.stored > (8 if frame.samples > 1 or file.syntax not in _JPEG_2000 else 16)
    if is_deep:
        raise Defect(NO_DECODER, f"{kept} of {frame.stored} bits a sample, which nothing here decodes; {advice}")


def _check_length(file: DicomFile) -> None:
    """That there are as many bytes as pixels need, and not so many that decoding them fills the memory."""
    wanted = get_expected_length(file.header)
    if not file.syntax.is_encapsulated:
        if file.length < wanted:
            raise Defect(TRUNCATED, f"has {file.length} bytes of pixels, but its header asks for {wanted}")
    elif file.length > 2 * wanted + 2**16:
        raise Defect(UNREADABLE, f"has {file.length} bytes of compressed pixels, which would be {wanted} without")


def _check_size(encapsulated: bytes, frame: Frame) -> None:
    """That a JPEG has the sides that the header says, before it is decoded."""
    with Image.open(io.BytesIO(get_frame(encapsulated, 0, number_of_frames=1)), formats=("JPEG", "JPEG2000")) as coded:
        if coded.size != (frame.columns, frame.rows):
            own, sides = f"{coded.height}x{coded.width}", f"{frame.rows}x{frame.columns}"
            raise Defect(SHAPE, f"has a compressed picture of {own} pixels, but its header says {sides}")
