"""The table of a sweep: a row a budget, with what it costs in utility and what it leaves of risk."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hbdp_fed.audit import wording
from hbdp_fed.audit.numbers import show_percent
from simulations.sweep.axes import written

Budget = Mapping[str, Any]

_MODELS = {"worst_case": "worst case", "relaxed": "relaxed", "realistic": "realistic"}


@dataclass(frozen=True)
class Sheet:
    """A table as text.

    Attributes:
        title: What it shows.
        columns: Their headings.
        rows: A cell a column.
        minor: Columns that a narrow place leaves out.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    minor: tuple[str, ...] = ()

    @property
    def narrow(self) -> Sheet:
        """Without the minor columns."""
        places = [place for place, name in enumerate(self.columns) if name not in self.minor]
        rows = tuple(tuple(row[place] for place in places) for row in self.rows)
        return Sheet(self.title, tuple(self.columns[place] for place in places), rows)


def sheets(sweep: Mapping[str, Any]) -> Iterator[Sheet]:
    """Two tables for every combination of the other axes: utility and risk by budget, and what joining is worth."""
    for group in sweep["groups"]:
        budgets = group["budgets"]
        if not budgets:
            continue
        of = ", ".join(f"{key}={value}" for key, value in group["values"].items())
        yield _frontier(sweep, budgets, f"Utility and risk by budget{f': {of}' if of else ''}")
        if any(budget["compared"] for budget in budgets):
            yield _joining(sweep, budgets, f"What joining is worth{f': {of}' if of else ''}")


def as_markdown(found: Sequence[Sheet]) -> str:
    """The tables for a page."""
    lines: list[str] = []
    for sheet in found:
        lines += [f"**{sheet.title}**", "", f"| {' | '.join(sheet.columns)} |", "|" + "---|" * len(sheet.columns)]
        rows = ([cell.replace("|", "/").replace("\n", "<br>") for cell in row] for row in sheet.rows)
        lines += [f"| {' | '.join(row)} |" for row in rows] + [""]
    return "\n".join(lines)


def _frontier(sweep: Mapping[str, Any], budgets: Sequence[Budget], title: str) -> Sheet:
    metric, units = _deciding(sweep), sweep.get("units") or {}
    others = [name for name in sweep["metrics"][:3] if name != metric]
    against = "" if sweep["control"] is None else f" - that of {written(wording.number(sweep['control']))}"
    columns = [
        "eps",
        "sigma",
        "epsilon (tight)",
        wording.label(metric, units),
        *([f"{wording.label(metric, units)}{against}"] if against else []),
        *(wording.label(name, units) for name in others),
        *_MODELS.values(),
    ]
    rows = []
    for budget in budgets:
        cells = [
            _eps(budget),
            _range(budget["noise_multiplier"]),
            _short(budget["eps_tight"][1]),
            _spread(metric, budget["utility"][metric]),
            *([_difference(metric, budget["utility"][metric]["difference"])] if against else []),
            *(_spread(name, budget["utility"][name]) for name in others),
            *("\n".join(_risk(budget["risk"][model])) for model in _MODELS),
        ]
        rows.append(tuple(cells))
    return Sheet(title, tuple(columns), tuple(rows), tuple(wording.label(name, units) for name in others))


def _joining(sweep: Mapping[str, Any], budgets: Sequence[Budget], title: str) -> Sheet:
    """The federation beside every hospital alone and beside all records in one place."""
    metric, units = _deciding(sweep), sweep.get("units") or {}
    word = wording.label(metric, units)
    columns = ("eps", f"{word}, federation", "alone (mean)", "pooled", "gains most by joining", "gains least")
    rows = []
    for budget in budgets:
        gains = [entry for entry in budget["joining"] if entry["gain"][metric]["mean"] is not None]
        sign = -1 if wording.metric(metric).lower_is_better else 1
        ranked = sorted(gains, key=lambda entry: sign * float(entry["gain"][metric]["mean"]))
        rows.append(
            (
                _eps(budget),
                _spread(metric, budget["utility"][metric]),
                _spread(metric, budget["compared"].get("alone", {}).get(metric)),
                _spread(metric, budget["compared"].get("pooled", {}).get(metric)),
                _gained(metric, ranked[-1]) if ranked else wording.written(metric, None),
                _gained(metric, ranked[0]) if ranked else wording.written(metric, None),
            )
        )
    return Sheet(title, columns, tuple(rows))


def _deciding(sweep: Mapping[str, Any]) -> str:
    """The figure that chose rounds, by which budgets are judged, too."""
    return str((sweep["selection"] or sweep["metrics"])[0])


def _eps(budget: Budget) -> str:
    return written(wording.number(budget["eps"]))


def _risk(entry: Mapping[str, Any]) -> Iterator[str]:
    """The bound of a threat model, and a line an attack."""
    if entry["bound"] is not None:
        guess = "" if entry.get("prior") is None else f" (a guess {show_percent(entry['prior'])})"
        yield f"bound {show_percent(entry['bound'])}{guess}"
    for attack in entry["attacks"]:
        seen = "" if attack["surface"] == "gradient" else f" on the {attack['surface'].replace('_', ' ')}"
        name = f"{attack['name'].replace('_', ' ')}{seen}"
        if attack["success_rate"] is None:
            yield f"{name}: nothing to attack"
            continue
        rate, low, high = map(show_percent, (attack["success_rate"], *attack["success_rate_ci95"]))
        flag = " ABOVE ITS BOUND" if attack["above_bound"] else ""
        # Its own bound starts from its own guess.
        own = "" if attack["bound"] is None else f"; its bound {show_percent(attack['bound'])}"
        yield f"{name} {rate} ({low} to {high}), n={attack['records']}{own}{flag}"


def _short(value: float | str) -> str:
    return written(float(f"{wording.number(value):.3g}"))


def _range(ends: Sequence[float | str]) -> str:
    low, high = map(_short, ends)
    return low if low == high else f"{low} to {high}"


def _spread(metric: str, figure: Mapping[str, Any] | None) -> str:
    return "-" if figure is None else wording.over_runs(metric, figure["values"])


def _difference(metric: str, found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    if found["low"] is None:
        return _signed(metric, found["mean"])
    return f"{_signed(metric, found['mean'])} ({_signed(metric, found['low'])} to {_signed(metric, found['high'])})"


def _signed(metric: str, value: float) -> str:
    return f"{'+' if value > 0 else ''}{wording.written(metric, value)}"


def _gained(metric: str, entry: Mapping[str, Any]) -> str:
    return f"{entry['name']}: {_difference(metric, entry['gain'][metric])}"


def as_csv(sweep: Mapping[str, Any]) -> str:
    """A line a setting and figure, for other programs: what varies, ``figure``, and its value."""
    axes = [key for group in sweep["groups"][:1] for key in group["values"]]
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow([*axes, "eps", "figure", "value"])
    for group in sweep["groups"]:
        for budget in group["budgets"]:
            for name, value in _flat({key: item for key, item in budget.items() if key not in ("eps", "runs")}):
                writer.writerow([*group["values"].values(), budget["eps"], name, "" if value is None else value])
    return page.getvalue()


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by their path; entries of a list by their name and surface where they have one, else by their place."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}{key}.")
    elif isinstance(value, list):
        for place, item in enumerate(value):
            own = ":".join(str(item[k]) for k in ("name", "surface") if k in item) if isinstance(item, Mapping) else ""
            yield from _flat(item, f"{prefix}{own or place}.")
    else:
        yield prefix.removesuffix("."), value
