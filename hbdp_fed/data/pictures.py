"""Picture files as a hospital may have them: more than 8 bits, transparent, with a palette, lying on their side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from hbdp_fed.data.bad_records import reason
from hbdp_fed.data.contract import Preparation
from hbdp_fed.data.defects import SHAPE, TRUNCATED, UNREADABLE, Defect, check_file
from hbdp_fed.data.photographs import CHANNELS
from hbdp_fed.data.photographs import UNREADABLE as BROKEN

PICTURE = "picture"
"""The :class:`hbdp_fed.data.Preparation` of what this file reads."""

ORIENTATION_TAG, _UPRIGHT, _FIRST_TURNED = 0x0112, 1, 5
_FULL_RANGE = 65535.0


def picture_preparation(mode: str, image_size: int) -> Preparation:
    """What :func:`read_picture` does to a picture."""
    colour = "grey levels" if mode == "L" else "red, green and blue"
    return Preparation(
        kind=PICTURE,
        words=(
            f"the picture is turned upright as its EXIF data says, laid on black where it is transparent, read as "
            f"{colour}, scaled to {image_size}x{image_size} pixels whatever its sides were (bilinear), and divided by "
            "the largest number that its pixels could hold: 255, or 65535 where grey levels have 16 bits"
        ),
        details={"mode": mode, "size": [image_size, image_size], "resampling": "bilinear"},
    )


def is_deep(path: Path) -> bool:
    """Whether a picture has more than 8 bits a pixel, by its header.

    Raises:
        Defect: if it cannot be read, or its largest grey level is not known.
    """
    with _opened(path) as picture:
        _check_mode(path, picture)
        return picture.mode.startswith("I")


def upright_size(path: Path) -> tuple[int, int]:
    """Height and width as the picture is meant to be seen, by its header.

    Raises:
        Defect: if it cannot be read.
    """
    with _opened(path) as picture:
        # Pillow decodes a whole PNG to look for what may stand behind the pixels.
        has_exif = picture.format != "PNG" or "exif" in picture.info
        is_turned = has_exif and picture.getexif().get(ORIENTATION_TAG, _UPRIGHT) >= _FIRST_TURNED
        return (picture.width, picture.height) if is_turned else (picture.height, picture.width)


def read_picture(path: Path, *, mode: str, size: tuple[int, int]) -> Tensor:
    """One picture, scaled to a common size whatever its sides were.

    Args:
        path: The file.
        mode: ``L`` or ``RGB``; what is stored in another mode is converted.
        size: Height and width in pixels.

    Returns:
        (C, *size): uint8, or float32 in [0, 1] of a picture with 16 bits a pixel, of which 65535 becomes 1.

    Raises:
        Defect: if it cannot be read, or its largest grey level is not known.
    """
    height, width = size
    with _opened(path) as picture:
        _check_mode(path, picture)
        # A JPEG is decoded at a fraction of its size where that is still sharper than wanted.
        picture.draft(mode, (2 * width, 2 * height))
        upright = _upright(path, picture)
    if upright.mode.startswith("I"):
        deep = Image.fromarray(np.asarray(upright, dtype=np.float32) / np.float32(_FULL_RANGE))
        scaled = torch.from_numpy(np.array(deep.resize((width, height), Image.Resampling.BILINEAR)))
        return scaled.clamp(0.0, 1.0).expand(CHANNELS[mode], height, width).contiguous()
    pixels = _opaque(upright).convert(mode).resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(pixels)).reshape(height, width, CHANNELS[mode]).permute(2, 0, 1)


def read_mask(path: Path) -> NDArray[np.generic]:
    """The numbers of a mask's pixels, (H, W), as they are stored.

    Of a palette they are the numbers, not the colours, unless the palette is black and white; of colours that are all
    grey they are the grey levels.

    Raises:
        Defect: if it cannot be read or holds colours.
    """
    with _opened(path) as picture:
        upright = _upright(path, picture)
    if upright.mode == "P":
        colours = np.asarray(upright.getpalette("RGB") or []).reshape(-1, 3)
        numbers = np.asarray(upright)
        used = colours[np.unique(numbers)] if int(numbers.max()) < len(colours) else colours[:0]
        # Some programs store black and white in either order, and only the colours tell which is which.
        is_black_and_white = len(used) > 0 and {tuple(colour) for colour in used.tolist()} <= {(0,) * 3, (255,) * 3}
        return np.asarray(upright.convert("L")) if is_black_and_white else numbers
    if upright.mode in {"RGB", "RGBA"}:
        bands = np.asarray(upright)[..., :3]
        if (bands != bands[..., :1]).any():
            raise Defect(SHAPE, "is a mask with colours; its pixels must be the numbers of classes", path)
        return bands[..., 0]
    if upright.mode == "LA":
        return np.asarray(upright)[..., 0]
    return np.asarray(upright).astype(np.uint8) if upright.mode == "1" else np.asarray(upright)


def _opened(path: Path) -> Image.Image:
    check_file(path)
    try:
        return Image.open(path)
    except BROKEN as error:
        raise Defect(UNREADABLE, f"cannot be read ({reason(error)})", path) from error


def _upright(path: Path, picture: Image.Image) -> Image.Image:
    """The picture with its pixels decoded."""
    try:
        picture.load()
        return ImageOps.exif_transpose(picture)
    except BROKEN as error:
        kind = TRUNCATED if "truncated" in str(error).lower() else UNREADABLE
        raise Defect(kind, f"cannot be read ({reason(error)})", path) from error


def _check_mode(path: Path, picture: Image.Image) -> None:
    if picture.mode in {"F", "I"}:
        raise Defect(
            SHAPE,
            "has 32 bits a pixel, of which nobody knows the brightest; store it with 8 or 16",
            path,
        )


def _opaque(picture: Image.Image) -> Image.Image:
    """Laid on black where it is transparent: what colour a program stores there means nothing."""
    if not picture.has_transparency_data:
        return picture
    layers = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layers.size, (0, 0, 0, 255)), layers).convert("RGB")
