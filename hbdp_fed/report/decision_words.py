"""A recommendation, or the lack of one, in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hbdp_fed.audit.numbers import show_percent
from hbdp_fed.audit.wording import metric, number
from hbdp_fed.report.budgets import eps_words, is_control, limits_of, rate_of, riskiest
from hbdp_fed.report.rendering import sentence, spoken
from hbdp_fed.report.run_words import Verdict

_UNDECIDED = "Undecided: no budget was shown to satisfy the policy, and none was shown not to."


def decision_words(recommendation: Mapping[str, Any]) -> Verdict:
    """What is recommended.

    Args:
        recommendation: With ``verdict`` (``recommended``, ``none`` or ``undecided``), ``eps`` and ``policy_in_words``;
            ``conclusion`` where somebody wrote one.
    """
    verdict, eps = recommendation.get("verdict"), recommendation.get("eps")
    asked = f"The policy: {recommendation.get('policy_in_words') or 'not told in words.'}"
    if verdict == "recommended" and eps is not None:
        return Verdict("good", f"Use epsilon {eps_words(eps)}.", (*_reasons(recommendation, eps), asked))
    if verdict == "none":
        return Verdict("bad", "No budget satisfies the policy.", (*_every_reason(recommendation), asked))
    return Verdict("", _UNDECIDED, (*_every_reason(recommendation), asked))


def _reasons(recommendation: Mapping[str, Any], eps: Any) -> list[str]:
    entries = recommendation.get("budgets") or ()
    reasons = [reason for entry in entries if entry["eps"] == eps for reason in entry.get("reasons") or ()]
    return [f"{sentence(reason)}." for reason in reasons]


def _every_reason(recommendation: Mapping[str, Any]) -> list[str]:
    """Of each budget what stands in its way first."""
    entries = recommendation.get("budgets") or ()
    return [f"Epsilon {eps_words(entry['eps'])}: {entry['reasons'][0]}." for entry in entries if entry.get("reasons")]


def frontier_words(budgets: Sequence[Mapping[str, Any]], sweep: Mapping[str, Any], name: str | None) -> Verdict:
    """What a sweep shows where nobody asked for a recommendation: which budgets leak, and which cost utility."""
    if not budgets:
        return Verdict("", "No run has finished yet.", ())
    leaking, holding, unknown = [], [], []
    for budget in budgets:
        attack = riskiest(budget)
        if attack is None:
            unknown.append(budget)
        elif limits_of(attack)[0] > (attack.get("control_success_rate") or 0.0):
            leaking.append(budget)
        else:
            holding.append(budget)
    costly = [
        budget for budget in budgets if name is not None and not is_control(budget, sweep) and _is_worse(budget, name)
    ]
    lines = []
    if leaking:
        lines.append(f"More images were rebuilt than by chance at epsilon {_list(leaking)}.")
    for budget in leaking[:1]:
        attack = riskiest(budget)
        assert attack is not None
        lines.append(
            f"At the smallest of these, {spoken(attack['name'])} rebuilt {show_percent(rate_of(attack))} of the "
            "records that it attacked."
        )
    if holding:
        lines.append(f"No realistic attack was shown to do better than chance at epsilon {_list(holding)}.")
    if unknown:
        lines.append(f"Nothing was attacked at epsilon {_list(unknown)}.")
    if costly:
        lines.append(f"Utility is measurably worse than the control's at epsilon {_list(costly)}.")
    elif sweep.get("control") is not None and name is not None:
        lines.append("No budget's utility was shown to be worse than the control's.")
    return Verdict("", "No policy was given: this is what was measured.", tuple(lines))


def _is_worse(budget: Mapping[str, Any], name: str) -> bool:
    difference = ((budget.get("utility") or {}).get(name) or {}).get("difference") or {}
    return number(difference.get("low")) > 0 if metric(name).lower_is_better else number(difference.get("high")) < 0


def _list(budgets: Sequence[Mapping[str, Any]]) -> str:
    words = [eps_words(budget["eps"]) for budget in budgets]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
