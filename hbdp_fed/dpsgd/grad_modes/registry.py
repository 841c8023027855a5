"""The ways to compute clipped gradients, by name: this project's own and the references it is held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from hbdp_fed.dpsgd.clipping import MicroBatch, Summer, check_max_grad_norm, in_micro_batches
from hbdp_fed.dpsgd.grad_modes.ghost import ghost_part
from hbdp_fed.dpsgd.grad_modes.opacus_hooks import opacus_part
from hbdp_fed.dpsgd.grad_modes.plain import plain_part
from hbdp_fed.dpsgd.grad_modes.torch_func import torch_func_part
from hbdp_fed.dpsgd.losses import RecordLoss, record_losses
from hbdp_fed.errors import unknown_choice

GradMode = Callable[..., MicroBatch]
"""Takes a model and the keywords ``max_grad_norm``, ``compute_dtype`` and ``loss``."""

GRAD_MODES: Mapping[str, GradMode] = {"hbdp": ghost_part, "opacus": opacus_part, "torch_func": torch_func_part}
"""``hbdp`` is the project's own; the others are slower and exist to be compared with."""


def clipped_summer(
    model: nn.Module,
    *,
    max_grad_norm: float,
    max_physical_batch: int,
    multiplicity: int = 1,
    grad_mode: str = "hbdp",
    compute_dtype: torch.dtype | None = None,
    loss: RecordLoss = record_losses,
) -> Summer:
    """A function that sums a batch's gradients, each unit's (a record's or a patient's) clipped to ``max_grad_norm``.

    The norm of each term is at most ``max_grad_norm`` up to the relative rounding of the parameters' precision (about
    1e-6 in float32), whatever ``compute_dtype`` is.

    Args:
        model: A model without layers that mix records (no batch normalisation), in the mode it shall be trained in.
            ``opacus`` wraps it: build a new one for another use. The other modes leave it as it is.
        max_grad_norm: C, positive and finite.
        max_physical_batch: How many rows are differentiated at once, at least 1 (see :func:`in_micro_batches`).
        multiplicity: K, the augmented views of a record, over which its gradient is averaged before it is clipped
            (De et al. 2022, arXiv 2204.13650, section 3.2).
        grad_mode: A key of :data:`GRAD_MODES`.
        compute_dtype: ``torch.bfloat16`` runs the layers in it; norms, clipping and sums stay in float32. None
            computes in the parameters' own precision.
        loss: The loss of each row.

    Raises:
        SettingError: if there is no such ``grad_mode``.
        ValueError: if the model has layers that cannot be clipped per record, or a value is out of its range.
    """
    if grad_mode not in GRAD_MODES:
        raise unknown_choice("training.grad_mode", grad_mode, GRAD_MODES)
    check_max_grad_norm(max_grad_norm)
    part = GRAD_MODES[grad_mode](model, max_grad_norm=max_grad_norm, compute_dtype=compute_dtype, loss=loss)
    return in_micro_batches(part, model, max_physical_batch=max_physical_batch, multiplicity=multiplicity)


def plain_summer(
    model: nn.Module,
    *,
    max_physical_batch: int,
    multiplicity: int = 1,
    compute_dtype: torch.dtype | None = None,
    loss: RecordLoss = record_losses,
) -> Summer:
    """The non-private control: the sum of a batch's gradients without clipping, by ordinary back-propagation."""
    part = plain_part(model, compute_dtype=compute_dtype, loss=loss)
    return in_micro_batches(part, model, max_physical_batch=max_physical_batch, multiplicity=multiplicity)
