"""The page about one run for people: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hbdp_fed.audit.utility_figures import as_png, training_figure
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
    metric,
    metrics_of,
    plural,
    selection_of,
    with_interval,
    worst,
    written,
)
from hbdp_fed.dpsgd import EFFECTIVELY_GAUSSIAN

_NO_PICTURES: Mapping[str, bytes] = MappingProxyType({})
_DASH = "–"
_CARDS = 2
_PLACED = {"partition", "matrix", "subgroups", "participation"}
# A table of more classes is no help: the picture has the largest.
_CLASS_COLUMNS = 12
_SKIPPED = 50
# Percentages have one decimal.
_SHOWN = 0.001


def render_report(
    summary: Mapping[str, Any],
    *,
    history: Sequence[Mapping[str, Any]] | None = None,
    reconstructions: Mapping[str, bytes] = _NO_PICTURES,
    pictures: Mapping[str, bytes] = _NO_PICTURES,
) -> str:
    """The page as HTML, with its pictures inside.

    Args:
        summary: A run's summary as it is read from ``summary.json``. Of its figures of utility, what is not there is
            left out of the page.
        history: A mapping a round with ``round`` and the metrics on validation; left out, the summary's
            ``validation_history``.
        reconstructions: By attack and surface, the picture of its best reconstructions, a PNG.
        pictures: PNGs by name, as in :func:`hbdp_fed.audit.summary_figures`: ``partition``, ``matrix``, ``subgroups``
            and ``participation`` appear where they belong, any other one at the end under its name.
    """
    rounds = list((summary.get("validation_history") or []) if history is None else history)
    shown = {name: _inline(png) for name, png in pictures.items()}
    if rounds:
        chosen = summary["utility"].get("round")
        shown["training"] = _inline(as_png(training_figure(rounds, _course(summary, rounds), chosen=chosen)))
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=f"{summary['dataset']} under epsilon {show_number(summary['privacy']['eps'])}",
            summary=summary,
            pictures=shown,
            more_pictures=[name for name in pictures if name not in _PLACED],
            reconstructions=_rebuilt(summary, reconstructions),
            rounds=rounds,
            course=_course(summary, rounds),
            **_risk(summary),
            **_utility(summary),
            **_data(summary),
            **_participation(summary),
            summed=summary.get("secure_aggregation"),
        )
    )


def show_number(value: float | str | None) -> str:
    """Four significant digits; an en dash for what does not exist. ``"inf"`` stays a word."""
    if value is None:
        return _DASH
    return value if isinstance(value, str) else f"{value:.4g}"


def show_percent(value: float | None) -> str:
    """One decimal; an en dash for what does not exist. Only certainty is written as 100.0%, only never as 0.0%."""
    if value is None:
        return _DASH
    text = f"{value:.1%}"
    if text == "100.0%" and value < 1:
        return ">99.9%"
    return "<0.1%" if text == "0.0%" and value > 0 else text


def show_similarity(value: float | str | None) -> str:
    """Three decimals of what is 1 at best; an en dash for what does not exist. Only 1 itself is written as 1.000."""
    if value is None or isinstance(value, str):
        return show_number(value)
    text = f"{value:.3f}"
    return ">0.999" if text == "1.000" and value < 1 else text


def show_count(value: int | None) -> str:
    """All digits, by thousands; an en dash for what nobody counted."""
    return _DASH if value is None else f"{value:,}"


def show_duration(seconds: float | None) -> str:
    """``0.42 s``, ``3 min 20 s``, ``5 h 07 min``; an en dash for what nobody counted."""
    if seconds is None:
        return _DASH
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    if seconds < 3599.5:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hbdp_fed.audit", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "number": show_number,
        "percent": show_percent,
        "similarity": show_similarity,
        "sentence": lambda text: text[:1].upper() + text[1:],
        "points": lambda share: f"{100 * share:.1f} percentage points",
        # Along a line of 100%.
        "place": lambda share: f"{100 * min(max(share, 0.0), 1.0):.2f}%",
        "count": show_count,
        "duration": show_duration,
        "plural": plural,
        "meaning": lambda name: metric(name).meaning,
    }
    environment.globals |= {
        "figure": lambda name, figures: written(name, figures.get(name), missing=_DASH),
        "interval": interval,
        "with_interval": lambda name, figures: with_interval(name, figures, missing=_DASH),
    }
    return environment


def _inline(png: bytes) -> str:
    return base64.b64encode(png).decode()


def _course(summary: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics that rounds were judged by."""
    names = [*metrics_of(summary), *(name for name in METRICS if name not in metrics_of(summary))]
    return [name for name in names if any(name in entry for entry in rounds)]


