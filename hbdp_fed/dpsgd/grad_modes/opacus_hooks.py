"""Per-record gradients by Opacus' hooks: the reference that the project's own way is held against."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from hbdp_fed.dpsgd.clipping import MicroBatch, PartSum, trainable
from hbdp_fed.dpsgd.grad_modes.materialised import clip_and_sum
from hbdp_fed.dpsgd.losses import RecordLoss


def opacus_part(
    model: nn.Module,
    *,
    max_grad_norm: float,
    compute_dtype: torch.dtype | None,
    loss: RecordLoss,
) -> MicroBatch:
    """Opacus computes the per-record gradients; clipping and summing are ours.

    Raises:
        ValueError: if the model has layers or parameters that Opacus cannot clip per record, or for a
            ``compute_dtype``, which its hooks do not know.
    """
    from opacus import GradSampleModule  # takes as long to import as all that a hospital needs otherwise

    if compute_dtype is not None:
        raise ValueError("Opacus' hooks compute in the parameters' own precision only")
    try:
        wrapped = GradSampleModule(model, loss_reduction="sum", strict=True)
    except NotImplementedError as error:
        raise ValueError(f"this model cannot be trained with per-record clipping: {error}") from error
    parameters = trainable(model)

    def part(images: Tensor, labels: Tensor, multiplicity: int) -> PartSum:
        wrapped.zero_grad(set_to_none=True)
        with warnings.catch_warnings():
            # The images need no gradient of their own, which is what this warning of the hooks is about.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            value = loss(wrapped(images), labels).sum() / multiplicity
            value.backward()
        found = clip_and_sum(
            {name: _per_record_gradient(p) for name, p in parameters.items()},
            max_grad_norm=max_grad_norm,
            multiplicity=multiplicity,
            loss=value.detach(),
        )
        wrapped.zero_grad(set_to_none=True)
        return found

    return part


def _per_record_gradient(parameter: nn.Parameter) -> Tensor:
    """What Opacus' hooks left behind for one parameter: (n, *shape), or a list of them where the layer ran twice."""
    gradient: Tensor | list[Tensor] = parameter.grad_sample  # type: ignore[attr-defined]
    return sum(gradient[1:], start=gradient[0]) if isinstance(gradient, list) else gradient
