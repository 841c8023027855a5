"""Made-up sweeps, of which the right answer is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import binomtest


def attack(successes: int, records: int, *, name: str = "imprint", kind: str = "reconstruction") -> dict[str, Any]:
    """An attack with Wilson's interval."""
    ends = binomtest(successes, records).proportion_ci(0.95, method="wilson")
    return {
        "name": name,
        "kind": kind,
        "surface": "gradient",
        "seeds": 3,
        "records": records,
        "successes": successes,
        "probes": 15,
        "success_rate": successes / records,
        "success_rate_ci95": [float(ends.low), float(ends.high)],
        "criterion": "ssim >= 0.8",
        "baseline_success_rate": 0.0,
        "control_success_rate": 0.02,
        "bound": None,
        "share": 1.0,
    }


def budget(
    eps: float,
    *,
    loss: tuple[float, float, float] | None = (0.0, -0.01, 0.01),
    attacks: Sequence[Mapping[str, Any]] = (attack(0, 440),),
    lower_is_better: bool = False,
    bound: float | None = 0.5,
    seeds: int = 3,
) -> dict[str, Any]:
    """One budget of a sweep; ``loss`` is (mean, low, high) of what is lost against the control, positive is worse."""
    sign = 1 if lower_is_better else -1
    difference = None
    if loss is not None:
        mean, low, high = (sign * value for value in loss)
        difference = {"mean": mean, "low": min(low, high), "high": max(low, high), "p_value": 0.5, "n": 600}
    return {
        "eps": "inf" if math.isinf(eps) else eps,
        "seeds": list(range(seeds)),
        "utility": {"mcc": {"mean": 0.7, "sd": 0.01, "values": [0.7] * seeds, "difference": difference}},
        "risk": {
            "worst_case": {"bound": bound, "attacks": [attack(300, 300, name="membership", kind="membership")]},
            "relaxed": {"bound": None, "attacks": [attack(400, 400, name="linear_probe")]},
            "realistic": {"bound": None, "attacks": list(attacks)},
        },
        "hospitals": [{"name": "a", "records": [400, 400], "bound_worst_case": bound}],
        "time_s": {"mean": 30.0, "sd": 1.0},
    }


def control() -> dict[str, Any]:
    """Training without protection: everything is rebuilt, and nothing lost against itself."""
    return budget(math.inf, loss=None, attacks=[attack(440, 440)], bound=1.0)


def sweep(budgets: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """A sweep of one group."""
    return {
        "schema": 1,
        "kind": "sweep",
        "name": "made up",
        "task": "binary",
        "dataset": "phantom",
        "model": "cnn",
        "clients": 3,
        "metrics": ["mcc", "auroc"],
        "selection": ["mcc", "auroc"],
        "units": {},
        "seeds": [0, 1, 2],
        "control": "inf",
        "groups": [{"values": {}, "budgets": list(budgets)}],
        "failures": [],
        "pending": 0,
        **more,
    }
