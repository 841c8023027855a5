"""Two sweeps beside each other: what they vary, and at every budget that both have, utility and risk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hbdp_fed.adversary.threat_models import THREAT_MODELS
from hbdp_fed.audit import wording
from hbdp_fed.audit.comparison.attacks import AttackPair, attack_pairs
from hbdp_fed.audit.comparison.sides import Sided, differing, flat, sided

_FACTS = ("name", "task", "dataset", "model", "clients", "seeds", "control", "axes", "pending")


@dataclass(frozen=True)
class SeedUtility:
    """One figure of utility at one budget of both sweeps.

    Attributes:
        name: The metric.
        label: What people read.
        first: Of each seed of the first sweep; None where it does not exist.
        second: Of the second.
        difference: The mean of the second less that of the first; None where one does not exist.
        difference_sd: The standard deviation of the differences seed by seed, where both have the same seeds and more
            than one; else None.
    """

    name: str
    label: str
    first: tuple[float | None, ...]
    second: tuple[float | None, ...]
    difference: float | None
    difference_sd: float | None


@dataclass(frozen=True)
class BudgetPair:
    """A budget that both sweeps have under the same values of their other axes.

    Attributes:
        values: Those values; empty where epsilon is the only axis.
        eps: The budget, ``"inf"`` without one.
        noise: Ranges over hospitals of noise and epsilons.
        utility: Every metric.
        bounds: By threat model, the bound.
        risk: Every attack, pooled over seeds.
    """

    values: Mapping[str, Any]
    eps: float | str
    noise: tuple[Sided, ...]
    utility: tuple[SeedUtility, ...]
    bounds: tuple[Sided, ...]
    risk: tuple[AttackPair, ...]


@dataclass(frozen=True)
class SweepComparison:
    """Two sweeps beside each other.

    Attributes:
        first: The first one's folder, as a person named it.
        second: The second one's.
        facts: What differs among tasks, models, hospitals, seeds and axes.
        settings: The settings that only one of them was started with, as they were typed: the first's and the second's.
        budgets: Those that both have.
        only_first: What the first alone has, in words: its budgets, with the values of its other axes.
        only_second: What the second alone has.
    """

    first: str
    second: str
    facts: tuple[Sided, ...]
    settings: tuple[tuple[str, ...], tuple[str, ...]]
    budgets: tuple[BudgetPair, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


def compare_sweeps(names: tuple[str, str], first: Mapping[str, Any], second: Mapping[str, Any]) -> SweepComparison:
    """Hold two sweeps beside each other.

    Args:
        names: How to call them: their folders.
        first: The content of its ``sweep.json``.
        second: Likewise.
    """
    ours, theirs = dict(_budgets(first)), dict(_budgets(second))
    return SweepComparison(
        first=names[0],
        second=names[1],
        facts=differing([_facts(first)], [_facts(second)]),
        settings=(_only(first["settings"], second["settings"]), _only(second["settings"], first["settings"])),
        budgets=tuple(_pair(key, ours[key], theirs[key], first, second) for key in ours if key in theirs),
        only_first=tuple(_in_words(key) for key in ours if key not in theirs),
        only_second=tuple(_in_words(key) for key in theirs if key not in ours),
    )


_Key = tuple[tuple[tuple[str, Any], ...], float]
"""The values of the other axes, by name in alphabetical order, and epsilon."""


def _budgets(sweep: Mapping[str, Any]) -> Iterator[tuple[_Key, Mapping[str, Any]]]:
    for group in sweep["groups"]:
        values = tuple(sorted((str(name), _hashable(value)) for name, value in group["values"].items()))
        for budget in group["budgets"]:
            yield (values, float(budget["eps"])), budget


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _in_words(key: _Key) -> str:
    values, eps = key
    return ", ".join([f"eps={eps:g}", *(f"{name}={value}" for name, value in values)])


def _facts(sweep: Mapping[str, Any]) -> dict[str, Any]:
    return flat({name: sweep[name] for name in _FACTS if name in sweep})


def _only(own: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    return tuple(text for text in own if text not in others)


def _pair(
    key: _Key,
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    first: Mapping[str, Any],
    second: Mapping[str, Any],
) -> BudgetPair:
    both = (ours, theirs)
    noise = ("noise_multiplier", "eps_rdp", "eps_tight")
    metrics = dict.fromkeys([*ours["utility"], *theirs["utility"]])
    return BudgetPair(
        values=dict(key[0]),
        eps="inf" if math.isinf(key[1]) else key[1],
        noise=tuple(sided(*([{name: side[name] for name in noise if name in side}] for side in both))),
        utility=tuple(
            _utility(name, ours, theirs, {**second.get("units", {}), **first.get("units", {})}) for name in metrics
        ),
        bounds=tuple(sided(*([_bounds(side)] for side in both))),
        risk=attack_pairs([ours["risk"]], [theirs["risk"]]),
    )


def _bounds(budget: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry["bound"] for name, entry in budget["risk"].items() if name in THREAT_MODELS}


def _utility(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], units: Mapping[str, str]) -> SeedUtility:
    sides = [[wording.number(value) for value in _values(side, name)] for side in (ours, theirs)]
    means = [float(np.mean(side)) if side else math.nan for side in sides]
    gap = means[1] - means[0]
    same_seeds = list(ours["seeds"]) == list(theirs["seeds"]) and len(sides[0]) == len(sides[1]) > 1
    spread = float(np.std(np.subtract(sides[1], sides[0]), ddof=1)) if same_seeds else math.nan
    return SeedUtility(
        name=name,
        label=wording.label(name, units),
        first=tuple(map(_existing, sides[0])),
        second=tuple(map(_existing, sides[1])),
        difference=_existing(gap),
        difference_sd=_existing(spread),
    )


def _values(budget: Mapping[str, Any], name: str) -> Sequence[float | str | None]:
    values: Sequence[float | str | None] = budget["utility"].get(name, {}).get("values", ())
    return values


def _existing(value: float) -> float | None:
    return value if math.isfinite(value) else None
