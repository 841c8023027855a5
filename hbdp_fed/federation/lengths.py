"""How long the hospitals' updates can be, by what they announced: known before anybody has trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch

from hbdp_fed.dpsgd import largest_update_norm
from hbdp_fed.federation.codec import TrainRequest
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.training import LocalSettings
from hbdp_fed.types import HospitalPlan, Weights


def longest_updates(
    plans: Iterable[HospitalPlan],
    local: LocalSettings,
    *,
    weights: Weights,
    steps: int,
    control: Weights | None = None,
    moved: float = 0.0,
) -> Mapping[str, float]:
    """By hospital, the longest update that its clipping, noise and learning rate allow; infinite without clipping.

    Args:
        plans: The hospitals'.
        local: How they train.
        weights: What they start from.
        steps: How many steps they take.
        control: SCAFFOLD's c, where local steps are corrected.
        moved: By how much, at most, the weights have moved since.
    """
    start = whole_norm(weights) + moved
    size = sum(value.numel() for value in weights.values())
    return {
        plan.name: largest_update_norm(
            plan.mechanism,
            local.optimizer,
            num_units=plan.num_units,
            num_parameters=size,
            steps=steps,
            start_norm=start,
            proximal=local.proximal,
            control_norm=None if control is None else whole_norm(control),
        )
        for plan in plans
    }


def longest_answers(plans: Iterable[HospitalPlan], local: LocalSettings, request: TrainRequest) -> Mapping[str, float]:
    """The same for the updates that answer a request, whatever each hospital is handed.

    Args:
        plans: The hospitals'.
        local: How they train.
        request: What they are asked.
    """

    def longest(some: Iterable[HospitalPlan], weights: Weights) -> Mapping[str, float]:
        control = None if request.control is None else request.control.c
        return longest_updates(some, local, weights=weights, steps=request.steps, control=control)

    # Weights matter by their length alone, and that by what decays of them: else none need be made twice.
    if request.tailored is None or local.optimizer.weight_decay == 0:
        return longest(plans, request.weights)
    return {plan.name: longest([plan], request.to(plan.name).weights)[plan.name] for plan in plans}


def farthest(settings: AppSettings, weights: Weights, *, rounds: int) -> float:
    """How far honest hospitals can move the global weights in some rounds, whatever their records are.

    A weighted mean of updates, or one of them, is no longer than the longest. A median or a trimmed mean, taken
    coordinate by coordinate, is no longer than all of them together, which is at most sqrt(hospitals) times that.

    Args:
        settings: Of a federation whose server adds the combined update to the weights, without an optimiser.
        weights: The global weights before.
        rounds: At least 1.

    Returns:
        A Euclidean norm; infinite without clipping.
    """
    by_coordinate = settings.aggregation.name in ("median", "trimmed_mean")
    factor = math.sqrt(len(settings.sites)) if by_coordinate else 1.0
    plans = [site.plan for site in settings.sites]
    moved = 0.0
    for _ in range(rounds):
        longest = longest_updates(plans, settings.local, weights=weights, steps=settings.local_steps, moved=moved)
        moved += factor * max(longest.values())
    return moved


def whole_norm(weights: Weights) -> float:
    """The Euclidean norm of all arrays together, computed in float64."""
    return float(torch.stack([value.double().norm() for value in weights.values()]).norm())
