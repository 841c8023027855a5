"""Which of two exact ways to clip a weight's gradients is cheaper for a layer of a given shape.

The choice depends on shapes and on the kind of device, never on a clock: a run must give the same bits again. The
constants were measured; ``python scripts/bench/layers.py --fit`` measures them again and shows what each way costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class _Nanoseconds:
    """What a record costs beyond its share of the batch's own weight gradient.

    Attributes:
        kept_product: For each multiply-add of its gradient.
        kept_weight: For each weight whose gradient is written, read for the norm and read again.
        gram_product: For each multiply-add of a Gram matrix.
        gram_entry: For each entry of a Gram matrix that is written, added or multiplied.
    """

    kept_product: float
    kept_weight: float
    gram_product: float
    gram_entry: float


_COSTS: Mapping[tuple[str, torch.dtype], _Nanoseconds] = {
    # A kept weight was measured at 0.7 to 1.0. It counts for more, for the memory that it holds until the factors come.
    ("cpu", torch.float32): _Nanoseconds(kept_product=0.002, kept_weight=2.5, gram_product=0.03, gram_entry=0.25),
    # Gradients of single records may be rounded to bfloat16, a batch's weighted gradient may not: keeping saves it.
    ("cpu", torch.bfloat16): _Nanoseconds(kept_product=-0.005, kept_weight=1.0, gram_product=0.03, gram_entry=0.25),
}
_LARGEST_SIDE = 4096
"""Gram matrices of more positions than this are never built: one of float32 would take 64 MiB a record."""


def gram_is_cheaper(
    *,
    device: str,
    dtype: torch.dtype,
    weights: int,
    positions: int,
    pixels: int | None,
    channels: tuple[int, int],
    kernel: Sequence[int],
    groups: int,
) -> bool:
    """Whether Gram matrices beat per-record gradients that are kept.

    Args:
        device: ``cpu`` or ``cuda``.
        dtype: That the layer computes in.
        weights: Number of weights.
        positions: T, at which the weight acts, over all views of a record.
        pixels: Of the input, over all views, where one Gram matrix of pixels serves all offsets of the kernel; None
            where each offset needs its own.
        channels: Of the input and of the output.
        kernel: Sides of the kernel.
        groups: Groups of channels.
    """
    if max(positions, pixels or 0) > _LARGEST_SIDE:
        return False
    cost = _COSTS.get((device, dtype), _COSTS["cpu", torch.float32])
    products, entries = gram_work(positions, pixels, channels, kernel, groups)
    gradient_products, written = kept_work(weights, positions)
    ghost = products * cost.gram_product + entries * cost.gram_entry
    return ghost < gradient_products * cost.kept_product + written * cost.kept_weight


def kept_work(weights: int, positions: int) -> tuple[float, float]:
    """Multiply-adds and weights of one record's gradient."""
    return weights * positions, weights


def gram_work(
    positions: int, pixels: int | None, channels: tuple[int, int], kernel: Sequence[int], groups: int
) -> tuple[float, float]:
    """Multiply-adds and touched entries of one record's Gram matrices."""
    inputs, outputs = (c // groups for c in channels)
    products, entries = outputs * positions**2, 2 * positions**2
    if pixels is None:
        products += math.prod(kernel) * inputs * positions**2
        entries += math.prod(kernel) * positions**2
    else:
        products += inputs * pixels**2
        entries += sum(side for side in kernel if side > 1) * max(positions, pixels) ** 2
    return groups * products, groups * entries
