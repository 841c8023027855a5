"""Every record's clipped gradient by itself, for those who compare records; a training step only needs their sum."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hbdp_fed.dpsgd.clipping import clip_factors, row_cuts, trainable
from hbdp_fed.dpsgd.grad_modes.tape import PastLayers, Tape, layers_of, run_through
from hbdp_fed.dpsgd.layers import PerRecord
from hbdp_fed.dpsgd.losses import RecordLoss, record_losses
from hbdp_fed.types import Weights


def clipped_record_gradients(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    counts: Tensor | None = None,
    *,
    max_grad_norm: float,
    max_physical_batch: int,
    multiplicity: int = 1,
    loss: RecordLoss = record_losses,
) -> Tensor:
    """The terms of the sum that :func:`hbdp_fed.dpsgd.make_summer` computes, one a row: of records, or of patients.

    Args:
        model: As for a training step.
        images: (b * K, C, *spatial) with K views of each record, as in :data:`hbdp_fed.dpsgd.Summer`; b may be 0.
        labels: (b * K,), (b * K, classes) or (b * K, *spatial).
        counts: How many records each unit has, as there; None: each record is a unit.
        max_grad_norm: C, positive; ``inf`` does not clip.
        max_physical_batch: Rows differentiated at once, at least 1.
        multiplicity: K.
        loss: The loss of each row.

    Returns:
        (u, P), or (b, P) without counts, in the parameters' own precision and on their device: the P trainable
        parameters in the model's order, each flattened (see :func:`flattened`).
    """
    parameters = trainable(model)
    records = len(labels) // multiplicity
    size = sum(value.numel() for value in parameters.values())
    like = next(iter(parameters.values()))
    gradients = torch.empty(records if counts is None else len(counts), size, dtype=like.dtype, device=like.device)
    last = 0
    for rows, rows_a_unit in row_cuts(
        counts, records, multiplicity=multiplicity, max_physical_batch=max_physical_batch
    ):
        first, last = last, last + (rows.stop - rows.start) // rows_a_unit
        found = _by_parameter(model, images[rows], labels[rows], last - first, loss)
        place = 0
        for name, value in parameters.items():
            part = gradients[first:last, place : place + value.numel()]
            if name in found:
                part.copy_(found[name].flatten(start_dim=1))
            else:
                part.zero_()
            place += value.numel()
        if math.isfinite(max_grad_norm):
            rows_of_part = gradients[first:last]
            rows_of_part *= clip_factors(rows_of_part.norm(dim=1), max_grad_norm)[:, None]
    return gradients


def _by_parameter(model: nn.Module, images: Tensor, labels: Tensor, records: int, loss: RecordLoss) -> Weights:
    """Each record's gradients (b, *shape) by parameter name; names without any may be missing."""
    try:
        return _by_layers(model, images, labels, records, loss)
    except PastLayers:
        return _by_torch_func(model, images, labels, records, loss)


def _by_layers(model: nn.Module, images: Tensor, labels: Tensor, records: int, loss: RecordLoss) -> Weights:
    """What the layers' rules keep on the way of one backward pass."""
    tape = Tape(records, None, keep=True)
    run_through(tape, model, layers_of(model), images, labels, loss)
    return {name: kept.gradients() for name, kept in tape.contributions.items() if isinstance(kept, PerRecord)}


def _by_torch_func(model: nn.Module, images: Tensor, labels: Tensor, records: int, loss: RecordLoss) -> Weights:
    """The same of a model that uses parameters where no layer is called, and so no rule sees it."""
    multiplicity = len(labels) // records

    def row_loss(values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return loss(torch.func.functional_call(model, values, (image[None],)), label[None]).sum() / multiplicity

    by_row = torch.func.vmap(torch.func.grad(row_loss), in_dims=(None, 0, 0), randomness="different")
    found = by_row({name: value.detach() for name, value in trainable(model).items()}, images, labels)
    return {name: value.unflatten(0, (records, -1)).sum(dim=1) for name, value in found.items()}


def flattened(values: Weights, model: nn.Module) -> Tensor:
    """Weights or gradients by parameter name as one vector (P,), in the order of :func:`clipped_record_gradients`."""
    return torch.cat([values[name].flatten() for name in trainable(model)])
