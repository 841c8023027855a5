"""The same attack on two sides: both success rates, and whether their intervals overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hbdp_fed.adversary.threat_models import THREAT_MODELS
from hbdp_fed.audit.pooling import pooled_attack

Entry = Mapping[str, Any]
"""An attack in a run's or a sweep's ``risk``."""

_UNTOLD: Entry = {"kind": None, "surface": None, "criterion": None}
"""What the summaries of the first versions do not say of an attack."""


@dataclass(frozen=True)
class AttackSide:
    """What one side's runs have of an attack.

    Attributes:
        records: How many were attacked, over all runs.
        success_rate: Over all of these; None where there were none.
        success_rate_ci95: Its interval: a single run's own, or of several runs the one over the probes of all (see
            :func:`hbdp_fed.audit.pooling.pooled_risk`); None where an older run does not tell its probes apart.
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
    return tuple(_pair(key, *(side.get(key) for side in sides)) for key in keys)


def _by_attack(side: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], AttackSide]:
    found: dict[tuple[str, str, str], list[Entry]] = {}
    for risk in side:
        for model, entry in risk.items():
            if model in THREAT_MODELS:
                for attack in entry["attacks"]:
                    key = (model, str(attack["name"]), str(attack.get("surface", "-")))
                    found.setdefault(key, []).append(attack)
    return {key: _side(entries) for key, entries in found.items()}


def _side(entries: Sequence[Entry]) -> AttackSide:
    whole = entries[0] if len(entries) == 1 else pooled_attack([{**_UNTOLD, **entry} for entry in entries])
    ends, criteria = whole.get("success_rate_ci95"), {entry.get("criterion") for entry in entries}
    # Without them the records of all runs would be taken for independent.
    clustered = len(entries) == 1 or all("clusters" in e or e.get("kind") == "membership" for e in entries)
    return AttackSide(
        records=int(whole["records"]),
        success_rate=whole["success_rate"],
        success_rate_ci95=None if ends is None or not clustered else (float(ends[0]), float(ends[1])),
        baseline_success_rate=whole.get("baseline_success_rate"),
        bound=whole.get("bound"),
        criterion=criteria.pop() if len(criteria) == 1 else None,
    )


def _pair(key: tuple[str, str, str], first: AttackSide | None, second: AttackSide | None) -> AttackPair:
    return AttackPair(*key, first=first, second=second, overlap=_overlap(first, second))


def _overlap(first: AttackSide | None, second: AttackSide | None) -> bool | None:
    if first is None or second is None or first.criterion != second.criterion:
        return None
    one, other = first.success_rate_ci95, second.success_rate_ci95
    if one is None or other is None:
        return None
    return max(one[0], other[0]) <= min(one[1], other[1])
