"""Hospitals that are about to add up random updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from hbdp_fed.federation.secure_sum import (
    Enrolment,
    HospitalKeys,
    enrol,
    seeded_bytes,
)
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelUpdate, Weights

SHAPES = {"z": (3, 4), "a": (5,), "scalar": (), "empty": (0, 2)}
HOSPITALS = tuple(f"hospital-{number:02}" for number in range(10))


def update(hospital: str, *, size: float = 1.0, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> ModelUpdate:
    draw = generator(0, hospital, "update")
    delta = {
        name: (torch.rand(shape, generator=draw, dtype=torch.float64) * 2 - 1) * size for name, shape in shapes.items()
    }
    return ModelUpdate(hospital=hospital, round=1, delta=delta, num_records=7)


def enrolled(
    hospitals: Sequence[str] = HOSPITALS, threshold: int = 7, seed: int = 0
) -> tuple[Enrolment, Mapping[str, HospitalKeys]]:
    return enrol(hospitals, round=1, threshold=threshold, source_of=lambda name: seeded_bytes(seed, name, "secure sum"))


def flat(weights: Weights) -> torch.Tensor:
    return torch.cat([value.reshape(-1) for value in weights.values()])
