"""A DICOM file as an image: its physical values, and how bright each is shown (DICOM PS3.3, C.7.6.3, C.11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hbdp_fed.data.contract import Preparation
from hbdp_fed.data.defects import NOT_A_NUMBER, UNREADABLE, Defect
from hbdp_fed.data.dicom.attributes import DataSet
from hbdp_fed.data.dicom.compression import MONOCHROME, PALETTE, Frame, frame_of, stored_pixels
from hbdp_fed.data.dicom.elements import DicomFile, read_header
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
        return _coloured(stored, file.header)
    if frame.photometric not in MONOCHROME:
        return stored.astype(np.float64) / ((1 << frame.stored) - 1)
    values = physical(stored, file.header, frame)
    bright = (
        _linear_exact(values, (window[0] + window[1]) / 2, window[1] - window[0])
        if window
        else _own_window(values, file.header)
    )
    return 1.0 - bright if frame.photometric == "MONOCHROME1" else bright


def physical(stored: NDArray[Any], header: DataSet, frame: Frame) -> Values:
    """What stored values stand for, of CT in Hounsfield units (PS3.3, C.11.1).

    Raises:
        Defect: if the header has no numbers for it.
    """
    tables = header.items("ModalityLUTSequence")
    if tables:
        return _looked_up(stored, tables[0], is_signed=frame.is_signed)[0]
    slope, intercept = header.decimals("RescaleSlope") or [1.0], header.decimals("RescaleIntercept") or [0.0]
    return stored * slope[0] + intercept[0]


def _own_window(values: Values, header: DataSet) -> Values:
    """By the file's first window, else its first table, else two percentiles of the values."""
    centers, widths = header.decimals("WindowCenter"), header.decimals("WindowWidth")
    if centers and widths:
        function = header.text("VOILUTFunction") or "LINEAR"
        if function not in _FUNCTIONS:
            raise Defect(UNREADABLE, f"has the VOILUTFunction '{function}', which is none of {', '.join(_FUNCTIONS)}")
        return _FUNCTIONS[function](values, centers[0], widths[0])
    tables = header.items("VOILUTSequence")
    if tables:
        found, most = _looked_up(np.rint(values).astype(np.int64), tables[0], is_signed=bool((values < 0).any()))
        return found / most
    low, high = np.percentile(values, PERCENTILES)
    return _linear_exact(values, (low + high) / 2, max(high - low, np.finfo(np.float64).tiny))


def _linear(values: Values, center: float, width: float) -> Values:
    """PS3.3, C.11.2.1.2.1."""
    _check_width(width, least=1.0)
    if width == 1:
        return np.asarray(values > center - 0.5, dtype=np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)


def _linear_exact(values: Values, center: float, width: float) -> Values:
    """PS3.3, C.11.2.1.3.2."""
    _check_width(width, least=np.finfo(np.float64).tiny)
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def _sigmoid(values: Values, center: float, width: float) -> Values:
    """PS3.3, C.11.2.1.3.1."""
    _check_width(width, least=np.finfo(np.float64).tiny)
    return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700.0, 700.0)))


_FUNCTIONS: Mapping[str, Callable[[Values, float, float], Values]] = {
    "LINEAR": _linear,
    "LINEAR_EXACT": _linear_exact,
    "SIGMOID": _sigmoid,
}


def _check_width(width: float, *, least: float) -> None:
    if not least <= width < np.inf:
        raise Defect(UNREADABLE, f"has a WindowWidth of {width:g}")


def _coloured(stored: NDArray[Any], header: DataSet) -> Values:
    """Colours from a palette, (rows, columns, 3)."""
    bands = []
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTable"
        first, table, bits = _table(header, f"{name}Descriptor", f"{name}Data", is_signed=False)
        bands.append(table[(stored - first).clip(0, len(table) - 1)] / ((1 << bits) - 1))
    return np.stack(bands, axis=-1)


def _looked_up(values: NDArray[Any], item: DataSet, *, is_signed: bool) -> tuple[Values, int]:
    """Values of a table, and the largest that it could have; what lies outside takes its nearest end."""
    first, table, bits = _table(item, "LUTDescriptor", "LUTData", is_signed=is_signed)
    return table[(values - first).clip(0, len(table) - 1)].astype(np.float64), (1 << bits) - 1


def _table(item: DataSet, descriptor: str, data: str, *, is_signed: bool) -> tuple[int, NDArray[Any], int]:
    """The value that the first entry is for, the entries, and their bits (PS3.3, C.11.1.1.1 and C.7.6.3.1.5)."""
    described = item.raw(descriptor)
    if len(described) < 6:
        raise Defect(UNREADABLE, f"has a {descriptor} of {len(described)} bytes; it should be three numbers")
    entries, first, bits = (int(number) for number in np.frombuffer(described[:6], f"{item.order}u2"))
    entries = entries or 1 << 16  # which two bytes cannot say
    if is_signed and first >= 1 << 15:
        first -= 1 << 16
    content = item.raw(data)
    # Tables of 8 bits come with a byte or with two bytes an entry.
    width = 1 if len(content) < 2 * entries else 2
    table = np.frombuffer(content[: entries * width], f"{item.order}u{width}").astype(np.int64)
    if len(table) < entries or not 0 < bits <= 16:
        raise Defect(UNREADABLE, f"has a table of {len(table)} entries of {bits} bits, but {descriptor} says {entries}")
    return first, table, bits
