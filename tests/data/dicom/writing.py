"""Writes small DICOM files, byte by byte as PS3.5 has it, so that what is read can be told beforehand."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5"
JPEG, JPEG_2000, JPEG_LOSSLESS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.70"

_LONG = {"OB", "OW", "SQ", "UN", "UT"}
_UNDEFINED = b"\xff\xff\xff\xff"

Attributes = Mapping[int, tuple[str, Any]]
"""By tag: the representation, and words, numbers, bytes or, of a sequence, items."""

CT: Attributes = {
    0x00080060: ("CS", "CT"), 0x0020000E: ("UI", "1.2.3"), 0x00200037: ("DS", [1, 0, 0, 0, 1, 0]),
    0x00280030: ("DS", [2.0, 1.5]), 0x00281052: ("DS", -1000), 0x00281053: ("DS", 2),
}  # fmt: skip
POSITION = 0x00200032


def element(tag: int, representation: str, value: Any, syntax: str = EXPLICIT) -> bytes:
    """One element as a transfer syntax has it."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    data = _value(representation, value, syntax, order)
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    length = struct.pack(f"{order}I", len(data))
    if syntax == IMPLICIT:
        return head + length + data
    if representation in _LONG:
        return head + representation.encode() + b"\0\0" + length + data
    return head + representation.encode() + struct.pack(f"{order}H", len(data)) + data


def beginning(syntax: str) -> bytes:
    """What a file begins with (PS3.10, 7.1)."""
    meta = element(0x00020010, "UI", syntax)
    return b"\0" * 128 + b"DICM" + element(0x00020000, "UL", len(meta)) + meta


def write_dicom(
    path: Path,
    pixels: NDArray[Any] | bytes,
    attributes: Attributes | None = None,
    *,
    syntax: str = EXPLICIT,
    shape: tuple[int, int] | None = None,
    photometric: str = "MONOCHROME2",
    stored: int | None = None,
    preamble: bool = True,
) -> Path:
    """A file with these pixels: an array as it is, or bytes of a compressed frame of a shape."""
    is_coded = isinstance(pixels, bytes)
    rows, columns = shape or np.shape(pixels)[:2]
    dtype = np.dtype(np.uint8) if isinstance(pixels, bytes) else pixels.dtype
    bits = 8 * dtype.itemsize
    samples = 1 if photometric.startswith("MONO") or photometric == "PALETTE COLOR" else 3
    described: dict[int, tuple[str, Any]] = {
        0x00280002: ("US", samples), 0x00280004: ("CS", photometric), 0x00280006: ("US", 0),
        0x00280010: ("US", rows), 0x00280011: ("US", columns), 0x00280100: ("US", bits),
        0x00280101: ("US", stored or bits), 0x00280102: ("US", (stored or bits) - 1),
        0x00280103: ("US", int(dtype.kind == "i")), **(attributes or {}),
    }  # fmt: skip
    body = b"".join(element(tag, *described[tag], syntax) for tag in sorted(described))
    if isinstance(pixels, bytes):
        items = [b"", pixels + b"\0" * (len(pixels) % 2)]
        body += struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF)
        body += b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
        body += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    else:
        order = ">" if syntax == BIG_ENDIAN else "<"
        body += element(
            0x7FE00010, "OB" if bits == 8 else "OW", pixels.astype(dtype.newbyteorder(order)).tobytes(), syntax
        )
    assert is_coded == (syntax not in (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN))
    if syntax == DEFLATED:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = packer.compress(body) + packer.flush()
    path.write_bytes((beginning(syntax) if preamble else b"") + body)
    return path


def write_series(folder: Path, volume: NDArray[np.int16], *, gap: float = 3.0, first: float = -20.0) -> Path:
    """A CT of (slices, rows, columns), a file a slice from the top down: as scanners name them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(volume[::-1]):
        height = first + gap * (len(volume) - 1 - number)
        write_dicom(folder / f"IM{number}.dcm", pixels, {**CT, POSITION: ("DS", [-10, -30, height])})
    return folder


def _value(representation: str, value: Any, syntax: str, order: str) -> bytes:
    if representation == "SQ":
        items = [b"".join(element(tag, *item[tag], syntax) for tag in sorted(item)) for item in value]
        return b"".join(struct.pack(f"{order}HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    if isinstance(value, bytes):
        data = value
    elif representation in {"US", "SS"}:
        numbers: Sequence[int] = value if isinstance(value, list) else [value]
        data = struct.pack(f"{order}{len(numbers)}{'H' if representation == 'US' else 'h'}", *numbers)
    elif representation == "UL":
        data = struct.pack(f"{order}I", value)
    else:
        words = value if isinstance(value, list) else [value]
        data = "\\".join(map(str, words)).encode()
    return data + (b"\0" if representation in {"UI", "OB", "OW"} else b" ") * (len(data) % 2)
