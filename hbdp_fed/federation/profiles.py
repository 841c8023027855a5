"""What a hospital's computer and line are like in a simulation, and in which rounds it cannot be reached."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from hbdp_fed.seeding import generator


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


def is_online(profile: SiteProfile, *, seed: int, hospital: str, number: int) -> bool:
    """Whether a hospital can be reached in a round or probe: the same for every engine, and after a resume.

    Args:
        profile: The hospital's.
        seed: The run's.
        hospital: Its name. Outages of two hospitals, as of two rounds, are independent.
        number: The round's or probe's number, from 1.
    """
    if profile.availability == 1:
        return True
    draw = torch.rand((), generator=generator(seed, "availability", hospital, number), dtype=torch.float64)
    return float(draw) < profile.availability
