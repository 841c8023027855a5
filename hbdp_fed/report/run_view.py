"""What the report of one run says of its model's worth, its hospitals and its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hbdp_fed.audit.numbers import show_number
from hbdp_fed.audit.wording import (
    METRICS,
    Figures,
    by_attribute,
    class_totals,
    classes_of,
    counted,
    extent,
    group_word,
    interval,
    label,
    metrics_of,
    selection_of,
    unit_word,
    worst,
)
from hbdp_fed.report.explained import limits_of
from hbdp_fed.report.rendering import flat
from hbdp_fed.report.shareable import drawable
from hbdp_fed.report.suppression import HIDDEN, Withheld, is_withheld

# A table of more classes is no help: the picture has the largest.
_CLASS_COLUMNS = 12
_SKIPPED = 50


def course(summary: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics that rounds were judged by."""
    names = [*metrics_of(summary), *(name for name in METRICS if name not in metrics_of(summary))]
    return [name for name in names if any(name in entry for entry in rounds)]


def utility_view(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says of the released model's worth: overall, by class, by hospital and by subgroup."""
    metrics, utility = metrics_of(summary), summary["utility"]
    units = summary.get("units") or {}
    word = group_word(summary.get("partition"))
    subgroups = summary.get("utility_by_subgroup") or []
    return {
        "metrics": metrics,
        "labels": {name: label(name, units) for name in {*METRICS, *metrics}},
        "validation": summary.get("utility_validation") or {},
        "judged_on": "" if is_withheld(utility, ("records", "groups")) else extent(utility, word),
        "intervals": any(interval(name, utility) for name in metrics),
        "classes": [
            (name, {metric: f"{metric}_{index}" for metric in metrics if f"{metric}_{index}" in utility})
            for index, name in classes_of(summary)
        ],
        "per_hospital": summary.get("utility_per_hospital") or [],
        "worst_hospital": summary.get("worst_hospital"),
        "subgroups": [
            (attribute.replace("_", " "), entries, _lowest(metrics, entries))
            for attribute, entries in by_attribute(subgroups).items()
        ],
        "matrix": summary.get("utility_matrix"),
        "matrix_worst": _worst_cell(summary.get("utility_matrix")),
        "selection": selection_of(summary),
        "point": _point(utility),
        "word": word,
    }


def _lowest(metrics: Sequence[str], entries: Sequence[Figures]) -> Figures | None:
    """Whom the first metric serves worst, where there is somebody to compare with."""
    return _worst_shown(metrics[0], entries) if metrics and len(entries) > 1 else None


def _worst_shown(name: str, entries: Sequence[Figures]) -> Figures | None:
    return worst(name, [entry for entry in entries if not isinstance(entry.get(name), Withheld)])


def _worst_cell(matrix: Mapping[str, Any] | None) -> tuple[str, str] | None:
    """Model and hospital of the worst cell."""
    if not matrix:
        return None
    name = matrix["metric"]
    cells = [
        {name: value, "model": row["model"], "hospital": hospital}
        for row in matrix["rows"]
        for hospital, value in zip(matrix["hospitals"], row["values"], strict=True)
    ]
    cell = _worst_shown(name, cells)
    return None if cell is None else (cell["model"], cell["hospital"])


def _point(utility: Figures) -> str:
    """The operating point that validation chose, in words; empty where there is none."""
    point = utility.get("point") or ({"threshold": utility["threshold"]} if "threshold" in utility else {})
    return "; ".join(f"{name.replace('_', ' ')} {_values(value)}" for name, value in point.items() if value is not None)


def _values(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_values(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_values(part) for part in value)
    return show_number(value)


def data_view(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says of who holds what, and of what was left out."""
    partition = summary.get("partition") or {}
    totals, skipped = class_totals(drawable(summary).get("partition") or {}), list(summary.get("skipped") or [])
    count = summary["skipped_count"]
    return {
        "partition": partition,
        "class_columns": [name for name in totals if name != str(HIDDEN)] if len(totals) <= _CLASS_COLUMNS else [],
        "skipped": skipped[:_SKIPPED],
        "skipped_more": max(len(skipped) - _SKIPPED, 0),
        "skipped_records": f"{count} records"
        if isinstance(count, Withheld)
        else counted(count, "record")
        if count
        else "",
    }


def sites_view(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What each hospital is like: its kind, scanner, computer and line; nothing where all are alike."""
    sites = summary.get("sites") or {}
    hospitals = sites.get("hospitals") or []
    alike = all({**own, "name": ""} == {**hospitals[0], "name": ""} for own in hospitals)
    return {
        "sites": [] if alike else [{**own, "scanner": own["scanner"] or {}} for own in hospitals],
        "sites_name": sites.get("name"),
    }


def participation_view(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says of who took part, and of the simulated clock; nothing of an older summary, which has neither.

    ``slowest`` is whom most rounds waited for; None where several held up as many.
    """
    time = summary.get("time") or {}
    waited = time.get("waited_for") or {}
    slowest = [name for name, share in waited.items() if share == max(waited.values())]
    participation = summary.get("participation") or {}
    return {
        "attending": participation.get("hospitals") or [],
        "attendance": _attendance(participation),
        "simulated_s": time.get("simulated_s"),
        "waited_for": waited,
        "slowest": slowest[0] if len(slowest) == 1 and len(waited) > 1 else None,
    }


def _attendance(participation: Mapping[str, Any]) -> str:
    """Of an older summary, which does not tell hospitals apart: how many answers came."""
    if participation.get("expected") is None:
        return ""
    expected, completed, failed = (participation.get(name) or 0 for name in ("expected", "completed", "failed"))
    return f"Of {expected:,} answers that were expected, {completed:,} came and {failed:,} failed."


def settings_view(
    summary: Mapping[str, Any], settings: Mapping[str, Any] | None, environment: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The settings, or the hyperparameters of the summary where nobody gave them; software and machine."""
    return {
        "whole_settings": settings is not None,
        "settings": list(flat(summary.get("hyperparameters") or {} if settings is None else settings)),
        "environment": list(flat(environment or {})),
        "ledger": summary.get("ledger"),
        "limit_lines": limits_of(unit_word(summary)),
    }
