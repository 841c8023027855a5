"""Every record's clipped gradient by itself, for those who compare records; a training step only needs their sum."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hbdp_fed.dpsgd.clipping import clip_factors, trainable
from hbdp_fed.dpsgd.losses import RecordLoss, record_losses
from hbdp_fed.types import Weights


def clipped_record_gradients(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    max_grad_norm: float,
    max_physical_batch: int,
    multiplicity: int = 1,
    loss: RecordLoss = record_losses,
) -> Tensor:
    """The terms of the sum that :func:`hbdp_fed.dpsgd.make_summer` computes, one a row.

    Args:
        model: As for a training step.
        images: (b * K, C, *spatial) with K views of each record, as in :data:`hbdp_fed.dpsgd.Summer`; b may be 0.
        labels: (b * K,), (b * K, classes) or (b * K, *spatial).
        max_grad_norm: C, positive; ``inf`` does not clip.
        max_physical_batch: Rows differentiated at once, at least 1.
        multiplicity: K.
        loss: The loss of each row.

    Returns:
        (b, P) in the parameters' own precision and on their device: the P trainable parameters in the model's order,
        each flattened (see :func:`flattened`).
    """
    parameters = {name: value.detach() for name, value in trainable(model).items()}

    def row_loss(values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return loss(torch.func.functional_call(model, values, (image[None],)), label[None]).sum() / multiplicity

    by_row = torch.func.vmap(torch.func.grad(row_loss), in_dims=(None, 0, 0), randomness="different")
    rows_at_once = max(1, max_physical_batch // multiplicity) * multiplicity
    size = sum(value.numel() for value in parameters.values())
    like = next(iter(parameters.values()))
    gradients = torch.empty(len(labels) // multiplicity, size, dtype=like.dtype, device=like.device)
    for start in range(0, len(labels), rows_at_once):
        rows = slice(start, start + rows_at_once)
        found = by_row(parameters, images[rows], labels[rows])
        flat = torch.cat([value.flatten(start_dim=1) for value in found.values()], dim=1)
        if multiplicity > 1:
            flat = flat.unflatten(0, (-1, multiplicity)).sum(dim=1)
        if math.isfinite(max_grad_norm):
            flat *= clip_factors(flat.norm(dim=1), max_grad_norm)[:, None]
        first = start // multiplicity
        gradients[first : first + len(flat)] = flat
    return gradients


def flattened(values: Weights, model: nn.Module) -> Tensor:
    """Weights or gradients by parameter name as one vector (P,), in the order of :func:`clipped_record_gradients`."""
    return torch.cat([values[name].flatten() for name in trainable(model)])
