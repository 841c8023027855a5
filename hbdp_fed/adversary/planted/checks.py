"""What attacks that plant a layer refuse."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from hbdp_fed.adversary.prior import MIN_IMAGES
from hbdp_fed.errors import SettingError

_MIN_PIXELS = 11
"""The similarity's window is 11 pixels wide."""


def check_settings(
    *, bins: int, rank: int, max_logit_change: float, gains: Sequence[float], whitenings: Sequence[float]
) -> None:
    """Whether an attack's own settings can be used.

    Raises:
        SettingError: naming the one that cannot.
    """
    if bins < 2:
        raise SettingError("adversary.bins", f"must be at least 2, got {bins}")
    if rank < 0:
        raise SettingError("adversary.rank", f"must not be negative, got {rank}")
    if not 0 < max_logit_change < math.inf:
        raise SettingError("adversary.max_logit_change", f"must be positive, got {max_logit_change}")
    if not gains or not all(0 < gain < math.inf for gain in gains):
        raise SettingError("adversary.gains", f"needs at least one positive number, got {gains}")
    if not whitenings or not all(0 <= power < math.inf for power in whitenings):
        raise SettingError("adversary.whitenings", f"needs numbers of at least 0, got {whitenings}")


def check_public_images(images: Tensor, *, attack: str) -> None:
    """Whether an attack can work with these public images (P, C, *spatial).

    Raises:
        SettingError: if there are too few, they are too small, or they are neither images nor volumes.
    """
    count, *sides = len(images), *images.shape[2:]
    if len(sides) not in (2, 3):
        raise SettingError(
            "adversary.attack",
            f"{attack} needs images of two or three dimensions, these have {len(sides)}; set adversary.attack=none",
        )
    if count < 2 * MIN_IMAGES:
        raise SettingError(
            "adversary.attack",
            f"{attack} needs at least {2 * MIN_IMAGES} public (validation) images, there are {count}; "
            "provide more or set adversary.attack=none",
        )
    if min(sides) < _MIN_PIXELS:
        raise SettingError(
            "adversary.attack",
            f"{attack} needs images of at least {_MIN_PIXELS} pixels a side, these have "
            f"{'x'.join(str(side) for side in sides)}; set adversary.attack=none",
        )
