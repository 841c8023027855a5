"""In which rounds of a simulation a hospital cannot be reached."""

from __future__ import annotations

import torch

from hbdp_fed.seeding import generator
from hbdp_fed.training.pace import SiteProfile


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
