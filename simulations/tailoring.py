"""Attacks that hand every hospital a model of its own: where they cannot work."""

from __future__ import annotations

from collections.abc import Sequence

from hbdp_fed.adversary import ATTACKS
from hbdp_fed.types import Surface

_LARGEST_LAYER = 2**25
"""Weights of a planted layer whose federation takes about 4 GB and, on two cores, some minutes."""


def obstacle_of_tailoring(
    name: str, *, seen: Sequence[Surface], weight_decay: float, bins: int, pixels: int, hospitals: int
) -> tuple[str, str] | None:
    """The setting by which one of these attacks cannot work, and how; None if it can.

    Args:
        name: Of the attack.
        seen: Where the adversary stands.
        weight_decay: Of the hospitals' optimiser.
        bins: Rows for each hospital.
        pixels: Of an image, times its channels.
        hospitals: How many train.
    """
    wanted = ATTACKS[name].surfaces
    if set(wanted).isdisjoint(seen):
        return (
            "adversary.attack",
            f"{name} takes means apart, and where hospitals are seen one by one it is the imprint attack: set "
            f"adversary.surfaces to {' or '.join(wanted)}, or take imprint",
        )
    if weight_decay != 0:
        return (
            "training.weight_decay",
            f"must be 0 for {name}: the mean would hold what decayed of weights that differ from hospital to hospital",
        )
    most = _LARGEST_LAYER // (hospitals * pixels)
    if bins > most:
        return (
            "adversary.bins",
            f"must be at most {most} for {name}, got {bins}: one model holds as many rows of an image's size for each "
            f"of {hospitals} hospitals",
        )
    return None
