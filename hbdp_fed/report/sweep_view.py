"""What the report of a sweep says: the decision, the frontier, a table a group, and what of it may be shared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hbdp_fed.audit.numbers import DASH, show_count, show_number
from hbdp_fed.audit.wording import METRICS, label, number, written
from hbdp_fed.report.attack_view import attack_view
from hbdp_fed.report.budgets import eps_of, eps_words, is_control, limits_of, rate_of, riskiest
from hbdp_fed.report.rendering import spoken
from hbdp_fed.report.shareable_attacks import shareable_risk
from hbdp_fed.report.suppression import SMALLEST_COUNT, TOO_FEW, Withheld, is_withheld, protect, protect_columns

_RESTS_ON = ("test_records", "test_groups")
_TELL_RECORDS = ("noise_multiplier", "eps_tight", "bound_worst_case", "bound_relaxed")


def shareable_group(group: Mapping[str, Any], *, smallest: int = SMALLEST_COUNT) -> dict[str, Any]:
    """A group of a sweep with a :class:`Withheld` in the place of everything that is not to be shared.

    Hospitals that are small, and one more where a small one could be told from the others, have no counts, no figures
    from which counts could be computed, and no figures that rest on them.
    """
    return {**group, "budgets": [_budget(budget, smallest) for budget in group["budgets"]]}


def _budget(budget: Mapping[str, Any], smallest: int) -> dict[str, Any]:
    hospitals = list(budget.get("hospitals") or [])
    lows = [_low(entry.get("records")) for entry in hospitals]
    shown = protect(lows, smallest=smallest)
    hidden = {entry["name"]: kept for entry, kept in zip(hospitals, shown, strict=True) if isinstance(kept, Withheld)}
    told = [
        {**entry, "records": hidden[entry["name"]], **dict.fromkeys(_TELL_RECORDS, hidden[entry["name"]])}
        if entry["name"] in hidden
        else dict(entry)
        for entry in hospitals
    ]
    spans = {key: _span_of(told, key) for key in ("noise_multiplier", "eps_tight")} if hidden else {}
    risk = shareable_risk(budget.get("risk") or {}, hidden=bool(hidden), smallest=smallest)
    return {
        **budget,
        **spans,
        "risk": risk,
        "hospitals": told,
        "joining": _joining(budget.get("joining") or [], hidden, smallest),
    }


def _span_of(hospitals: Sequence[Mapping[str, Any]], key: str) -> list[Any] | None:
    """The smallest and the largest over the hospitals that are shown: all hospitals' ends may be a small one's."""
    shown = [entry[key] for entry in hospitals if entry.get(key) is not None and not isinstance(entry[key], Withheld)]
    ordered = sorted(shown, key=number)
    return [ordered[0], ordered[-1]] if ordered else None


def _low(records: Any) -> int | None:
    """The least that a hospital had over seeds."""
    if isinstance(records, list | tuple):
        return int(min(records))
    return records if isinstance(records, int) else None


def _joining(
    entries: Sequence[Mapping[str, Any]], hidden: Mapping[str, Withheld], smallest: int
) -> list[dict[str, Any]]:
    shown = protect_columns(entries, ("records", *_RESTS_ON), smallest=smallest)
    found = []
    for entry in shown:
        judged = {**entry, "records": hidden.get(entry["name"], entry["records"])}
        if is_withheld(judged, ("records", *_RESTS_ON)):
            judged |= {key: TOO_FEW for key in ("federated", "alone", "pooled", "gain") if key in entry}
        found.append(judged)
    return found


@dataclass(frozen=True)
class Written:
    """A figure as it is written.

    Attributes:
        text: The figure.
        more: How far it can be trusted, in small print: a deviation or an interval; empty where nothing is known.
    """

    text: str
    more: str = ""

    def __str__(self) -> str:
        if not self.more:
            return self.text
        return f"{self.text} {self.more}" if self.more.startswith("±") else f"{self.text} ({self.more})"


def group_view(
    group: Mapping[str, Any], sweep: Mapping[str, Any], name: str | None, recommendation: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What is said of one group, that may be shared already.

    Args:
        group: The group.
        sweep: Whose it is.
        name: The metric that decides.
        recommendation: What is recommended, if somebody asked.
    """
    budgets = list(group["budgets"])
    verdicts = _verdicts(recommendation)
    return {
        "values": dict(group["values"]),
        "words": ", ".join(f"{key}={value}" for key, value in group["values"].items()),
        "rows": [_row(budget, sweep, name, verdicts, recommendation) for budget in budgets],
        "attacks": list(_attacks(budgets)),
        "hospitals": list(_hospitals(budgets)),
        "joining": list(_gains(budgets, name)),
        "compared": any(budget.get("compared") for budget in budgets),
    }


def _verdicts(recommendation: Mapping[str, Any] | None) -> Mapping[float, Mapping[str, Any]]:
    return {eps_of(entry): entry for entry in (recommendation or {}).get("budgets") or ()}


