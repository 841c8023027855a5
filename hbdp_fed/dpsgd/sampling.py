"""Poisson sampling: which records enter a step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import Tensor


def poisson_batches(
    *, num_records: int, sample_rate: float, steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Draw one Poisson batch a step: every record enters independently with probability ``sample_rate``.

    The batches' sizes vary and a batch can be empty; an empty one still costs a step, and the step still adds noise.

    Args:
        num_records: N, at least 1.
        sample_rate: q in (0, 1].
        steps: How many batches to draw.
        generator: A CPU generator; the same state gives the same batches on every device.

    Yields:
        Ascending int64 indices in [0, N), of shape (b,) with b from 0 to N.
    """
    sampler = UniformWithReplacementSampler(
        num_samples=num_records, sample_rate=sample_rate, generator=generator, steps=steps
    )
    for indices in sampler:
        yield torch.tensor(indices, dtype=torch.int64)
