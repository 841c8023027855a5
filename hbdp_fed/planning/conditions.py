"""A policy's conditions, each held against the evidence of one budget: met, failed, or undecided.

A condition about a measured figure is met where the figure's whole 95% interval is on the right side, has failed where
all of it is on the wrong side, and is undecided in between: then the evidence is too little. The intervals are
two-sided, so that each of their ends is a limit at 97.5%.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from hbdp_fed.planning.frontier import AttackEvidence, BudgetEvidence
from hbdp_fed.planning.policy import Policy

MEETS, FAILS, UNDECIDED = "meets", "fails", "undecided"

_MOST_RECORDS = 10_000_000
_MANY_SEEDS = 100
"""More than anybody will run to decide a budget."""


@dataclass(frozen=True)
class Finding:
    """One condition at one budget.

    Attributes:
        condition: ``ceiling``, ``utility``, ``risk`` or ``worst_case``.
        verdict: :data:`MEETS`, :data:`FAILS` or :data:`UNDECIDED`.
        reason: Why, with the figures.
        needed: The value of the policy's setting from which on the evidence at hand would meet the condition; None
            where no value would, or where it is met.
        allowed: The setting's value now.
        settles: Which further evidence would decide an undecided condition; None for the others.
    """

    condition: str
    verdict: str
    reason: str
    needed: float | None = None
    allowed: float | None = None
    settles: str | None = None


def findings(evidence: BudgetEvidence, policy: Policy, *, metric: str, refusal: str | None) -> tuple[Finding, ...]:
    """Every condition of the policy.

    Args:
        evidence: Of one budget.
        policy: What is wanted.
        metric: How the metric is called.
        refusal: Why the consortium cannot have the budget at all; None where it can.
    """
    conditions = [_ceiling(refusal), _utility(evidence, policy, metric), _risk(evidence, policy)]
    if policy.max_worst_case_bound is not None:
        conditions.append(_worst_case(evidence, policy.max_worst_case_bound))
    return tuple(conditions)


def _ceiling(refusal: str | None) -> Finding:
    if refusal is None:
        return Finding("ceiling", MEETS, "no hospital's ceiling on epsilon forbids it")
    return Finding("ceiling", FAILS, refusal)


def _utility(evidence: BudgetEvidence, policy: Policy, metric: str) -> Finding:
    loss, margin = evidence.loss, policy.margin
    if evidence.is_control:
        return Finding("utility", MEETS, "it is the control itself, and loses nothing against it", allowed=margin)
    if loss.upper is None or loss.lower is None or loss.mean is None:
        return Finding(
            "utility",
            UNDECIDED,
            f"its loss of {metric} is unknown: there is no control to compare with",
            allowed=margin,
            settles="a control (eps=inf) with the same seeds",
        )
    told = f"loss of {metric} {loss.mean:+.3f} ({loss.lower:+.3f} to {loss.upper:+.3f}, {_seeds(loss.seeds)})"
    if loss.upper <= margin:
        return Finding("utility", MEETS, f"{told}: at most the margin of {margin:g}", allowed=margin)
    if loss.lower > margin:
        reason = f"{told}: all of the interval is above the margin of {margin:g}"
        return Finding("utility", FAILS, reason, needed=loss.upper, allowed=margin)
    return Finding(
        "utility",
        UNDECIDED,
        f"{told}: the margin of {margin:g} lies inside the interval",
        needed=loss.upper,
        allowed=margin,
        settles=_more_seeds(loss.mean, loss.upper, loss.seeds, margin),
    )


def _more_seeds(mean: float, upper: float, seeds: int, margin: float) -> str:
    """The half-width of the interval falls about as one over the root of the number of seeds."""
    if mean >= margin:
        return (
            f"more seeds, though the mean loss of {mean:.3f} is not below the margin: they are likelier to show that "
            "it fails"
        )
    ratio = (upper - mean) / (margin - mean)
    wanted = max(seeds + 1, math.ceil(seeds * ratio**2 - 1e-9))
    if wanted > _MANY_SEEDS:
        return (
            f"a margin above {upper:.3f} rather than more seeds: the mean loss of {mean:.3f} is so near it that "
            f"more than {_MANY_SEEDS} seeds would be needed"
        )
    return f"about {wanted - seeds} more seeds ({wanted} in all), if the mean loss stays at {mean:.3f}"


def _risk(evidence: BudgetEvidence, policy: Policy) -> Finding:
    attacks = evidence.attacks.get(policy.threat_model, ())
    if not attacks:
        return Finding(
            "risk",
            UNDECIDED,
            f"no {policy.threat_model} reconstruction attack was run",
            allowed=policy.risk,
            settles=f"{policy.threat_model} reconstruction attacks on at least {policy.least_records} records",
        )
    found = [_attack(attack, policy) for attack in attacks]
    worst = max(found, key=lambda finding: (_SEVERITY[finding.verdict], finding.needed or 0.0))
    others = [finding.reason for finding in found if finding is not worst]
    settles = "; ".join(finding.settles for finding in found if finding.settles is not None) or None
    needed = [finding.needed for finding in found if finding.needed is not None]
    return Finding(
        "risk",
        worst.verdict,
        "; ".join([worst.reason, *others]),
        needed=max(needed, default=None),
        allowed=policy.risk,
        settles=settles if worst.verdict == UNDECIDED else None,
    )


_SEVERITY = {MEETS: 0, UNDECIDED: 1, FAILS: 2}


def _attack(attack: AttackEvidence, policy: Policy) -> Finding:
    limit = policy.risk
    if attack.records == 0 or attack.upper is None or attack.lower is None:
        return Finding(
            "risk",
            UNDECIDED,
            f"{attack.name} was tried on no record",
            allowed=limit,
            settles=_more_records(attack, policy),
        )
    told = _told(attack)
    if attack.lower > limit:
        reason = f"{told}: all of the interval is above {limit:.2%}"
        return Finding("risk", FAILS, reason, needed=attack.upper, allowed=limit)
    if attack.records < policy.least_records:
        reason = f"{told}: {attack.records} records are fewer than the {policy.least_records} that the policy asks for"
        return Finding("risk", UNDECIDED, reason, allowed=limit, settles=_more_records(attack, policy))
    if attack.upper < limit:
        return Finding("risk", MEETS, f"{told}: below {limit:.2%}", allowed=limit)
    return Finding(
        "risk",
        UNDECIDED,
        f"{told}: {limit:.2%} lies inside the interval",
        needed=attack.upper,
        allowed=limit,
        settles=_more_records(attack, policy),
    )


def _told(attack: AttackEvidence) -> str:
    beside = [
        f"{name} {value:.1%}"
        for name, value in (("a guess", attack.baseline), ("records that were not there", attack.control))
        if value is not None
    ]
    compared = f"; {', '.join(beside)}" if beside else ""
    return (
        f"{attack.name} rebuilt {attack.successes} of {attack.records} records ({attack.lower:.2%} to "
        f"{attack.upper:.2%}{compared})"
    )


def _more_records(attack: AttackEvidence, policy: Policy) -> str:
    wanted = records_needed(attack.successes, at_least=max(policy.least_records, attack.records), limit=policy.risk)
    if wanted is None:
        return f"no number of further records with {attack.name} that could be attacked"
    more = max(1, wanted - attack.records)
    return f"{more} more records attacked with {attack.name} ({attack.records + more} in all) of which none is rebuilt"


def records_needed(successes: int, *, at_least: int, limit: float) -> int | None:
    """The fewest records with so many successes whose Wilson interval ends below a limit.

    Args:
        successes: So far; no further ones.
        at_least: So many records in any case.
        limit: In (0, 1).

    Returns:
        The number; None beyond ten million.
    """

    def is_enough(records: int) -> bool:
        return upper_limit(successes, records) < limit

    return _first(is_enough, max(at_least, successes, 1), _MOST_RECORDS)


def upper_limit(successes: int, records: int) -> float:
    """The upper end of Wilson's 95% interval (Wilson 1927) of independent records."""
    return float(binomtest(successes, records).proportion_ci(0.95, method="wilson").high)


def _first(is_enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """The least number from ``low`` on that is enough, for what stays enough once it is."""
    if not is_enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return low


def _worst_case(evidence: BudgetEvidence, most: float) -> Finding:
    bound = evidence.worst_case_bound
    if bound is None:
        settles = "the bound of every hospital in the sweep's file"
        return Finding("worst_case", UNDECIDED, "its worst-case bound is unknown", allowed=most, settles=settles)
    told = f"the worst-case bound is {bound:.2%}"
    if bound <= most:
        return Finding("worst_case", MEETS, f"{told}: at most {most:.2%}", allowed=most)
    return Finding("worst_case", FAILS, f"{told}: above {most:.2%}", needed=bound, allowed=most)


def overall(found: Sequence[Finding]) -> str:
    """A budget fails by one condition, and meets by all."""
    return max((finding.verdict for finding in found), key=_SEVERITY.__getitem__)


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"
