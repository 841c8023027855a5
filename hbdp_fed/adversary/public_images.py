"""Which public images attacks can work with, known before any training."""

from __future__ import annotations

from torch import Tensor

from hbdp_fed.errors import SettingError

WINDOW = 11
"""Pixels across the similarity's window: rehearsals need images of at least as many a side."""


def check_public_images(images: Tensor, *, attack: str, least: int, smallest_side: int = 1) -> None:
    """Whether an attack can work with these public images (P, C, *spatial).

    Args:
        images: What there is.
        attack: Which attack, for the message.
        least: How many it needs.
        smallest_side: How many pixels a side they need.

    Raises:
        SettingError: if there are too few, they are too small, or they are neither images nor volumes.
    """
    count, *sides = len(images), *images.shape[2:]
    way_out = "set adversary.attack=none"
    if len(sides) not in (2, 3):
        raise SettingError(
            "adversary.attack", f"{attack} needs images of two or three dimensions, these have {len(sides)}; {way_out}"
        )
    if count < least:
        raise SettingError(
            "adversary.attack",
            f"{attack} needs at least {least} public (validation) images, there are {count}; provide more or {way_out}",
        )
    if min(sides) < smallest_side:
        shown = "x".join(str(side) for side in sides)
        raise SettingError(
            "adversary.attack",
            f"{attack} needs images of at least {smallest_side} pixels a side, these have {shown}; {way_out}",
        )
