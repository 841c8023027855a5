"""What public images let the adversary expect of a record's gradient, and what a noisy factor is worth beside that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hbdp_fed.adversary.planted.code import in_chunks, in_chunks_of, read_code
from hbdp_fed.adversary.planted.gradient import active_rows
from hbdp_fed.types import PublicSideInformation, Weights


@dataclass(frozen=True)
class Expectation:
    """What to expect of a row that holds one record, and of the record.

    A clipped record whose planted layer takes the whole norm C has |r| = C / sqrt(k (|u|^2 + 1)) in each of the k rows
    that it activates. One of several records of a patient has as much less as they are.

    Attributes:
        energy: float64 (D,), E[(r * u_j)^2] over a row's records.
        factor_energy: E[r^2] over the same.
        size_mean: E[C / sqrt(|u|^2 + 1)] over records: |r| times the root of k.
        size_variance: Its variance.
        activity: The probability that a record activates a row.
        expected_records: How many records to expect.
    """

    energy: Tensor
    factor_energy: float
    size_mean: float
    size_variance: float
    activity: float
    expected_records: float

    @property
    def occupancy(self) -> float:
        """The probability that a row holds any record."""
        return -math.expm1(-self.expected_records * self.activity)


def expect(args: Mapping[str, Any], weights: Weights, images: Tensor, public: PublicSideInformation) -> Expectation:
    """What to expect, from the public images alone.

    Args:
        args: The planted model's arguments.
        weights: Its weights.
        images: The public images to go by, (P, C, *spatial).
        public: Whose mechanism and batch are to be expected.
    """
    clip = public.mechanism.max_grad_norm
    norm = (clip if math.isfinite(clip) else 1.0) / public.records_per_unit
    code = read_code(args, weights)
    active = active_rows(args, weights, images)
    counts = active.sum(dim=1).double()
    # Rows that no public image activates say nothing of who might.
    seen = counts if bool(counts.any()) else torch.ones_like(counts)
    energy = torch.zeros_like(code.gains)
    sizes, factor_energy = [], 0.0
    for chunk, rows in zip(in_chunks(images), in_chunks_of(seen, len(code.gains)), strict=True):
        codes = code.encode(chunk)
        size = norm / (codes.square().sum(dim=1) + 1).sqrt()
        # k rows, each with r^2 = size^2 / k: every record counts alike in the sum over rows.
        squared = torch.where(rows > 0, size.square(), 0.0)
        energy += squared @ codes.square_()
        factor_energy += float(squared.sum())
        sizes.append(size)
    size = torch.cat(sizes)
    return Expectation(
        energy=energy / seen.sum(),
        factor_energy=factor_energy / float(seen.sum()),
        size_mean=float(size.mean()),
        size_variance=float(size.var()),
        activity=float(active.double().mean()),
        expected_records=public.expected_records,
    )
