"""What a person reads of a comparison, section by section."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from hbdp_fed.audit import wording
from hbdp_fed.audit.comparison import (
    ABSENT,
    AttackPair,
    AttackSide,
    BudgetPair,
    RunComparison,
    SeedUtility,
    Sided,
    SweepComparison,
    Utility,
)
from hbdp_fed.audit.numbers import show_percent
from simulations.pages import Section

_HOSPITAL_ROWS = 20
_LONGEST = 60

_DIFFERENCE = "difference (B - A)"
_OVERLAPPING = "Intervals that do not overlap show a difference; overlapping ones do not show that there is none."


def run_sections(found: RunComparison) -> list[Section]:
    """A comparison of runs."""
    return [
        Section("The two sides", ("side", "runs"), (("A", ", ".join(found.first)), ("B", ", ".join(found.second)))),
        _differing("Settings that differ", "setting", found.settings, same="All settings are the same."),
        _differing("Machines and versions that differ", "what", found.environment, same="All of them are the same."),
        _utility(found),
        *_privacy(found),
        _risk(found.bounds, found.risk),
        _sides("Answers of hospitals", found.participation),
        _sides("Time", found.time),
    ]


def sweep_sections(found: SweepComparison) -> list[Section]:
    """A comparison of sweeps."""
    typed = tuple(("A alone", text) for text in found.settings[0]) + tuple(("B alone", t) for t in found.settings[1])
    alone = [f"{side} alone has {', '.join(texts)}." for side, texts in _alone(found) if texts]
    if not found.budgets:
        alone.insert(0, "No budget is in both.")
    return [
        Section("The two sides", ("side", "sweep"), (("A", found.first), ("B", found.second))),
        _differing("What the sweeps are about", "what", found.facts, same="The same."),
        Section(
            "Settings that only one was started with", ("side", "setting"), typed, () if typed else ("There are none.",)
        ),
        *(section for budget in found.budgets for section in _budget(budget)),
        *([Section("Budgets of one sweep alone", remarks=tuple(alone))] if alone else []),
    ]


def _alone(found: SweepComparison) -> Iterator[tuple[str, Sequence[str]]]:
    yield "A", found.only_first
    yield "B", found.only_second


def _budget(budget: BudgetPair) -> Iterator[Section]:
    values = "".join(f", {name}={value}" for name, value in budget.values.items())
    eps = budget.eps if isinstance(budget.eps, str) else f"{budget.eps:g}"
    title = f"eps={eps}{values}"
    rows = tuple(
        (
            one.label,
            wording.over_runs(one.name, one.first or [None]),
            wording.over_runs(one.name, one.second or [None]),
            _gap(one),
        )
        for one in budget.utility
    )
    remark = "Differences with ± are taken seed by seed: their mean and standard deviation."
    yield Section(f"{title}: utility (test)", ("metric", "A", "B", _DIFFERENCE), rows, (remark,))
    yield _sides(f"{title}: noise over hospitals", budget.noise)
    yield _risk(budget.bounds, budget.risk, title=f"{title}: risk")


def _gap(one: SeedUtility) -> str:
    if one.difference is None:
        return "-"
    spread = "" if one.difference_sd is None else f" ± {wording.written(one.name, one.difference_sd)}"
    return f"{wording.signed(one.name, one.difference)}{spread}"


def _differing(title: str, what: str, found: Sequence[Sided], *, same: str) -> Section:
    rows = tuple((one.name, _values(one.first), _values(one.second)) for one in found)
    remarks = [] if rows else [same]
    if any(ABSENT in (*one.first, *one.second) for one in found):
        remarks.append(f"{ABSENT}: the version or the data set of that side has no such entry.")
    return Section(title, (what, "A", "B"), rows, tuple(remarks))


def _sides(title: str, found: Sequence[Sided]) -> Section:
    rows = tuple((_label(one.name), _range(one.first), _range(one.second)) for one in found)
    return Section(title, ("what", "A", "B"), rows, () if rows else ("Nobody counted.",))


def _label(name: str) -> str:
    """Names that end in ``_s`` are seconds."""
    words = name.removesuffix("_s").replace("_", " ")
    return f"{words} (s)" if name.endswith("_s") else words


def _utility(found: RunComparison) -> Section:
    if found.unpaired is None:
        rows = tuple((*_both(one), *_paired(one)) for one in found.utility)
        return Section(
            "Utility (test)",
            ("metric", "A", "B", _DIFFERENCE, "95% interval"),
            rows,
            ("The interval is of a paired bootstrap over patients: of these models, not of other training runs.",),
        )
    reason = f"No paired difference: {found.unpaired}."
    return Section("Utility (test)", ("metric", "A", "B"), tuple(_both(one) for one in found.utility), (reason,))


def _both(one: Utility) -> tuple[str, str, str]:
    return one.label, _figure(one, one.first, one.first_ci95), _figure(one, one.second, one.second_ci95)


def _figure(one: Utility, values: Sequence[float | None], ends: tuple[float, float] | None) -> str:
    own = "" if ends is None else f" ({' to '.join(wording.written(one.name, end) for end in ends)})"
    return f"{wording.over_runs(one.name, values)}{own}"


def _paired(one: Utility) -> tuple[str, str]:
    gap = one.difference
    if gap is None:
        return "-", "-"
    ends = "-" if gap.low is None or gap.high is None else " to ".join(
        wording.signed(one.name, end) for end in (gap.low, gap.high)
    )  # fmt: skip
    return wording.signed(one.name, gap.value), ends


_PRIVACY = {
    "num_records": "records",
    "noise_multiplier": "sigma",
    "eps_rdp": "epsilon (RDP)",
    "eps_tight": "epsilon (tight)",
    "worst_case_bound": "worst-case bound",
    "relaxed_bound": "relaxed bound",
}
_BOUNDS = ("worst_case_bound", "relaxed_bound")


def _privacy(found: RunComparison) -> Iterator[Section]:
    """A line for each figure that differs, once for all hospitals at which it reads the same."""
    alike: dict[tuple[tuple[str, str, str], ...], list[str]] = {}
    for hospital, figures in found.privacy.items():
        differing = tuple(_of_hospital(one) for one in figures if one.differs)
        alike.setdefault(differing, []).append(hospital)
    rows = [
        (f"{_named(hospitals)}: {label}", first, second)
        for differing, hospitals in alike.items()
        for label, first, second in differing
    ]
    remarks = [f"Only in {side}: {_named(names)}." for side, names in zip("AB", found.hospitals, strict=True) if names]
    if not found.privacy:
        remarks.insert(0, "The two sides have no hospital in common.")
    elif not rows:
        remarks.insert(0, f"The same: {'; '.join(_in_common(found))}.")
    if len(rows) > _HOSPITAL_ROWS:
        remarks.append(f"{len(rows) - _HOSPITAL_ROWS} more lines are in format=json.")
    yield Section("Privacy that differs", ("hospital", "A", "B"), tuple(rows[:_HOSPITAL_ROWS]), tuple(remarks))


def _of_hospital(one: Sided) -> tuple[str, str, str]:
    written = _bound if one.name in _BOUNDS else _range
    return _PRIVACY[one.name], written(one.first), written(one.second)


def _named(hospitals: Sequence[str]) -> str:
    return hospitals[0] if len(hospitals) == 1 else f"{hospitals[0]} and {len(hospitals) - 1} more"


def _in_common(found: RunComparison) -> Iterator[str]:
    for name, label in _PRIVACY.items():
        values = [value for every in found.privacy.values() for one in every if one.name == name for value in one.first]
        if values:
            yield f"{label} {(_bound if name in _BOUNDS else _range)(values)}"


def _risk(bounds: Sequence[Sided], attacks: Sequence[AttackPair], *, title: str = "Risk") -> Section:
    rows = []
    for bound in bounds:
        model = bound.name.replace("_", " ")
        rows.append((f"{model}: bound", *(_bound(values) for values in (bound.first, bound.second)), ""))
        for pair in attacks:
            if pair.threat_model == bound.name:
                seen = "" if pair.surface == "gradient" else f" on the {pair.surface.replace('_', ' ')}"
                rows.append(
                    (f"{pair.name.replace('_', ' ')}{seen}", _side(pair.first), _side(pair.second), _apart(pair))
                )
    remarks = [_OVERLAPPING] if any(pair.overlap is not None for pair in attacks) else []
    if any(pair.first and pair.second and pair.first.criterion != pair.second.criterion for pair in attacks):
        remarks.append("Where successes are counted differently, intervals are not held against each other.")
    return Section(title, ("attack", "A", "B", "intervals"), tuple(rows), tuple(remarks))


def _bound(values: Sequence[Any]) -> str:
    known = [float(value) for value in values if value not in (None, ABSENT)]
    return show_percent(max(known)) if known else "none"


def _side(side: AttackSide | None) -> str:
    if side is None:
        return "not attacked"
    if side.success_rate is None:
        return "nothing to attack"
    ends = side.success_rate_ci95
    interval = "" if ends is None else f" ({ends[0]:.1%} to {ends[1]:.1%})"
    return f"{side.success_rate:.1%} of {side.records}{interval}"


def _apart(pair: AttackPair) -> str:
    if pair.overlap is None:
        return "-"
    return "overlap" if pair.overlap else "apart"


def _values(values: Sequence[Any]) -> str:
    """Each different value once, as one types it."""
    texts = list(dict.fromkeys(_written(value) for value in values))
    text = ", ".join(texts)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return "null" if value is None else str(value)


def _range(values: Sequence[Any]) -> str:
    """One number, or the smallest and the largest; a value may itself be such a pair."""
    flat = [item for value in values for item in (value if isinstance(value, list | tuple) else [value])]
    known = [float(item) for item in flat if item not in (None, ABSENT)]
    if not known:
        return "-"
    ends = sorted({_number(min(known)): None, _number(max(known)): None}, key=float)
    return " to ".join(ends)


def _number(value: float) -> str:
    if math.isinf(value):
        return "inf"
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e6 else f"{value:.4g}"
