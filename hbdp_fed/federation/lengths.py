"""How long the hospitals' updates can be, by what they announced: known before anybody has trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from hbdp_fed.dpsgd import largest_update_norm
from hbdp_fed.training import LocalSettings
from hbdp_fed.types import HospitalPlan, Weights


def longest_updates(
    plans: Iterable[HospitalPlan],
    local: LocalSettings,
    *,
    weights: Weights,
    steps: int,
    control: Weights | None = None,
) -> Mapping[str, float]:
    """By hospital, the longest update that its clipping, noise and learning rate allow; infinite without clipping.

    Args:
        plans: The hospitals'.
        local: How they train.
        weights: What they start from.
        steps: How many steps they take.
        control: SCAFFOLD's c, where local steps are corrected.
    """
    start = whole_norm(weights)
    size = sum(value.numel() for value in weights.values())
    return {
        plan.name: largest_update_norm(
            plan.mechanism,
            local.optimizer,
            num_records=plan.num_records,
            num_parameters=size,
            steps=steps,
            start_norm=start,
            proximal=local.proximal,
            control_norm=None if control is None else whole_norm(control),
        )
        for plan in plans
    }


def whole_norm(weights: Weights) -> float:
    """The Euclidean norm of all arrays together, computed in float64."""
    return float(torch.stack([value.double().norm() for value in weights.values()]).norm())
