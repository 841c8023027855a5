"""From a release to images: several starts, each through ever narrower corners, the best one kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.adversary.gradient_inversion.descent import DESCENTS, Pace
from hbdp_fed.adversary.gradient_inversion.objectives import OBJECTIVES, total_variation
from hbdp_fed.adversary.gradient_inversion.victim import Cast, Victim

logger = logging.getLogger(__name__)

_SPREAD = 0.02
"""Standard deviation, in grey values, of what tells the starts of equal dummies apart."""

Start = Callable[[Tensor, int, torch.Generator], Tensor]
"""Maps public images (P, C, *spatial), a number r and a generator to r starts in [0, 1], float64."""


def from_mean(public: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The mean public image, and a little noise, for equal dummies would stay equal."""
    mean = public.double().mean(dim=0, keepdim=True)
    noise = torch.randn(count, *mean.shape[1:], generator=generator, dtype=torch.float64)
    return (mean + _SPREAD * noise).clamp(0.0, 1.0)


def from_noise(public: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Uniform noise."""
    return torch.rand(count, *public.shape[1:], generator=generator, dtype=torch.float64)


def from_public(public: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Public images at random."""
    return public[torch.randint(len(public), (count,), generator=generator)].double()


STARTS: Mapping[str, Start] = {"mean": from_mean, "noise": from_noise, "public": from_public}
"""Where a search begins, by name."""


@dataclass(frozen=True)
class Plan:
    """How to search.

    Attributes:
        objective: A key of :data:`OBJECTIVES`.
        tv_weight: What the total variation counts beside it.
        optimizer: A key of :data:`DESCENTS`.
        pace: Of each stage.
        widths: The corners' widths, one a stage; 0 is the net as it is.
        start: A key of :data:`STARTS`.
        restarts: How many starts.
    """

    objective: str
    tv_weight: float
    optimizer: str
    pace: Pace
    widths: tuple[float, ...]
    start: str
    restarts: int


@dataclass(frozen=True)
class Found:
    """The best of all starts.

    Attributes:
        images: float64 (r, C, *spatial), on the CPU.
        distance: The objective without the total variation, against the net as it is.
    """

    images: Tensor
    distance: float


def invert(
    target: list[Tensor],
    victim: Victim,
    cast: Cast,
    labels: Tensor,
    public_images: Tensor,
    plan: Plan,
    generator: torch.Generator,
) -> Found:
    """Search for images whose release is what was seen.

    Args:
        target: What was seen.
        victim: The hospital as imagined.
        cast: The dummy records.
        labels: int64 (r,), theirs.
        public_images: Where starts come from.
        plan: How to search.
        generator: A CPU generator for the starts.
    """
    device = target[0].device

    def distance(images: Tensor) -> float:
        value = float(OBJECTIVES[plan.objective](victim.release(images, labels, cast), target).detach())
        return value if math.isfinite(value) else math.inf

    found: list[Found] = []
    for number in range(plan.restarts):
        images = STARTS[plan.start](public_images, cast.records, generator).to(device)
        for width in plan.widths:
            images = _stage(target, victim.smoothed(width), cast, labels, images, plan)
            logger.debug("start %d, width %g: %s %.4g", number + 1, width, plan.objective, distance(images))
        found.append(Found(images.cpu(), distance(images)))
        logger.info("start %d of %d: %s %.4g", number + 1, plan.restarts, plan.objective, found[-1].distance)
    return min(found, key=lambda one: one.distance)


def _stage(target: list[Tensor], victim: Victim, cast: Cast, labels: Tensor, start: Tensor, plan: Plan) -> Tensor:
    """One descent, with the corners of ``victim``."""
    objective = OBJECTIVES[plan.objective]

    def cost(images: Tensor) -> Tensor:
        value = objective(victim.release(images, labels, cast), target)
        return value + plan.tv_weight * total_variation(images) if plan.tv_weight else value

    return DESCENTS[plan.optimizer](cost, start, plan.pace)
