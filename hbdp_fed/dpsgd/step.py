"""One DP-SGD step: clip every record's gradient, add them up, add noise, divide by the expected batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hbdp_fed.dpsgd.clipping import Summer, clipped_summer, plain_summer
from hbdp_fed.dpsgd.noise import gaussian_noise
from hbdp_fed.types import DpSgdParams, Weights


@dataclass(frozen=True)
class StepGradient:
    """What the optimiser gets for one step, and figures for the experimenter (outside the guarantee).

    Attributes:
        gradient: By parameter name, float64.
        batch_size: How many records the Poisson batch held.
        loss: Mean loss of the batch; NaN for an empty one.
        clipped_share: Which share of the batch was really clipped, in [0, 1]; NaN for an empty batch or no clipping.
    """

    gradient: Weights
    batch_size: int
    loss: float
    clipped_share: float


def make_summer(model: nn.Module, mechanism: DpSgdParams, *, max_physical_batch: int) -> Summer:
    """The gradient sum that ``mechanism`` asks for: clipped record by record, or plain where nothing is clipped."""
    if math.isfinite(mechanism.max_grad_norm):
        return clipped_summer(model, max_grad_norm=mechanism.max_grad_norm, max_physical_batch=max_physical_batch)
    return plain_summer(model, max_physical_batch=max_physical_batch)


def dp_sgd_gradient(
    summer: Summer,
    images: Tensor,
    labels: Tensor,
    *,
    mechanism: DpSgdParams,
    expected_batch: float,
    noise_generator: torch.Generator,
) -> StepGradient:
    """The noisy mean gradient of one Poisson batch (Abadi et al. 2016, algorithm 1).

    The sum is divided by the *expected* batch size: the size that was drawn depends on who is in the data and is not
    protected by the noise.

    Args:
        summer: From :func:`make_summer` with the same ``mechanism``.
        images: float32 (b, C, H, W) in [0, 1]; b may be 0.
        labels: int64 (b,).
        mechanism: sigma and C; the noise has standard deviation sigma * C on the sum.
        expected_batch: q times the number of records, positive.
        noise_generator: A CPU generator.
    """
    summed = summer(images, labels)
    total = dict(summed.total)
    if mechanism.noise_multiplier > 0:
        std = mechanism.noise_multiplier * mechanism.max_grad_norm
        for name, noise in gaussian_noise(total, std=std, generator=noise_generator).items():
            total[name] = total[name] + noise
    b = summed.num_records
    return StepGradient(
        gradient={name: value / expected_batch for name, value in total.items()},
        batch_size=b,
        loss=summed.loss / b if b else math.nan,
        clipped_share=float((summed.norms > mechanism.max_grad_norm).double().mean())
        if len(summed.norms)
        else math.nan,
    )
