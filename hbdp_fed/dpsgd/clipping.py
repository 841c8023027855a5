"""Per-record gradients, their norms, and the sum of the clipped ones.

Opacus computes the per-record gradients; the clipping is written out here because its result has to leave in float64,
where noise far below the last bit of a float32 survives.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from opacus import GradSampleModule
from torch import Tensor, nn
from torch.nn import functional

from hbdp_fed.types import Weights


@dataclass(frozen=True)
class GradientSum:
    """The sum over a batch of its records' (clipped) gradients of the loss.

    Attributes:
        total: By parameter name, float64, on the model's device. Zeros for an empty batch.
        norms: float32 (b,), every record's gradient norm before clipping (empty where nothing is clipped).
        loss: The sum of the records' losses.
        num_records: b, the number of records in the batch.
    """

    total: Weights
    norms: Tensor
    loss: float
    num_records: int


Summer = Callable[[Tensor, Tensor], GradientSum]
"""Maps images (b, C, H, W) and labels (b,) to the sum of their gradients; b may be 0."""


def record_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each record, (b,), from logits (b, K) and int64 labels (b,)."""
    return functional.cross_entropy(logits, labels, reduction="none")


def clip_factors(norms: Tensor, max_grad_norm: float) -> Tensor:
    """min(1, C / norm) of each record (Abadi et al. 2016, algorithm 1), in the norms' own shape and precision.

    A norm of 0 gives 1. A gradient that is not finite gives 0: the record is left out rather than let through
    unclipped, which would break the guarantee for it.
    """
    factors = max_grad_norm / norms.clamp(min=max_grad_norm)
    return torch.where(torch.isfinite(norms), factors, torch.zeros_like(factors))


def clipped_summer(model: nn.Module, *, max_grad_norm: float, max_physical_batch: int) -> Summer:
    """A function that sums a batch's gradients, each record's clipped to ``max_grad_norm`` first.

    The norm of each term is at most ``max_grad_norm`` up to float32's relative rounding of about 1e-7.

    Args:
        model: A model without layers that mix records (no batch normalisation). It is wrapped by Opacus: build a new
            one for another use.
        max_grad_norm: C, positive and finite.
        max_physical_batch: How many records are differentiated at once, at least 1; bounds the memory and changes
            nothing else but the order of the float64 summation.

    Raises:
        ValueError: if the model has layers or parameters that Opacus cannot clip per record.
    """
    if not (max_grad_norm > 0 and math.isfinite(max_grad_norm)):
        raise ValueError(f"max_grad_norm must be positive and finite, got {max_grad_norm}")
    try:
        wrapped = GradSampleModule(model, loss_reduction="sum", strict=True)
    except NotImplementedError as error:
        raise ValueError(f"this model cannot be trained with per-record clipping: {error}") from error
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}

    def micro_batch(images: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor, float]:
        wrapped.zero_grad(set_to_none=True)
        with warnings.catch_warnings():
            # The images need no gradient of their own, which is what this warning of the hooks is about.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            loss = record_losses(wrapped(images), labels).sum()
            loss.backward()
        gradients = {name: _per_record_gradient(value) for name, value in parameters.items()}
        norms = torch.stack([g.flatten(start_dim=1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
        factors = clip_factors(norms, max_grad_norm)
        # 0 times inf is nan: a record whose gradient overflowed has to be emptied, not only weighted with zero.
        if not bool(torch.isfinite(norms).all()):
            gradients = {name: g.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for name, g in gradients.items()}
        sums = {name: torch.einsum("n,n...->...", factors, g).double() for name, g in gradients.items()}
        wrapped.zero_grad(set_to_none=True)
        return sums, norms.detach(), float(loss.detach())

    def summer(images: Tensor, labels: Tensor) -> GradientSum:
        total = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in parameters.items()}
        norms: list[Tensor] = []
        loss = 0.0
        for start in range(0, len(labels), max_physical_batch):
            part = slice(start, start + max_physical_batch)
            sums, part_norms, part_loss = micro_batch(images[part], labels[part])
            for name, value in sums.items():
                total[name] += value
            norms.append(part_norms)
            loss += part_loss
        all_norms = torch.cat(norms) if norms else torch.zeros(0, device=images.device)
        return GradientSum(total=total, norms=all_norms, loss=loss, num_records=len(labels))

    return summer


def _per_record_gradient(parameter: nn.Parameter) -> Tensor:
    """What Opacus' hooks left behind for one parameter: (b, *shape)."""
    gradient: Tensor = parameter.grad_sample  # type: ignore[attr-defined]
    return gradient


def plain_summer(model: nn.Module, *, max_physical_batch: int) -> Summer:
    """The non-private control: the sum of a batch's gradients without clipping, by ordinary back-propagation."""
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}

    def summer(images: Tensor, labels: Tensor) -> GradientSum:
        total = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in parameters.items()}
        loss_sum = 0.0
        for start in range(0, len(labels), max_physical_batch):
            part = slice(start, start + max_physical_batch)
            loss = record_losses(model(images[part]), labels[part]).sum()
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            for name, value in zip(parameters, gradients, strict=True):
                total[name] += value.double()
            loss_sum += float(loss.detach())
        return GradientSum(
            total=total, norms=torch.zeros(0, device=images.device), loss=loss_sum, num_records=len(labels)
        )

    return summer