def _row(
    budget: Mapping[str, Any],
    sweep: Mapping[str, Any],
    name: str | None,
    verdicts: Mapping[float, Mapping[str, Any]],
    recommendation: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """A budget's line in the table."""
    risk, utility = budget.get("risk") or {}, budget.get("utility") or {}
    worst = riskiest(budget)
    chosen = (recommendation or {}).get("eps")
    return {
        "eps": eps_words(budget["eps"]),
        "seeds": len(budget.get("seeds") or ()),
        "sigma": _span(budget.get("noise_multiplier")),
        "eps_tight": _span(budget.get("eps_tight")),
        "utility": {key: _mean(key, own) for key, own in utility.items()},
        "difference": _difference(name, (utility.get(name or "") or {}).get("difference")),
        "is_control": is_control(budget, sweep),
        "rate": None if worst is None else rate_of(worst),
        "between": None if worst is None else limits_of(worst),
        "by": None if worst is None else spoken(worst["name"]),
        "attacked": None if worst is None else worst.get("records"),
        "worst_case": (risk.get("worst_case") or {}).get("bound"),
        "relaxed": (risk.get("relaxed") or {}).get("bound"),
        "compared": {
            key: _mean(name or "", own.get(name) or {})
            for key in ("pooled", "alone")
            for own in [(budget.get("compared") or {}).get(key) or {}]
        },
        "time": (budget.get("time_s") or {}).get("mean"),
        "verdict": (verdicts.get(eps_of(budget)) or {}).get("verdict"),
        "reasons": list((verdicts.get(eps_of(budget)) or {}).get("reasons") or ()),
        "chosen": chosen is not None and number(chosen) == eps_of(budget),
    }


def _mean(name: str, own: Mapping[str, Any]) -> Written:
    """A mean over seeds, and its standard deviation where there is one."""
    mean, sd = written(name, own.get("mean"), missing=DASH), number(own.get("sd"))
    return Written(mean, f"± {written(name, sd)}" if math.isfinite(sd) and mean != DASH else "")


def _difference(name: str | None, difference: Mapping[str, Any] | None) -> Written:
    """A difference, and its 95% interval."""
    if name is None or not difference or math.isnan(number(difference.get("mean"))):
        return Written(DASH)
    low, mean, high = (_signed(name, difference.get(key)) for key in ("low", "mean", "high"))
    return Written(mean, f"{low} to {high}")


def _signed(name: str, value: Any) -> str:
    text = written(name, value, missing=DASH)
    return f"+{text}" if number(value) > 0 and not text.startswith("+") else text


def _span(ends: Sequence[float | str] | None) -> str:
    """``4.9 to 5.1``, or the one figure that both ends are."""
    if not ends:
        return DASH
    low, high = (show_number(end) for end in ends)
    return low if low == high else f"{low} to {high}"


def _counts(ends: Sequence[float] | None) -> str:
    """``941 to 944``, or the one count that every seed dealt."""
    if not ends:
        return DASH
    low, high = (show_count(round(end)) for end in ends)
    return low if low == high else f"{low} to {high}"


def _attacks(budgets: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every attack at every budget."""
    for budget in budgets:
        for model, entry in (budget.get("risk") or {}).items():
            for attack in entry.get("attacks") or ():
                own = {"control_success_rate": None, "baseline_success_rate": None, **attack}
                yield {**attack_view(own), "eps": eps_words(budget["eps"]), "model": model}


def _hospitals(budgets: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every hospital at every budget."""
    for budget in budgets:
        for entry in budget.get("hospitals") or ():
            records = entry.get("records")
            words = records if isinstance(records, Withheld) else _counts(records)
            figures = dict.fromkeys(_TELL_RECORDS)
            yield {**figures, **entry, "eps": eps_words(budget["eps"]), "records": words}


def _gains(budgets: Sequence[Mapping[str, Any]], name: str | None) -> Iterator[dict[str, Any]]:
    """What each hospital gains by joining, at every budget."""
    for budget in budgets:
        for entry in budget.get("joining") or ():
            row: dict[str, Any] = {"name": entry["name"], "eps": eps_words(budget["eps"]), "records": entry["records"]}
            for key in ("federated", "alone", "pooled"):
                own = entry.get(key)
                row[key] = own if isinstance(own, Withheld) else _mean(name or "", (own or {}).get(name) or {})
            gain = entry.get("gain")
            row["gain"] = gain if isinstance(gain, Withheld) else _difference(name, (gain or {}).get(name))
            row["gains"] = None if isinstance(gain, Withheld) else number(((gain or {}).get(name) or {}).get("low")) > 0
            yield row


def labels_of(sweep: Mapping[str, Any]) -> dict[str, str]:
    """By metric what people read."""
    metrics = list(sweep.get("metrics") or ())
    return {name: label(name, sweep.get("units") or {}) for name in {*METRICS, *metrics}}
