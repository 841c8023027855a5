"""What attacks that plant a layer refuse."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from hbdp_fed.adversary.prior import MIN_IMAGES
from hbdp_fed.adversary.public_images import WINDOW, check_public_images
from hbdp_fed.errors import SettingError


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


def check_planting(images: Tensor, *, attack: str) -> None:
    """Whether an attack can plant its layer with these public images (P, C, *spatial): a prior from either half.

    Raises:
        SettingError: as :func:`hbdp_fed.adversary.public_images.check_public_images`.
    """
    check_public_images(images, attack=attack, least=2 * MIN_IMAGES, smallest_side=WINDOW)
