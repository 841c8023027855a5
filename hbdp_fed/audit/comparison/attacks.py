"""The same attack on two sides: both success rates, and whether their intervals overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hbdp_fed.adversary.threat_models import THREAT_MODELS
from hbdp_fed.audit.proportions import clustered_wilson

Entry = Mapping[str, Any]
"""An attack in a run's or a sweep's ``risk``."""


@dataclass(frozen=True)
class AttackSide:
    """What one side's runs have of an attack.

    Attributes:
        records: How many were attacked, over all runs.
        success_rate: Over all of these; None where there were none.
        success_rate_ci95: Its interval: a single run's own, or of several runs the one that takes runs for clusters
            (see :func:`hbdp_fed.audit.proportions.clustered_wilson`), since records of a run share their model.
        baseline_success_rate: What a guess scores, over all records; None where nobody counted.
        bound: The largest bound of the attack's own among the runs; None where theory gives none.
        criterion: What counts as a success, in words; None where runs count differently.
    """

    records: int
    success_rate: float | None
    success_rate_ci95: tuple[float, float] | None
    baseline_success_rate: float | None
    bound: float | None
    criterion: str | None


@dataclass(frozen=True)
class AttackPair:
    """One attack on both sides.

    Attributes:
        threat_model: Whose.
        name: The attack's.
        surface: What it saw.
        first: None where the side's runs were not put to it.
        second: Likewise.
        overlap: Whether the two intervals have a point in common; None where there are not both, or the sides count
            successes differently. Apart, the two rates differ; overlapping, they still may.
    """

    threat_model: str
    name: str
    surface: str
    first: AttackSide | None
    second: AttackSide | None
    overlap: bool | None


def attack_pairs(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> tuple[AttackPair, ...]:
    """Every attack that some run was put to, by threat model.

    Args:
        first: The ``risk`` of each run of the first side.
        second: Of the second side.
    """
    sides = [_by_attack(first), _by_attack(second)]
    keys = sorted(dict.fromkeys([*sides[0], *sides[1]]), key=lambda key: list(THREAT_MODELS).index(key[0]))
    return tuple(_pair(key, *(_pooled(side.get(key, ())) for side in sides)) for key in keys)


def _by_attack(side: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], list[Entry]]:
    found: dict[tuple[str, str, str], list[Entry]] = {}
    for risk in side:
        for model, entry in risk.items():
            if model in THREAT_MODELS:
                for attack in entry["attacks"]:
                    key = (model, str(attack["name"]), str(attack.get("surface", "-")))
                    found.setdefault(key, []).append(attack)
    return found


def _pooled(entries: Sequence[Entry]) -> AttackSide | None:
    if not entries:
        return None
    criteria = {entry.get("criterion") for entry in entries}
    bounds = [float(entry["bound"]) for entry in entries if entry.get("bound") is not None]
    rate, interval = _rate(entries)
    return AttackSide(
        records=sum(int(entry["records"]) for entry in entries),
        success_rate=rate,
        success_rate_ci95=interval,
        baseline_success_rate=_mean_over_records(entries, "baseline_success_rate"),
        bound=max(bounds, default=None),
        criterion=criteria.pop() if len(criteria) == 1 else None,
    )


def _rate(entries: Sequence[Entry]) -> tuple[float | None, tuple[float, float] | None]:
    if len(entries) == 1:
        rate, ends = entries[0]["success_rate"], entries[0].get("success_rate_ci95")
        return rate, None if ends is None else (float(ends[0]), float(ends[1]))
    counts = [(int(e["records"]), e["success_rate"]) for e in entries if e["records"] and e["success_rate"] is not None]
    if not counts:
        return None, None
    successes = torch.cat([torch.arange(records) < round(rate * records) for records, rate in counts])
    runs = torch.arange(len(counts)).repeat_interleave(torch.tensor([records for records, _ in counts]))
    return float(successes.double().mean()), clustered_wilson(successes, runs)


def _mean_over_records(entries: Sequence[Entry], name: str) -> float | None:
    known = [(int(entry["records"]), entry[name]) for entry in entries if entry.get(name) is not None]
    records = sum(count for count, _ in known)
    return sum(count * float(value) for count, value in known) / records if records else None


def _pair(key: tuple[str, str, str], first: AttackSide | None, second: AttackSide | None) -> AttackPair:
    return AttackPair(*key, first=first, second=second, overlap=_overlap(first, second))


def _overlap(first: AttackSide | None, second: AttackSide | None) -> bool | None:
    if first is None or second is None or first.criterion != second.criterion:
        return None
    one, other = first.success_rate_ci95, second.success_rate_ci95
    if one is None or other is None:
        return None
    return max(one[0], other[0]) <= min(one[1], other[1])
