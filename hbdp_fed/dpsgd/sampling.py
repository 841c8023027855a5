"""Poisson sampling: which records enter a step, and how many of a hospital's are expected to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

BATCH_PER: Mapping[str, Callable[[float, float], float]] = {
    "hospital": lambda batch, share: batch,
    "federation": lambda batch, share: batch * share,
}
"""From the expected batch and a hospital's share of all records to its own. Under ``federation`` all hospitals sample
at the same rate, as one that holds everything would."""


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
    for _ in range(steps):
        yield (torch.rand(num_records, generator=generator) < sample_rate).nonzero().flatten()
