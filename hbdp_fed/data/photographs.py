"""Reads many image files of any common format into one tensor."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hbdp_fed.data.bad_records import BadRecords, reason
from hbdp_fed.data.contract import Preparation

CHANNELS = {"L": 1, "RGB": 3}
"""Pillow's modes, ``L`` for grey, and their channels."""

_CHUNK = 1024
"""Files in flight at once: an error stops the reading at the next chunk, and read pixels do not pile up."""

UNREADABLE = (
    OSError,  # no access, cut off, or of no known format
    ValueError,
    SyntaxError,  # Pillow's word for a broken PNG
    EOFError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def photograph_preparation(mode: str, image_size: int) -> Preparation:
    """What :func:`read_photographs` does to a picture."""
    colour = "grey levels" if mode == "L" else "red, green and blue"
    return Preparation(
        kind="photograph",
        words=(
            f"the picture is read as {colour} of 8 bits, scaled to {image_size}x{image_size} pixels whatever its sides "
            "were (bilinear), and divided by 255"
        ),
        details={"mode": mode, "size": [image_size, image_size], "resampling": "bilinear"},
    )


def read_photograph(path: Path, *, mode: str, size: tuple[int, int], nearest: bool = False) -> Tensor | str:
    """One image, scaled to a common size whatever its sides were, or what is wrong with its file.

    Args:
        path: The file.
        mode: ``L`` or ``RGB``; what is stored in another mode is converted.
        size: Height and width in pixels.
        nearest: Take each pixel from one pixel instead of averaging.

    Returns:
        uint8 (C, *size).
    """
    height, width = size
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    try:
        with Image.open(path) as picture:
            if picture.mode.startswith(("I", "F")):
                # Pillow would clip them to 255 without a word.
                return "has more than 8 bits a pixel"
            # A JPEG is decoded at a fraction of its size where that is still sharper than wanted.
            picture.draft(mode, (2 * width, 2 * height))
            pixels = picture.convert(mode).resize((width, height), method)
    except FileNotFoundError:
        return "there is no such file"
    except UNREADABLE as error:
        return f"cannot be read ({reason(error)})"
    return torch.from_numpy(np.array(pixels)).reshape(height, width, CHANNELS[mode]).permute(2, 0, 1)


def read_photographs(
    paths: Sequence[Path], *, mode: str, image_size: int, bad: BadRecords, nearest: bool = False
) -> tuple[Tensor, Tensor]:
    """Read images and scale each to a square, whatever its sides were.

    Args:
        paths: The files.
        mode: ``L`` or ``RGB``; what is stored in another mode is converted.
        image_size: Height and width in pixels, positive.
        bad: Where files that are missing or cannot be read go.
        nearest: Take each pixel from one pixel instead of averaging: for images whose grey levels are classes.

    Returns:
        uint8 (n, C, image_size, image_size), and int64 (n,): which of ``paths`` they are, ascending.

    Raises:
        DataFileError: if a file is missing, cut off or broken, or has more than 8 bits a channel, under ``stop``.
    """

    def read(path: Path) -> Tensor | str:
        return read_photograph(path, mode=mode, size=(image_size, image_size), nearest=nearest)

    images = torch.empty((len(paths), CHANNELS[mode], image_size, image_size), dtype=torch.uint8)
    kept: list[int] = []
    # Pillow decodes outside of Python's lock.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            for number, picture in enumerate(pool.map(read, chunk), start):
                if isinstance(picture, str):
                    bad.refuse(paths[number], picture)
                    continue
                images[len(kept)] = picture
                kept.append(number)
    return images[: len(kept)], torch.tensor(kept, dtype=torch.int64)
