"""Attacks that are left out where they would take long and nobody asked for them by name."""

from __future__ import annotations

from dataclasses import replace

from hbdp_fed.adversary import ATTACKS
from simulations.adversary_plan import ALONE, AUTO, AttackPlan, asked_for, surfaces_seen
from simulations.schema import AdversaryConfig

_AFFORDABLE = 1e10
"""Parameters x pixels x steps of all populations and shadow hospitals that take about ten seconds on a core."""

_SMALLEST_STEP = 1e7
"""What a step of the smallest model takes all the same."""


def affordable(plan: AttackPlan, adversary: AdversaryConfig, *, cost_of_step: float, steps: int) -> AttackPlan:
    """The same without property inference where it would take long and nobody asked for it by name.

    Args:
        plan: The attacks that apply.
        adversary: Its settings.
        cost_of_step: Parameters x pixels.
        steps: Of all attacked hospitals in a round.
    """
    found = [name for name in plan.attacks if ATTACKS[name].kind == "property"]
    surfaces = [surface for surface in surfaces_seen(adversary, secure=False) if surface in ALONE]
    taken = (adversary.populations + adversary.shadows) * steps * len(surfaces)
    quick = taken * max(cost_of_step, _SMALLEST_STEP) <= _AFFORDABLE
    if not found or asked_for(adversary.attack) != [AUTO] or quick:
        return plan
    why = (
        "takes more than ten seconds here; name it in adversary.attack, or set fewer adversary.hospitals, "
        "adversary.populations or adversary.shadows"
    )
    kept = tuple(name for name in plan.attacks if name not in found)
    return replace(plan, attacks=kept, left_out=(*plan.left_out, *(f"{name}: {why}" for name in found)))
