"""What every way of computing clipped gradients has in common: what goes in, what comes out, and the micro-batches.

How the gradients of single records are computed is the business of :mod:`hbdp_fed.dpsgd.grad_modes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hbdp_fed.types import Weights


@dataclass(frozen=True)
class GradientSum:
    """The sum over a batch of its records' (clipped) gradients of the loss.

    Attributes:
        total: By parameter name, float64, on the model's device. Zeros for an empty batch. Fresh tensors, which the
            caller may change in place.
        norms: (b,), every record's gradient norm before clipping (empty where nothing is clipped).
        loss: The sum of the records' losses.
        num_records: b, the number of records in the batch.
    """

    total: Weights
    norms: Tensor
    loss: float
    num_records: int


Summer = Callable[[Tensor, Tensor], GradientSum]
"""Maps images and labels to the sum of their records' gradients.

With a multiplicity of K, row r * K + k of both holds view k of record r: images (b * K, C, *spatial), labels (b * K,)
or (b * K, *spatial). A record's gradient is the mean over its K views. b may be 0.
"""


@dataclass(frozen=True)
class PartSum:
    """The same for a micro-batch, in the precision that it was computed in.

    Attributes:
        sums: By parameter name; names without any gradient may be missing.
        norms: (b,), or empty where nothing is clipped.
        loss: Scalar: the sum of the records' losses.
    """

    sums: Weights
    norms: Tensor
    loss: Tensor


MicroBatch = Callable[[Tensor, Tensor], PartSum]
"""Sums the gradients of at least one record, all at once."""


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


def in_micro_batches(part: MicroBatch, model: nn.Module, *, max_physical_batch: int, multiplicity: int) -> Summer:
    """Cut batches into parts of whole records and add up, in float64, what ``part`` makes of each.

    Args:
        part: Computes one micro-batch.
        model: Gives the names, shapes and device of the sums.
        max_physical_batch: Rows differentiated at once, at least 1; bounds the memory and changes nothing else but the
            order of the float64 summation. A record's views stay together even where there are more of them.
        multiplicity: K, the views of a record, at least 1.
    """
    if multiplicity < 1:
        raise ValueError(f"multiplicity must be at least 1, got {multiplicity}")
    if max_physical_batch < 1:
        raise ValueError(f"max_physical_batch must be at least 1, got {max_physical_batch}")
    parameters = trainable(model)
    rows_at_once = max(1, max_physical_batch // multiplicity) * multiplicity

    def summer(images: Tensor, labels: Tensor) -> GradientSum:
        if len(labels) % multiplicity:
            raise ValueError(f"{len(labels)} rows are not a multiple of the multiplicity {multiplicity}")
        total: dict[str, Tensor] = {}
        norms: list[Tensor] = []
        losses: list[Tensor] = []
        for start in range(0, len(labels), rows_at_once):
            rows = slice(start, start + rows_at_once)
            found = part(images[rows], labels[rows])
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
            num_records=len(labels) // multiplicity,
        )

    return summer
