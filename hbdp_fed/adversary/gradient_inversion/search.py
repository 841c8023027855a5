"""From a release to images: several starts, each through ever narrower corners, the best one kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.adversary.gradient_inversion.coordinates import Coordinates
from hbdp_fed.adversary.gradient_inversion.descent import DESCENTS, Pace
from hbdp_fed.adversary.gradient_inversion.objectives import OBJECTIVES, total_variation
from hbdp_fed.adversary.gradient_inversion.victim import Cast, Victim

logger = logging.getLogger(__name__)

_SPREAD = 0.1
"""How far towards a public image each start goes from the mean: equal dummies would stay equal."""

_OUTSIDE = 1.0
"""What the mean squared distance from [0, 1] counts beside the objective."""

Start = Callable[[Tensor, int, torch.Generator], Tensor]
"""Maps public images (P, C, *spatial), a number r and a generator to r starts in [0, 1], float64."""


def from_mean(public: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Near the mean public image."""
    mean = public.double().mean(dim=0, keepdim=True)
    return mean + _SPREAD * (from_public(public, count, generator) - mean)


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
        box: Whether images stay in [0, 1]: outside costs, and after every stage they are put back.
        widths: The corners' widths, one a stage; 0 is the net as it is.
        uncorrected: How many stages leave what they search for as it is (see :func:`invert`).
        coordinates: In which images move.
        start: A key of :data:`STARTS`.
        restarts: How many starts.
    """

    objective: str
    tv_weight: float
    optimizer: str
    pace: Pace
    box: bool
    widths: tuple[float, ...]
    uncorrected: int
    coordinates: Coordinates
    start: str
    restarts: int


@dataclass(frozen=True)
class Found:
    """The best of all starts.

    Attributes:
        images: float64 (r, C, *spatial), on the CPU.
        distance: The objective without the total variation, against the net as it is.
        cost: With it; the lower the better.
    """

    images: Tensor
    distance: float
    cost: float


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

    A net with rounded corners releases something else for the true images, too. How much else is taken from the images
    found so far, and added to what is searched for: with images near the truth, the truth is nearly the optimum at any
    width (defect correction, Stetter 1978). The first stages are too far off for that.

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

    def judged(images: Tensor) -> Found:
        value = float(OBJECTIVES[plan.objective](victim.release(images, labels, cast), target).detach())
        value = value if math.isfinite(value) else math.inf
        return Found(images.cpu(), value, value + plan.tv_weight * float(total_variation(images)))

    found: list[Found] = []
    for number in range(plan.restarts):
        images = STARTS[plan.start](public_images, cast.records, generator).to(device)
        best = judged(images)
        for stage, width in enumerate(plan.widths):
            rounded = victim.smoothed(width)
            wanted = target
            if stage >= plan.uncorrected and width > 0:
                pairs = zip(*(each.release(images, labels, cast) for each in (rounded, victim)), strict=True)
                wanted = [seen + (one - other).detach() for seen, (one, other) in zip(target, pairs, strict=True)]
            images = _stage(wanted, rounded, cast, labels, images, plan)
            reached = judged(images)
            logger.debug("start %d, width %g: %s %.4g", number + 1, width, plan.objective, reached.distance)
            best = min(best, reached, key=lambda one: one.cost)
        logger.info("start %d of %d: %s %.4g", number + 1, plan.restarts, plan.objective, best.distance)
        found.append(best)
    return min(found, key=lambda one: one.cost)


def _stage(wanted: list[Tensor], victim: Victim, cast: Cast, labels: Tensor, start: Tensor, plan: Plan) -> Tensor:
    """One descent, with the corners of ``victim``."""
    objective, coordinates = OBJECTIVES[plan.objective], plan.coordinates

    def cost(values: Tensor) -> Tensor:
        images = coordinates.images(values)
        value = objective(victim.release(images, labels, cast), wanted)
        if plan.tv_weight:
            value = value + plan.tv_weight * total_variation(images)
        if plan.box:
            value = value + _OUTSIDE * (images - images.clamp(0.0, 1.0)).square().mean()
        return value

    reached = DESCENTS[plan.optimizer](cost, coordinates.values(start), plan.pace)
    images = coordinates.images(reached).detach()
    return images.clamp(0.0, 1.0) if plan.box else images
