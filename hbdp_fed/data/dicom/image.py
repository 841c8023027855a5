"""A DICOM file as an image: its physical values, and how bright each is shown (DICOM PS3.3, C.7.6.3, C.11)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing
from pydicom.uid import ExplicitVRBigEndian
from torch import Tensor

from hbdp_fed.data.contract import Preparation
from hbdp_fed.data.defects import NOT_A_NUMBER, UNREADABLE, Defect
from hbdp_fed.data.dicom.header import DicomFile, broken_as_defect, numbers, read_header, text
from hbdp_fed.data.dicom.pixels import MONOCHROME, PALETTE, frame_of, stored_pixels
from hbdp_fed.data.grid import PERCENTILES
from hbdp_fed.data.photographs import CHANNELS

DICOM = "dicom"
"""The :class:`hbdp_fed.data.Preparation` of what this file reads."""

Values = NDArray[np.float64]

_GREY_WEIGHTS = np.array([0.299, 0.587, 0.114])
"""Of red, green and blue (ITU-R BT.601), as Pillow has them."""


def dicom_preparation(mode: str, image_size: int, window: Sequence[float] | None) -> Preparation:
    """What :func:`read_dicom_image` does to a file."""
    colour = "grey levels" if mode == "L" else "red, green and blue"
    low, high = PERCENTILES
    shown = (
        f"values from {window[0]:g} to {window[1]:g} become 0 to 1"
        if window
        else "values are shown through the first window of the file, without one through its first VOI table, and "
        f"without either from their percentile {low:g} to {high:g}"
    )
    return Preparation(
        kind=DICOM,
        words=(
            "the stored values of the DICOM file go through its rescale slope and intercept or its modality table; "
            f"{shown}; MONOCHROME1 is inverted; colours are divided by the largest that they could be; and the image "
            f"is taken as {colour} and scaled to {image_size}x{image_size} pixels whatever its sides were (bilinear)"
        ),
        details={
            "mode": mode,
            "size": [image_size, image_size],
            "resampling": "bilinear",
            "window": None if window is None else list(window),
        },
    )


def read_dicom_image(path: Path, *, mode: str, size: tuple[int, int], window: Sequence[float] | None) -> Tensor:
    """One file as it is shown, scaled to a common size whatever its sides were.

    Args:
        path: The file.
        mode: ``L`` or ``RGB``; what is stored in another mode is converted.
        size: Height and width in pixels.
        window: The values, after rescaling, that become 0 and 1; None takes the file's own window.

    Returns:
        float32 (C, *size) in [0, 1].

    Raises:
        Defect: if it cannot be read.
    """
    file = read_header(path)
    try:
        pixels = shown(file, window=window)
    except Defect as defect:
        raise Defect(defect.kind, defect.text, path) from defect
    if not np.isfinite(pixels).all():
        raise Defect(NOT_A_NUMBER, "has a grey level that is not a finite number", path)
    if mode == "L" and pixels.ndim == 3:
        pixels = pixels @ _GREY_WEIGHTS
    height, width = size
    bands = [pixels] if pixels.ndim == 2 else list(np.moveaxis(pixels, -1, 0))
    scaled = [
        Image.fromarray(band.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR) for band in bands
    ]
    image = torch.from_numpy(np.stack([np.asarray(band) for band in scaled])).clamp(0.0, 1.0)
    return image.expand(CHANNELS[mode], height, width).contiguous()


def shown(file: DicomFile, *, window: Sequence[float] | None) -> Values:
    """The brightness of each pixel in [0, 1], (rows, columns) or (rows, columns, 3).

    Raises:
        Defect: if the pixels cannot be read, or what says how bright they are.
    """
    frame = frame_of(file)
    stored = stored_pixels(file, frame)
    if frame.photometric == PALETTE:
        return _coloured(stored, file)
    if frame.photometric not in MONOCHROME:
        return stored.astype(np.float64) / ((1 << frame.stored) - 1)
    values = physical(stored, file.header)
    bright = _between(values, *window) if window else _own_window(values, file.header)
    return 1.0 - bright if frame.photometric == "MONOCHROME1" else bright


def physical(stored: NDArray[Any], header: Dataset) -> Values:
    """What stored values stand for, of CT in Hounsfield units (PS3.3, C.11.1).

    Raises:
        Defect: if the header has no numbers for it.
    """
    with broken_as_defect("has a modality table that cannot be used"):
        if header.get("ModalityLUTSequence"):
            inside, _ = _inside_of_table(stored, header.ModalityLUTSequence[0])
            return apply_modality_lut(inside, header).astype(np.float64)
    slope, intercept = numbers(header, "RescaleSlope"), numbers(header, "RescaleIntercept")
    if not slope and not intercept:
        return stored.astype(np.float64)
    if len(slope) != 1 or len(intercept) != 1:
        raise Defect(UNREADABLE, f"has {len(slope)} RescaleSlope and {len(intercept)} RescaleIntercept; each is one")
    return apply_modality_lut(stored, header).astype(np.float64)


def _own_window(values: Values, header: Dataset) -> Values:
    """By the file's first window, else its first table, else two percentiles of the values."""
    centers, widths = numbers(header, "WindowCenter"), numbers(header, "WindowWidth")
    if centers and widths:
        return _windowed(values, centers[0], widths[0], text(header, "VOILUTFunction") or "LINEAR")
    with broken_as_defect("has a VOI table that cannot be used"):
        if header.get("VOILUTSequence"):
            inside, most = _inside_of_table(np.rint(values).astype(np.int64), header.VOILUTSequence[0])
            return apply_voi(inside, header) / most
    low, high = np.percentile(values, PERCENTILES)
    return _between(values, low, high)


