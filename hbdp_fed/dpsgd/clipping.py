"""What every way of computing clipped gradients has in common: what goes in, what comes out, and the micro-batches.

How the gradients of single records are computed is the business of :mod:`hbdp_fed.dpsgd.grad_modes`.

What is clipped is a unit of privacy: a record or, where the unit is a patient, all records that the patient gives to a
step. The mean gradient of k records in K views each is, to whoever computes it, that of one record in k * K views. So
units of several records need nothing new: those with equally many records are summed together, with k * K in the place
of K, and the sums of all such buckets are added. That is exact, and no row is computed only to fill a place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from hbdp_fed.types import Weights


@dataclass(frozen=True)
class GradientSum:
    """The sum over a batch of its units' (clipped) gradients of the loss.

    Attributes:
        total: By parameter name, float64, on the model's device. Zeros for an empty batch. Fresh tensors, which the
            caller may change in place.
        norms: (u,), every unit's gradient norm before clipping (empty where nothing is clipped).
        loss: The sum of the units' losses, each the mean over its records and views.
        num_records: b, the number of records in the batch.
        num_units: u, the number of units in the batch; b where each record is one.
    """

    total: Weights
    norms: Tensor
    loss: float
    num_records: int
    num_units: int


class Summer(Protocol):
    """Maps images and labels to the sum of their units' gradients."""

    def __call__(self, images: Tensor, labels: Tensor, counts: Tensor | None = None) -> GradientSum:
        """The sum over one batch.

        Args:
            images: (b * K, C, *spatial) with a multiplicity of K: row r * K + k holds view k of record r; b may be 0.
            labels: (b * K,) or (b * K, *spatial), likewise.
            counts: int64 (u,) on the CPU, how many records each unit has, ascending and at least 1; they add up to b,
                and a unit's records stand one after the other. None: each record is a unit. A unit's gradient is the
                mean over its records and their views.

        Raises:
            ValueError: if rows and counts do not go together.
        """
        ...


@dataclass(frozen=True)
class PartSum:
    """The same for a micro-batch, in the precision that it was computed in.

    Attributes:
        sums: By parameter name; names without any gradient may be missing.
        norms: (u,), or empty where nothing is clipped.
        loss: Scalar: the sum of the units' losses.
    """

    sums: Weights
    norms: Tensor
    loss: Tensor


MicroBatch = Callable[[Tensor, Tensor, int], PartSum]
"""Sums the gradients of at least one unit, all at once: of images and labels, so many rows a unit."""


def clip_factors(norms: Tensor, max_grad_norm: float) -> Tensor:
    """min(1, C / norm) of each record (Abadi et al. 2016, algorithm 1), in the norms' own shape and precision.

    A norm of 0 gives 1. A gradient that is not finite gives 0: the record is left out rather than let through
    unclipped, which would break the guarantee for it.
    """
    factors = max_grad_norm / norms.clamp(min=max_grad_norm)
    return torch.where(torch.isfinite(norms), factors, torch.zeros_like(factors))


def check_max_grad_norm(max_grad_norm: float) -> None:
    """Refuse a clipping norm that does not clip."""
    if not (max_grad_norm > 0 and math.isfinite(max_grad_norm)):
        raise ValueError(f"max_grad_norm must be positive and finite, got {max_grad_norm}")


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training moves, by name; a shared one has its first name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def row_cuts(
    counts: Tensor | None, records: int, *, multiplicity: int, max_physical_batch: int
) -> Iterator[tuple[slice, int]]:
    """A batch's rows in parts of whole units that have equally many rows, in their order, each with that number.

    Args:
        counts: As a :class:`Summer` takes it.
        records: b, all records of the batch.
        multiplicity: K, the views of a record.
        max_physical_batch: The most rows of a part, unless a single unit has more.

    Raises:
        ValueError: if the counts are not ascending, or do not add up to the records.
    """
    buckets = [(1, records)]
    if counts is not None:
        if int(counts.sum()) != records or (len(counts) and int(counts[0]) < 1) or bool((counts.diff() < 0).any()):
            raise ValueError(f"counts must be ascending, from 1 on, and add up to {records}, got {counts.tolist()}")
        sizes, units = counts.unique_consecutive(return_counts=True)
        buckets = list(zip(sizes.tolist(), units.tolist(), strict=True))
    start = 0
    for size, many in buckets:
        rows_a_unit, end = size * multiplicity, start + size * many * multiplicity
        rows_at_once = max(1, max_physical_batch // rows_a_unit) * rows_a_unit
        for first in range(start, end, rows_at_once):
            yield slice(first, min(first + rows_at_once, end)), rows_a_unit
        start = end


def in_micro_batches(part: MicroBatch, model: nn.Module, *, max_physical_batch: int, multiplicity: int) -> Summer:
    """Cut batches into parts of whole units and add up, in float64, what ``part`` makes of each.

    Args:
        part: Computes one micro-batch.
        model: Gives the names, shapes and device of the sums.
        max_physical_batch: Rows differentiated at once, at least 1; bounds the memory and changes nothing else but the
            order of the float64 summation. A unit's rows stay together even where there are more of them.
        multiplicity: K, the views of a record, at least 1.
    """
    if multiplicity < 1:
        raise ValueError(f"multiplicity must be at least 1, got {multiplicity}")
    if max_physical_batch < 1:
        raise ValueError(f"max_physical_batch must be at least 1, got {max_physical_batch}")
    parameters = trainable(model)

    def summer(images: Tensor, labels: Tensor, counts: Tensor | None = None) -> GradientSum:
        if len(labels) % multiplicity:
            raise ValueError(f"{len(labels)} rows are not a multiple of the multiplicity {multiplicity}")
        records = len(labels) // multiplicity
        total: dict[str, Tensor] = {}
        norms: list[Tensor] = []
        losses: list[Tensor] = []
        cuts = row_cuts(counts, records, multiplicity=multiplicity, max_physical_batch=max_physical_batch)
        for rows, rows_a_unit in cuts:
            found = part(images[rows], labels[rows], rows_a_unit)
            for name, value in found.sums.items():
                total[name] = total[name].add_(value) if name in total else value.detach().to(torch.float64, copy=True)
            norms.append(found.norms)
            losses.append(found.loss.detach().double())
        return GradientSum(
            # In the model's order, on which the order of the noise depends.
            total={
                name: total[name] if name in total else torch.zeros_like(value, dtype=torch.float64)
                for name, value in parameters.items()
            },
            norms=torch.cat(norms) if norms else torch.zeros(0, device=images.device),
            # Read once a batch: on a GPU every reading waits for all the work before it.
            loss=float(torch.stack(losses).sum()) if losses else 0.0,
            num_records=records,
            num_units=records if counts is None else len(counts),
        )

    return summer
