"""Per-record gradients by ``torch.func``: vmap over the gradient of one record. A reference that knows no layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hbdp_fed.dpsgd.clipping import MicroBatch, PartSum, trainable
from hbdp_fed.dpsgd.grad_modes.materialised import clip_and_sum
from hbdp_fed.dpsgd.losses import RecordLoss


def torch_func_part(
    model: nn.Module,
    *,
    max_grad_norm: float,
    compute_dtype: torch.dtype | None,
    loss: RecordLoss,
) -> MicroBatch:
    """``vmap(grad)`` over the rows of a micro-batch.

    Raises:
        ValueError: for a ``compute_dtype``: it computes in the parameters' own precision.
    """
    if compute_dtype is not None:
        raise ValueError("torch.func computes in the parameters' own precision only")
    parameters = trainable(model)

    def row_loss(values: dict[str, Tensor], image: Tensor, label: Tensor, rows_a_unit: int) -> tuple[Tensor, Tensor]:
        outputs = torch.func.functional_call(model, values, (image[None],))
        value = loss(outputs, label[None]).sum() / rows_a_unit
        return value, value

    gradient = torch.func.grad(row_loss, has_aux=True)
    by_row = torch.func.vmap(gradient, in_dims=(None, 0, 0, None), randomness="different")

    def part(images: Tensor, labels: Tensor, multiplicity: int) -> PartSum:
        values = {name: p.detach() for name, p in parameters.items()}
        gradients, losses = by_row(values, images, labels, multiplicity)
        return clip_and_sum(gradients, max_grad_norm=max_grad_norm, multiplicity=multiplicity, loss=losses.sum())

    return part