def _between(values: Values, low: float, high: float) -> Values:
    """Values from one to the other become 0 to 1."""
    return _windowed(values, (low + high) / 2, max(high - low, np.finfo(np.float64).tiny), "LINEAR_EXACT")


def _windowed(values: Values, center: float, width: float, function: str) -> Values:
    """Through a window to [0, 1] (PS3.3, C.11.2.1)."""
    window = Dataset()
    # Brightness of one bit: what comes out of pydicom runs from 0 to 1.
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 1, 0
    # As decimal strings, which they are in a file, numbers would have sixteen letters at most.
    window.add_new("WindowCenter", "FD", center)
    window.add_new("WindowWidth", "FD", width)
    window.VOILUTFunction = function
    with broken_as_defect("has a window that cannot be used"), np.errstate(over="ignore"):
        return apply_windowing(values, window)


def _coloured(stored: NDArray[Any], file: DicomFile) -> Values:
    """Colours from a palette, (rows, columns, 3)."""
    header = file.header
    if file.syntax == ExplicitVRBigEndian:  # whose tables pydicom reads in the wrong order
        raise Defect(UNREADABLE, "has a palette in big endian; store it as explicit little endian")
    with broken_as_defect("has a palette that cannot be used"):
        inside, most = _inside_of_table(stored, header, "RedPaletteColorLookupTableDescriptor")
        colours = apply_color_lut(inside, header)
        if colours.max() > most:
            raise Defect(UNREADABLE, f"has a palette of colours up to {colours.max()}, but says that {most} is most")
        return colours / most


def _inside_of_table(
    values: NDArray[Any], item: Dataset, descriptor: str = "LUTDescriptor"
) -> tuple[NDArray[np.int64], int]:
    """The values with those outside of a table moved to its nearest end, and the most that its entries could be.

    As the standard has it (PS3.3, C.11.1.1.1 and C.7.6.3.1.5); pydicom would do it after it has cut them to the bits of
    an entry.
    """
    entries, first, bits = (int(number) for number in item[descriptor].value)
    return values.astype(np.int64).clip(first, first + (entries or 1 << 16) - 1), (1 << bits) - 1
