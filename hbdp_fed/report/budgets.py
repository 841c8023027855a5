"""The budgets of a sweep as figures and pages read them: where they stand on an axis, and which attack counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hbdp_fed.audit.numbers import show_number
from hbdp_fed.audit.wording import number

REALISTIC = "realistic"


def eps_of(budget: Mapping[str, Any]) -> float:
    """A budget's epsilon; files write infinity as ``"inf"``."""
    return number(budget["eps"])


def eps_words(eps: float | str) -> str:
    """``1e9`` as people type it, ``inf``."""
    text = show_number(float(eps)) if not isinstance(eps, str) else eps
    return text.replace("e+0", "e").replace("e+", "e")


def is_control(budget: Mapping[str, Any], sweep: Mapping[str, Any]) -> bool:
    """Whether the other budgets' utility is compared with this one's."""
    control = sweep.get("control")
    return control is not None and eps_of(budget) == number(control)


def rate_of(attack: Mapping[str, Any]) -> float:
    """An attack's success rate; NaN where there was nothing to attack."""
    return number(attack.get("success_rate"))


def limits_of(attack: Mapping[str, Any]) -> tuple[float, float]:
    """The ends of its 95% interval; the rate itself where it has none."""
    ends = attack.get("success_rate_ci95")
    rate = rate_of(attack)
    return (rate, rate) if ends is None else (number(ends[0]), number(ends[1]))


def riskiest(budget: Mapping[str, Any], threat_model: str = REALISTIC) -> Mapping[str, Any] | None:
    """The reconstruction attack with the highest upper limit; None where nothing was attacked."""
    entry = (budget.get("risk") or {}).get(threat_model) or {}
    rebuilt = [
        attack
        for attack in entry.get("attacks") or ()
        if attack.get("kind", "reconstruction") == "reconstruction" and not math.isnan(rate_of(attack))
    ]
    return max(rebuilt, key=lambda attack: limits_of(attack)[1], default=None)


def deciding_metric(sweep: Mapping[str, Any], recommendation: Mapping[str, Any] | None = None) -> str | None:
    """By which utility is judged: the policy's metric, or else the first that chose the released rounds."""
    policy = (recommendation or {}).get("policy") or {}
    chosen = [policy.get("metric"), *(sweep.get("selection") or ()), *(sweep.get("metrics") or ())]
    return next((str(name) for name in chosen if name is not None), None)


def places(budgets: Sequence[Mapping[str, Any]]) -> list[float]:
    """Where budgets stand on an axis: the logarithm of epsilon to base 10, and infinity a step beyond the largest."""
    logs = [math.log10(eps) if math.isfinite(eps) else math.inf for eps in map(eps_of, budgets)]
    finite = [log for log in logs if math.isfinite(log)]
    spread = max(finite) - min(finite) if finite else 0.0
    end = (max(finite) if finite else 0.0) + max(spread / 6, 1.0)
    return [log if math.isfinite(log) else end for log in logs]
