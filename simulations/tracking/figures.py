"""What is tracked of a run's settings and of its end."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from hbdp_fed.strict_json import to_plain
from simulations.recipes import Hyperparameters
from simulations.schema import RunConfig
from simulations.tracking.contract import Setting

_NOT_SETTINGS = {"run_dir", "resume", "tracking", "data.cache", "data.recipes"}
_NOT_METRICS = {"records", "groups", "round"}


def finite(figures: Mapping[str, Any]) -> dict[str, float]:
    """Those of the figures that are numbers and finite: no tool draws the others."""
    return {
        name: float(value)
        for name, value in figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def flat_settings(config: RunConfig, hyper: Hyperparameters) -> dict[str, Setting]:
    """A run's settings by dotted name, with the recipe's values where it filled them in.

    Lists are written as JSON, infinity and nothing as the words ``inf`` and ``null``.
    """
    plain = to_plain(config)
    plain["training"] |= to_plain(dataclasses.asdict(hyper))
    return dict(_leaves(plain))


def _leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Setting]]:
    for key, value in section.items():
        name = f"{prefix}{key}"
        if name in _NOT_SETTINGS:
            continue
        if isinstance(value, dict):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, json.dumps(value) if value is None or isinstance(value, list) else value


def final_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a finished run: on the test split, epsilon, and risk under each threat model.

    Args:
        summary: As ``summary.json`` has it. What is infinite or does not exist there is left out.

    Returns:
        ``test/<metric>``; ``privacy/eps_rdp`` and ``privacy/eps_tight``, the largest of all hospitals;
        ``risk/<threat model>/bound`` and ``risk/<threat model>/<attack>/<surface>``, its success rate in [0, 1].
    """
    utility = {f"test/{name}": value for name, value in summary["utility"].items() if name not in _NOT_METRICS}
    hospitals = summary["privacy"]["hospitals"]
    epsilons = {f"privacy/{name}": max(float(entry[name]) for entry in hospitals) for name in ("eps_rdp", "eps_tight")}
    risk: dict[str, Any] = {}
    for model, entry in summary["risk"].items():
        risk[f"risk/{model}/bound"] = entry["bound"]
        for attack in entry["attacks"]:
            risk[f"risk/{model}/{attack['name']}/{attack['surface']}"] = attack["success_rate"]
    return finite({**utility, **epsilons, **risk})
