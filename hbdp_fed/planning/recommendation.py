"""Which budget a policy recommends on a measured frontier, what would change that, and what it does not cover."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hbdp_fed.planning.conditions import FAILS, MEETS, UNDECIDED, Finding, findings, overall
from hbdp_fed.planning.coverage import not_covered
from hbdp_fed.planning.frontier import BudgetEvidence, Frontier
from hbdp_fed.planning.policy import Policy

RECOMMENDED, NONE = "recommended", "none"

NO_BUDGET = "no budget satisfies your policy"


@dataclass(frozen=True)
class BudgetVerdict:
    """One budget held against the policy.

    Attributes:
        eps: The budget.
        verdict: ``meets``, ``fails`` or ``undecided``.
        reasons: A line for each condition, those that stand in the way first; ceilings only where they do.
        loss: Of utility against the control: ``metric``, ``mean``, ``lower``, ``upper``, ``margin``, ``verdict``.
        risk: The attack with the highest upper limit: ``attack``, ``records``, ``rate``, ``upper``, ``limit``,
            ``verdict``; figures are None where nothing was attacked.
        findings: The conditions themselves.
    """

    eps: float
    verdict: str
    reasons: tuple[str, ...]
    loss: Mapping[str, Any]
    risk: Mapping[str, Any]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Recommendation:
    """The answer.

    Attributes:
        verdict: ``recommended``, ``none`` (every budget fails) or ``undecided``.
        eps: The recommended budget; None without one.
        policy: What was asked for, with the metric filled in.
        policy_in_words: The same in a sentence.
        conclusion: The answer in a sentence.
        budgets: Every budget's verdict, ascending.
        what_would_change: What would lead to another answer.
        not_covered: What the answer says nothing about.
    """

    verdict: str
    eps: float | None
    policy: Policy
    policy_in_words: str
    conclusion: str
    budgets: tuple[BudgetVerdict, ...]
    what_would_change: tuple[str, ...]
    not_covered: tuple[str, ...]


def recommend(
    frontier: Frontier,
    policy: Policy,
    *,
    metric_label: str,
    refused: Mapping[float, str] | None = None,
    differences: Sequence[str] = (),
) -> Recommendation:
    """The smallest budget that meets the policy.

    A smaller budget that is undecided does not hold the recommendation up; what would settle it is said beside it.

    Args:
        frontier: What was measured.
        policy: What is wanted; its metric is the frontier's.
        metric_label: How the metric is called.
        refused: Budgets that the consortium cannot have, with the reason.
        differences: How what was measured differs from what is planned, in words.
    """
    judged = tuple(_judged(evidence, policy, frontier, metric_label, refused or {}) for evidence in frontier.budgets)
    chosen = next((budget for budget in judged if budget.verdict == MEETS), None)
    if chosen is not None:
        verdict = RECOMMENDED
    else:
        verdict = UNDECIDED if any(budget.verdict == UNDECIDED for budget in judged) else NONE
    return Recommendation(
        verdict=verdict,
        eps=None if chosen is None else chosen.eps,
        policy=policy,
        policy_in_words=policy.in_words(metric_label),
        conclusion=_conclusion(verdict, chosen, judged),
        budgets=judged,
        what_would_change=tuple(_changes(chosen, judged, policy)),
        not_covered=(*differences, *not_covered(frontier, policy)),
    )


def _judged(
    evidence: BudgetEvidence, policy: Policy, frontier: Frontier, label: str, refused: Mapping[float, str]
) -> BudgetVerdict:
    found = findings(evidence, policy, metric=label, refusal=refused.get(evidence.eps))
    order = {FAILS: 0, UNDECIDED: 1, MEETS: 2}
    told = [finding for finding in found if (finding.condition, finding.verdict) != ("ceiling", MEETS)]
    told.sort(key=lambda finding: order[finding.verdict])
    by_condition = {finding.condition: finding for finding in found}
    loss = evidence.loss
    attacks = [attack for attack in evidence.attacks.get(policy.threat_model, ()) if attack.upper is not None]
    worst = max(attacks, key=lambda attack: attack.upper or 0.0, default=None)
    return BudgetVerdict(
        eps=evidence.eps,
        verdict=overall(found),
        reasons=tuple(finding.reason for finding in told),
        loss={
            "metric": frontier.metric,
            "mean": 0.0 if evidence.is_control else loss.mean,
            "lower": 0.0 if evidence.is_control else loss.lower,
            "upper": 0.0 if evidence.is_control else loss.upper,
            "margin": policy.margin,
            "verdict": by_condition["utility"].verdict,
        },
        risk={
            "attack": None if worst is None else worst.name,
            "records": None if worst is None else worst.records,
            "rate": None if worst is None else worst.rate,
            "upper": None if worst is None else worst.upper,
            "limit": policy.risk,
            "verdict": by_condition["risk"].verdict,
        },
        findings=found,
    )


def _conclusion(verdict: str, chosen: BudgetVerdict | None, judged: Sequence[BudgetVerdict]) -> str:
    if chosen is not None:
        return f"eps={chosen.eps:g} is the smallest budget that was shown to satisfy your policy"
    if verdict == NONE:
        return NO_BUDGET
    open_ones = ", ".join(f"{budget.eps:g}" for budget in judged if budget.verdict == UNDECIDED)
    return f"undecided: no budget was shown to satisfy your policy, and the evidence is too little at eps={open_ones}"


def _changes(chosen: BudgetVerdict | None, judged: Sequence[BudgetVerdict], policy: Policy) -> Iterator[str]:
    """What would lead to another answer: evidence first, then another policy."""
    smaller = [budget for budget in judged if chosen is None or budget.eps < chosen.eps]
    for budget in smaller:
        if budget.verdict == UNDECIDED:
            yield _evidence_for(budget, chosen)
    if chosen is not None:
        yield from _what_holds(chosen, policy)
    # Where evidence is missing, the policy is not what stands in the way.
    if chosen is not None or all(budget.verdict == FAILS for budget in judged):
        near = _nearest(smaller)
        if near is not None:
            yield near


def _evidence_for(budget: BudgetVerdict, chosen: BudgetVerdict | None) -> str:
    wanted = [finding.settles for finding in budget.findings if finding.verdict == UNDECIDED and finding.settles]
    instead = "" if chosen is None else f", and decide whether it comes before eps={chosen.eps:g}"
    return f"eps={budget.eps:g} is undecided; this would settle it{instead}: {'; and '.join(wanted)}"


def _what_holds(chosen: BudgetVerdict, policy: Policy) -> Iterator[str]:
    """How far the policy could be tightened before the recommendation falls."""
    upper = chosen.loss["upper"]
    if upper is not None and upper > 0:
        yield f"a policy.margin below {upper:.4f} would no longer allow eps={chosen.eps:g} (now {policy.margin:g})"
    limit = chosen.risk["upper"]
    if limit is not None:
        yield (f"a policy.risk of {limit:.4g} or less would no longer allow eps={chosen.eps:g} (now {policy.risk:g})")
    records = chosen.risk["records"]
    if records is not None:
        yield f"a policy.least_records above {records} would leave eps={chosen.eps:g} undecided"


_SETTINGS: Mapping[str, str] = {
    "utility": "policy.margin of at least",
    "risk": "policy.risk above",
    "worst_case": "policy.max_worst_case_bound of at least",
}


def _nearest(judged: Sequence[BudgetVerdict]) -> str | None:
    """The failing budget for which the policy would have to give way least, by the ratio of needed to allowed."""
    found: list[tuple[float, str]] = []
    for budget in judged:
        failing = [finding for finding in budget.findings if finding.verdict == FAILS]
        if not failing or any(finding.needed is None or not finding.allowed for finding in failing):
            continue
        ratios = [(finding.needed or 0.0) / (finding.allowed or 1.0) for finding in failing]
        wanted = " and a ".join(f"{_SETTINGS[finding.condition]} {finding.needed:.4g}" for finding in failing)
        left = [finding for finding in budget.findings if finding.verdict == UNDECIDED]
        still = ", which would then be undecided" if left else ""
        found.append((max(ratios), f"nearest to giving way: a {wanted} would let eps={budget.eps:g} in{still}"))
    return min(found)[1] if found else None