def _risk(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says of attacks, bounds and noise."""
    noise = summary["noise_to_resolution"]
    models = [
        {**entry, "name": name, "attacks": [_attack(attack) for attack in entry["attacks"]]}
        for name, entry in summary["risk"].items()
    ]
    attacks = [attack for model in models for attack in model["attacks"]]
    return {
        "models": models,
        "attacks": attacks,
        "strongest": [found for model in models for found in _strongest(model["attacks"])],
        "criteria": _criteria(attacks),
        "surfaces": {attack["surface"] for attack in attacks},
        "membership": [attack for attack in attacks if attack["kind"] == "membership"],
        "laws": [attack for attack in attacks if attack.get("law")],
        "achieved": {"reconstruction": "rebuilt", "identification": "named", "membership": "recognised"},
        "hospitals": list(zip(summary["privacy"]["hospitals"], noise, strict=True)),
        # Unknown, where there is no noise, is no reason for a warning.
        "coarse": [entry["name"] for entry in noise if entry["effectively_gaussian"] is False],
        "threshold": EFFECTIVELY_GAUSSIAN,
    }


def _attack(attack: Mapping[str, Any]) -> dict[str, Any]:
    """An attack's entry with what the page says besides."""
    kind, interval = attack.get("kind", "reconstruction"), attack["success_rate_ci95"]
    chance = attack["control_success_rate" if kind == "reconstruction" else "baseline_success_rate"]
    bound, optimal = attack.get("bound"), attack.get("optimal")
    # A gap that no decimal shows is none.
    gap = None if bound is None or optimal is None or bound - optimal < _SHOWN / 2 else bound - optimal
    return {
        "bound_prior": None,
        "above_bound": None,
        **attack,
        "kind": kind,
        "words": _words(attack),
        "bound": bound,
        "optimal": optimal,
        "chance": chance,
        "leaks": interval is not None and interval[0] > (chance or 0.0),
        "gap": gap,
    }


def _words(attack: Mapping[str, Any]) -> str:
    """The attack by name and surface, the usual surface left out."""
    name, surface = (str(attack[key]).replace("_", " ") for key in ("name", "surface"))
    return name if surface == "gradient" else f"{name} on the {surface}"


def _strongest(attacks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each kind the attack that had the most success, with how many there were."""
    kinds = dict.fromkeys(attack["kind"] for attack in attacks)
    alike = [[attack for attack in attacks if attack["kind"] == kind] for kind in kinds]
    # Of equal ones the first.
    return [{**sorted(some, key=_success, reverse=True)[0], "of": len(some)} for some in alike]


def _success(attack: Mapping[str, Any]) -> float:
    """The success rate; below all others where there was nothing to attack."""
    return -1.0 if attack["success_rate"] is None else float(attack["success_rate"])


def _criteria(attacks: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Each criterion of success once, after the attacks that it is of."""
    names: dict[str, list[str]] = {}
    for attack in attacks:
        names.setdefault(attack["criterion"], []).append(attack["words"])
    return [(", ".join(words), criterion) for criterion, words in names.items()]


def _rebuilt(summary: Mapping[str, Any], pictures: Mapping[str, bytes]) -> list[tuple[Mapping[str, Any], str]]:
    """Each picture of reconstructions with its attack's entry; without one, with its name alone."""
    entries = {
        f"{attack['name']}_{attack['surface']}": _attack(attack)
        for entry in summary["risk"].values()
        for attack in entry["attacks"]
    }
    return [
        (entries.get(name, {"words": name.replace("_", " "), "success_rate": None}), _inline(png))
        for name, png in pictures.items()
    ]


def _utility(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says of the released model's worth: overall, by class, by hospital and by subgroup."""
    metrics, utility = metrics_of(summary), summary["utility"]
    units = summary.get("units") or {}
    word = group_word(summary.get("partition"))
    subgroups = summary.get("utility_by_subgroup") or []
    return {
        "metrics": metrics,
        "cards": metrics[:_CARDS],
        "labels": {name: label(name, units) for name in {*METRICS, *metrics}},
        "validation": summary.get("utility_validation") or {},
        "judged_on": extent(utility, word),
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
    return worst(metrics[0], entries) if metrics and len(entries) > 1 else None


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
    cell = worst(name, cells)
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


def _data(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says of who holds what, and of what was left out."""
    partition = summary.get("partition") or {}
    totals, skipped = class_totals(partition), list(summary.get("skipped") or [])
    return {
        "partition": partition,
        "class_columns": list(totals) if len(totals) <= _CLASS_COLUMNS else [],
        "skipped": skipped[:_SKIPPED],
        "skipped_more": max(len(skipped) - _SKIPPED, 0),
        "skipped_records": counted(len(skipped), "record"),
    }


def _participation(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says of who took part, and of the simulated clock; nothing of an older summary, which has neither.

    ``slowest`` is whom most rounds waited for; None where several held up as many.
    """
    time = summary.get("time") or {}
    waited = time.get("waited_for") or {}
    slowest = [name for name, share in waited.items() if share == max(waited.values())]
    return {
        "attending": (summary.get("participation") or {}).get("hospitals") or [],
        "simulated_s": time.get("simulated_s"),
        "waited_for": waited,
        "slowest": slowest[0] if len(slowest) == 1 and len(waited) > 1 else None,
    }
