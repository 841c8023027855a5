"""The common grid and grey levels that volumes are brought to, as a user asks for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hbdp_fed.data.checks import check_integer, check_number
from hbdp_fed.data.contract import Preparation
from hbdp_fed.errors import SettingError, unknown_choice

PERCENTILES = (0.5, 99.5)
"""Of each volume and channel by itself: what is outside is clipped, for one bright voxel may be a thousand times as
bright as tissue."""

FITS = ("crop", "scale")
"""How a volume comes to the common size: padded or cropped around its centre, or scaled as a whole."""

READERS = 4
"""Volumes in preparation at once: a large CT takes gigabytes while it is, however many processors there are."""

_MOST_VOXELS = 2**28
"""Of one volume, which is a gigabyte."""


@dataclass(frozen=True)
class Grid:
    """What volumes become.

    Attributes:
        size: The common size in voxels, three sides of at least 16, in the order right, anterior, superior.
        fit: One of :data:`FITS`.
        spacing: The size of a voxel in mm that volumes are resampled to first, three numbers; None leaves them.
        window: The grey levels (of CT: Hounsfield units) that become 0 and 1; None takes :data:`PERCENTILES`.

    Raises:
        SettingError: if a value cannot be used.
    """

    size: Sequence[int]
    fit: str
    spacing: Sequence[float] | None
    window: Sequence[float] | None

    def __post_init__(self) -> None:
        if isinstance(self.size, int) or len(self.size) != 3:
            raise SettingError("data.image_size", f"must be three numbers, as in [40,56,40], got {self.size}")
        for side in self.size:
            check_integer("data.image_size", side, minimum=16)
        if math.prod(self.size) > _MOST_VOXELS:
            raise SettingError("data.image_size", f"must come to at most {_MOST_VOXELS} voxels, got {list(self.size)}")
        if self.fit not in FITS:
            raise unknown_choice("data.fit", self.fit, FITS)
        if self.spacing is not None:
            if isinstance(self.spacing, int | float) or len(self.spacing) != 3:
                raise SettingError("data.spacing", f"must be three numbers in mm or null, got {self.spacing}")
            for side_mm in self.spacing:
                check_number("data.spacing", side_mm, low=0.0, open_ends=True)
        if self.window is not None:
            check_window(self.window)

    def preparation(self, *, unit: str = "Hounsfield units") -> Preparation:
        """What becomes of an image (see :func:`hbdp_fed.data.volumes.volume_pipeline`).

        Args:
            unit: Of the window, for people.
        """
        low, high = self.window or PERCENTILES
        of = unit if self.window else "percentiles of each channel by itself"
        resampled = (
            "" if self.spacing is None else f"resampled to voxels of {' x '.join(f'{s:g}' for s in self.spacing)} mm, "
        )
        fitted = "padded or cropped around its centre" if self.fit == "crop" else "scaled"
        return Preparation(
            kind="volume",
            words=(
                f"the volume is turned to right, anterior, superior, {resampled}its grey levels from {low:g} to "
                f"{high:g} ({of}) become 0 to 1, and it is {fitted} to {' x '.join(map(str, self.size))} voxels"
            ),
            details={
                "orientation": "RAS",
                "spacing": None if self.spacing is None else list(self.spacing),
                "intensity": {"kind": "window" if self.window else "percentiles", "low": low, "high": high},
                "fit": self.fit,
                "size": list(self.size),
            },
        )


def check_window(window: Sequence[float]) -> None:
    """That these are a lower and an upper grey level.

    Raises:
        SettingError: otherwise.
    """
    if isinstance(window, int | float) or len(window) != 2 or not -math.inf < window[0] < window[1] < math.inf:
        raise SettingError("data.window", f"must be two Hounsfield units, the lower one first, got {window}")
