"""One DP-SGD step: clip every unit's gradient, add them up, add noise, divide by the expected batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hbdp_fed.dpsgd.clipping import Summer
from hbdp_fed.dpsgd.grad_modes import clipped_summer, plain_summer
from hbdp_fed.dpsgd.losses import RecordLoss, record_losses
from hbdp_fed.dpsgd.noise import NoiseSource, noise_like, noise_to_resolution
from hbdp_fed.types import DpSgdParams, Weights


@dataclass(frozen=True)
class StepGradient:
    """What the optimiser gets for one step, and figures for the experimenter (outside the guarantee).

    Attributes:
        gradient: By parameter name, float64.
        batch_size: How many units (records, or patients) the Poisson batch held.
        num_records: How many records they gave.
        loss: Mean loss of the units; NaN for an empty batch.
        clipped_share: Which share of the units was really clipped, in [0, 1]; NaN for an empty batch or no clipping.
        noise_to_resolution: The noise's standard deviation over the spacing of the numbers in which the clipped
            gradients were summed, at the largest coordinate of the noisy sum (so a function of what is released
            anyway). The sum lies on that grid: noise well below the spacing can be rounded off by whoever knows it.
            NaN without noise.
    """

    gradient: Weights
    batch_size: int
    num_records: int
    loss: float
    clipped_share: float
    noise_to_resolution: float


def make_summer(
    model: nn.Module,
    mechanism: DpSgdParams,
    *,
    max_physical_batch: int,
    multiplicity: int = 1,
    grad_mode: str = "hbdp",
    compute_dtype: torch.dtype | None = None,
    loss: RecordLoss = record_losses,
) -> Summer:
    """The gradient sum that ``mechanism`` asks for: clipped record by record, or plain where nothing is clipped.

    The arguments are those of :func:`hbdp_fed.dpsgd.clipped_summer`; ``grad_mode`` is unused where nothing is clipped.
    """
    if math.isfinite(mechanism.max_grad_norm):
        return clipped_summer(
            model,
            max_grad_norm=mechanism.max_grad_norm,
            max_physical_batch=max_physical_batch,
            multiplicity=multiplicity,
            grad_mode=grad_mode,
            compute_dtype=compute_dtype,
            loss=loss,
        )
    return plain_summer(
        model, max_physical_batch=max_physical_batch, multiplicity=multiplicity, compute_dtype=compute_dtype, loss=loss
    )


def dp_sgd_gradient(
    summer: Summer,
    images: Tensor,
    labels: Tensor,
    counts: Tensor | None = None,
    *,
    mechanism: DpSgdParams,
    expected_batch: float,
    noise: NoiseSource,
    sum_dtype: torch.dtype = torch.float32,
) -> StepGradient:
    """The noisy mean gradient of one Poisson batch (Abadi et al. 2016, algorithm 1).

    The sum is divided by the *expected* batch size: the size that was drawn depends on who is in the data and is not
    protected by the noise.

    Args:
        summer: From :func:`make_summer` with the same ``mechanism``.
        images: (b * K, C, *spatial) in [0, 1]; b may be 0.
        labels: int64 (b * K,) or (b * K, *spatial).
        counts: How many records each unit has (see :class:`hbdp_fed.dpsgd.Summer`); None: each record is a unit.
        mechanism: sigma and C; the noise has standard deviation sigma * C on the sum.
        expected_batch: q times the number of units, positive.
        noise: Where the noise comes from; drawn for an empty batch, too.
        sum_dtype: The precision that ``summer`` sums in, for ``noise_to_resolution`` alone.
    """
    summed = summer(images, labels, counts)
    total = summed.total
    std = mechanism.noise_multiplier * mechanism.max_grad_norm if mechanism.noise_multiplier > 0 else 0.0
    if std > 0:
        for value in total.values():
            value += noise_like(value, std=std, source=noise)
    ratio = noise_to_resolution(noise_std=std, magnitude=_largest(total), dtype=sum_dtype) if std > 0 else math.nan
    for value in total.values():
        value /= expected_batch
    units = summed.num_units
    return StepGradient(
        gradient=total,
        batch_size=units,
        num_records=summed.num_records,
        loss=summed.loss / units if units else math.nan,
        clipped_share=float((summed.norms > mechanism.max_grad_norm).double().mean())
        if len(summed.norms)
        else math.nan,
        noise_to_resolution=ratio,
    )


def _largest(total: Weights) -> float:
    """The largest absolute coordinate."""
    extremes = [torch.stack(torch.aminmax(value)) for value in total.values()]
    return float(torch.cat(extremes).abs().max())
