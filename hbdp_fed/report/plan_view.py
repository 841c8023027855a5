"""What the report of a consortium's plan says, and what of it may be shared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hbdp_fed.audit.numbers import DASH, show_duration, show_number, show_percent
from hbdp_fed.audit.wording import number
from hbdp_fed.report.budgets import eps_words
from hbdp_fed.report.suppression import HIDDEN, SMALLEST_COUNT, Withheld, few, is_small, protect

# Each of these tells, with what is known of the others, how many records a hospital has.
_HOSPITAL_TELLS = ("sample_rate", "expected_batch")
_BUDGET_TELLS = ("noise_multiplier", "eps_rdp", "eps_tight", "worst_case", "relaxed", "best_psnr")
_COST_TELLS = ("compute_s", "round_s", "kilowatt_hours")
_LEAVING_TELLS = ("records_lost_share", "noise_factor")


def shareable_plan(plan: Mapping[str, Any], *, smallest: int = SMALLEST_COUNT) -> dict[str, Any]:
    """The plan with a :class:`Withheld` in the place of everything that is not to be shared.

    Args:
        plan: As it is read from ``plan.json``.
        smallest: Counts from 1 to just below this are not shown; 1 shows everything.
    """
    entries = list(plan["hospitals"])
    records = protect([entry["records"] for entry in entries], smallest=smallest)
    hidden = {entry["name"] for entry, kept in zip(entries, records, strict=True) if isinstance(kept, Withheld)}
    found = {
        **plan,
        "hospitals": [_hospital(entry, kept, smallest) for entry, kept in zip(entries, records, strict=True)],
        "leaving": _without(plan.get("leaving") or [], hidden, _LEAVING_TELLS),
        "cost": {**plan["cost"], "hospitals": _without(plan["cost"].get("hospitals") or [], hidden, _COST_TELLS)},
    }
    weakest = plan.get("weakest")
    if hidden and weakest:
        # Its reason counts records.
        found["weakest"] = {"name": weakest.get("name"), "why": ""}
    return found


def _hospital(entry: Mapping[str, Any], records: Any, smallest: int) -> dict[str, Any]:
    own = {**entry, "records": records}
    if is_small(entry.get("patients"), smallest):
        own["patients"] = few(smallest)
    if isinstance(records, Withheld):
        own |= {name: HIDDEN for name in _HOSPITAL_TELLS if name in entry}
        own["patients"] = HIDDEN if own.get("patients") is not None else None
        own["budgets"] = [
            {**budget, **{name: HIDDEN for name in _BUDGET_TELLS if name in budget}, "problem": _problem(budget)}
            for budget in entry["budgets"]
        ]
    return own


def _problem(budget: Mapping[str, Any]) -> str | None:
    """A reason may count records."""
    return None if budget.get("problem") is None else "not allowed here"


def _without(entries: Sequence[Mapping[str, Any]], hidden: set[str], names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {**entry, **({name: HIDDEN for name in names if name in entry} if entry["name"] in hidden else {})}
        for entry in entries
    ]


def protection_rows(plan: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every hospital at every budget."""
    for hospital in plan["hospitals"]:
        for budget in hospital["budgets"]:
            tight = budget.get("eps_tight")
            yield {
                **{key: budget.get(key) for key in ("noise_multiplier", "worst_case", "relaxed", "best_psnr")},
                "name": hospital["name"],
                "eps": eps_words(budget["eps"]),
                "eps_tight": tight if isinstance(tight, Withheld) else _between(tight),
                "allowed": "yes" if budget.get("allowed") else "no",
                "problem": budget.get("problem"),
            }


def _between(ends: Sequence[float | str] | None) -> str:
    if not ends:
        return DASH
    low, high = (show_number(end) for end in ends)
    return low if low == high else f"{low} to {high}"


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    """The plan in plain words: how long, how much, who is protected least, what cannot be had."""
    total, round_ = plan["cost"]["total"], plan["cost"]["round"]
    training = plan["training"]
    energy = total.get("kilowatt_hours")
    watts = "" if energy is None else f" and need {show_number(energy)} kWh"
    lines = [
        f"{training['rounds']:,} rounds take {show_duration(3600 * total['hours'])}, move "
        f"{show_number(total['gigabytes'])} GB{watts}; every round waits for {round_['waits_for']}."
    ]
    weakest = plan.get("weakest") or {}
    if weakest.get("name"):
        lines.append(f"Protected least: {weakest['name']}. {_sentence(weakest.get('why') or '')}".strip())
    refused = sorted({number(b["eps"]) for h in plan["hospitals"] for b in h["budgets"] if not b.get("allowed")})
    if refused:
        lines.append(f"Not allowed or not possible at every hospital: epsilon {', '.join(map(eps_words, refused))}.")
    lines += list(_theory(plan))
    return lines


def _theory(plan: Mapping[str, Any]) -> Iterator[str]:
    """The largest budget at which theory still promises something."""
    bounds: dict[float, float] = {}
    for hospital in plan["hospitals"]:
        for budget in hospital["budgets"]:
            bound = budget.get("worst_case")
            if bound is not None and not isinstance(bound, Withheld):
                eps = number(budget["eps"])
                bounds[eps] = max(bounds.get(eps, 0.0), number(bound))
    hidden = any(isinstance(hospital["records"], Withheld) for hospital in plan["hospitals"])
    where = " at the hospitals whose figures are shown" if hidden else ""
    promising = [eps for eps, bound in bounds.items() if bound < 0.5]
    if promising:
        eps = max(promising)
        yield (
            f"Up to epsilon {eps_words(eps)} theory promises{where} that no adversary succeeds with a record with a "
            f"probability above {show_percent(bounds[eps])}; a guess alone has {show_percent(plan['prior'])}."
        )
    elif bounds:
        yield f"At none of these budgets does theory promise much{where}: what protects has to be measured."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def bounds_by_hospital(plan: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """By hospital, budget and worst-case bound, as far as they are shown."""
    found: dict[str, list[tuple[float, float]]] = {}
    for hospital in plan["hospitals"]:
        points = [
            (number(budget["eps"]), number(budget["worst_case"]))
            for budget in hospital["budgets"]
            if budget.get("worst_case") is not None and not isinstance(budget["worst_case"], Withheld)
        ]
        if any(math.isfinite(eps) for eps, _ in points):
            found[hospital["name"]] = points
    return found
