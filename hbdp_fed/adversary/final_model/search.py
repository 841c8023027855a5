"""The search for images and multipliers that explain the weights."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.adversary.final_model.stationarity import Stationarity, outside

logger = logging.getLogger(__name__)

_REPORTS = 10
_SPREAD_OF_MULTIPLIERS = 0.3
"""Standard deviation of the multipliers' logarithms at the start: equal ones would move alike."""


@dataclass(frozen=True)
class SearchSettings:
    """How images are searched for.

    Attributes:
        iterations: Steps of Adam, whose rates fall to 0 along half a cosine.
        image_rate: Of pixels.
        multiplier_rate: Of the multipliers' logarithms.
        spread: Standard deviation of the images around the public mean at the start.
        range_weight: What pixels outside [0, 1] cost, relative to the error of the weights.
    """

    iterations: int
    image_rate: float
    multiplier_rate: float
    spread: float
    range_weight: float


@dataclass(frozen=True)
class Found:
    """What a search ended with.

    Attributes:
        images: float32 (M, C, *spatial), in no range.
        multipliers: float32 (M,), positive.
        error: Of the weights, relative: 0 explained in full.
    """

    images: Tensor
    multipliers: Tensor
    error: float


def search(
    condition: Stationarity, public: Tensor, labels: Tensor, settings: SearchSettings, generator: torch.Generator
) -> Found | None:
    """Images, one for each label, that explain the condition's target as far as a descent from one start finds them.

    The multipliers are positive because their logarithms are searched for; Haim et al. penalise negative ones.

    Args:
        condition: What has to be explained.
        public: float (P, C, *spatial) in [0, 1], P at least 1; the search starts around their mean.
        labels: int64 (M,).
        settings: How to search.
        generator: A CPU generator, for the start.

    Returns:
        The last images; None where the first ones explain nothing already, or weights are too large for any search.
    """
    start = _start(condition, public, labels, settings.spread, generator)
    return None if start is None else _descend(condition, labels, settings, *start)


def _start(
    condition: Stationarity, public: Tensor, labels: Tensor, spread: float, generator: torch.Generator
) -> tuple[Tensor, Tensor] | None:
    """The first images, and logarithms of multipliers at which they explain the target's size."""
    noise = torch.randn(len(labels), *public.shape[1:], generator=generator)
    images = (public.mean(dim=0) + spread * noise).to(labels.device)
    draw = (_SPREAD_OF_MULTIPLIERS * torch.randn(len(labels), generator=generator)).to(labels.device)
    scale = float(condition.scale(condition.explained(images, labels, draw.exp())).detach())
    if not (math.isfinite(scale) and scale != 0):
        return None
    # A start that points away from the target is turned round by its images, not by negative multipliers.
    return images, draw + math.log(abs(scale))


def _descend(
    condition: Stationarity, labels: Tensor, settings: SearchSettings, images: Tensor, logarithms: Tensor
) -> Found | None:
    images, logarithms = images.requires_grad_(), logarithms.requires_grad_()
    optimizer = torch.optim.Adam(
        [
            {"params": [images], "lr": settings.image_rate},
            {"params": [logarithms], "lr": settings.multiplier_rate},
        ]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=settings.iterations)
    error = math.inf
    for iteration in range(settings.iterations):
        missed = condition.error(condition.explained(images, labels, logarithms.exp()))
        loss = missed + settings.range_weight * outside(images)
        gradients = torch.autograd.grad(loss, [images, logarithms])
        if not all(bool(value.isfinite().all()) for value in (missed, *gradients)):
            break
        images.grad, logarithms.grad = gradients
        optimizer.step()
        schedule.step()
        error = float(missed.detach())
        if iteration % max(1, settings.iterations // _REPORTS) == 0:
            logger.info("iteration %d: error %.5f", iteration, error)
    if not math.isfinite(error):
        return None
    return Found(images.detach().cpu(), logarithms.detach().exp().cpu(), error)
