"""How long a hospital with this computer and this line takes for a round: arithmetic, nothing measured.

A simulation's clock and a plan made before any training both count with it, so that they say the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DOWNLOAD_BYTES, CONTROL_BYTES, UPLOAD_BYTES = 4, 8, 8
"""Of each number: weights travel to the hospitals in float32, SCAFFOLD's c beside them and updates back in float64."""

_MEGABIT = 1e6
_BITS = 8


@dataclass(frozen=True)
class SiteProfile:
    """One hospital's computer and line. The defaults are plausible, not measured, and leave every result as it is.

    Attributes:
        records_per_s: Record gradients that it computes a second, every view of a record counted; positive.
        download_mbit_s: From the server, in 1e6 bits a second; positive.
        upload_mbit_s: To the server, in the same unit.
        latency_s: Seconds that a round costs whatever is sent: both ways, and starting the work; at least 0.
        availability: The probability that it can be reached in a round, in (0, 1].

    Raises:
        ValueError: naming the field and what it accepts.
    """

    records_per_s: float = 500.0
    download_mbit_s: float = 100.0
    upload_mbit_s: float = 40.0
    latency_s: float = 0.1
    availability: float = 1.0

    def __post_init__(self) -> None:
        for name in ("records_per_s", "download_mbit_s", "upload_mbit_s"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive and finite, got {value:g}")
        if not (self.latency_s >= 0 and math.isfinite(self.latency_s)):
            raise ValueError(f"latency_s must be a number of at least 0, got {self.latency_s:g}")
        if not 0 < self.availability <= 1:
            raise ValueError(f"availability must lie in (0, 1], got {self.availability:g}")


@dataclass(frozen=True)
class Pace:
    """How quick one hospital is at the run's task.

    Attributes:
        profile: Its computer and line.
        records_per_step: Record gradients that a step is expected to compute: sample rate x records x views.
    """

    profile: SiteProfile
    records_per_step: float

    def seconds(self, *, parameters: int, steps: int, corrected: bool) -> float:
        """From the server's request to the hospital's answer: latency + download + compute + upload.

        Args:
            parameters: Numbers in the model that travels.
            steps: DP-SGD steps that are asked for.
            corrected: Whether SCAFFOLD's c travels with it.
        """
        return self.transfer_seconds(parameters=parameters, corrected=corrected) + self.compute_seconds(steps)

    def compute_seconds(self, steps: int) -> float:
        """What so many DP-SGD steps take."""
        return self.records_per_step * steps / self.profile.records_per_s

    def transfer_seconds(self, *, parameters: int, corrected: bool) -> float:
        """Latency + download + upload, with the arguments of :meth:`seconds`."""
        profile = self.profile
        sent = DOWNLOAD_BYTES + CONTROL_BYTES * corrected
        download = parameters * sent * _BITS / (profile.download_mbit_s * _MEGABIT)
        upload = parameters * UPLOAD_BYTES * _BITS / (profile.upload_mbit_s * _MEGABIT)
        return profile.latency_s + download + upload
