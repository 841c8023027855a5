"""How the figures of a summary are named, written and compared, in one place for the terminal, the page and tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Figures = Mapping[str, Any]
"""What a model came to on some records: a value a metric, ``records``, ``groups``, and ``ci95`` by metric."""


@dataclass(frozen=True)
class Metric:
    """A figure of merit.

    Attributes:
        label: What people read.
        meaning: One sentence about it.
        lower_is_better: Whether a small value is the good one.
        share: Whether it lies in [-1, 1], so that three decimals say enough.
    """

    label: str
    meaning: str
    lower_is_better: bool = False
    share: bool = True


METRICS: Mapping[str, Metric] = {
    "mcc": Metric("MCC", "Matthews correlation of decisions and truth: 1 is perfect, 0 is chance."),
    "auroc": Metric("AUROC", "How often a record with a finding scores above one without: 1 is perfect, 0.5 chance."),
    "accuracy": Metric("accuracy", "The share of right decisions."),
    "balanced_accuracy": Metric("balanced accuracy", "The share of right decisions, averaged over classes."),
    "ece": Metric(
        "calibration error", "The mean gap between stated and true probability: 0 is perfect.", lower_is_better=True
    ),
    "dice": Metric("Dice", "Overlap of outline and truth: 1 is perfect, 0 is none."),
    "hd95": Metric(
        "HD95",
        "The distance between outline and truth that 95% of their points keep: 0 is perfect.",
        lower_is_better=True,
        share=False,
    ),
}
"""Every metric that a summary may name, in the order in which people read them."""

_OF_A_CLASS = re.compile(r"(?P<metric>.+)_(?P<index>\d+)")


def _known(name: str) -> Metric | None:
    of_class = _OF_A_CLASS.fullmatch(name)
    return METRICS.get(name) or METRICS.get(of_class["metric"] if of_class else "")


def is_metric(name: str) -> bool:
    """Whether that is a metric of :data:`METRICS`, such as ``dice``, or one class's, such as ``dice_1``."""
    return _known(name) is not None


def metric(name: str) -> Metric:
    """The entry of :data:`METRICS` for ``mcc`` as for one class's ``dice_1``; an unknown name stands for itself."""
    return _known(name) or Metric(name.replace("_", " "), "")


def label(name: str, units: Mapping[str, str] | None = None) -> str:
    """What people read for ``name``, with its unit where one is given."""
    unit = (units or {}).get(name)
    return f"{metric(name).label} ({unit})" if unit else metric(name).label


def metrics_of(summary: Mapping[str, Any]) -> list[str]:
    """The names of a summary's metrics, in its order; from its figures where an older one does not list them."""
    return list(summary.get("metrics") or (name for name in METRICS if name in summary["utility"]))


def selection_of(summary: Mapping[str, Any]) -> list[str]:
    """The names of the metrics that chose the released round."""
    return list(summary.get("selection") or metrics_of(summary)[:1])


def classes_of(summary: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Index and name of each class that has figures of its own in ``utility``, such as ``dice_1``."""
    found = (_OF_A_CLASS.fullmatch(name) for name in summary["utility"])
    indices = sorted({int(match["index"]) for match in found if match and match["metric"] in METRICS})
    names = summary.get("class_names") or []
    return [(index, names[index] if index < len(names) else f"class {index}") for index in indices]


def number(value: float | str | None) -> float:
    """A figure as a float, ``nan`` for one that does not exist; summaries write infinity as ``"inf"``."""
    return math.nan if value is None else float(value)


def written(name: str, value: float | str | None, *, missing: str = "-") -> str:
    """A figure of the metric ``name``: three decimals, or as many digits of a distance as say something."""
    figure = number(value)
    if math.isnan(figure):
        return missing
    if math.isinf(figure):
        return "inf" if figure > 0 else "-inf"
    if metric(name).share:
        return f"{figure:.3f}"
    return f"{figure:.2f}" if abs(figure) < 10 else f"{figure:.1f}"


def signed(name: str, value: float | str | None) -> str:
    """A difference of the metric ``name``, with its sign."""
    text = written(name, value)
    return f"+{text}" if value is not None and number(value) > 0 else text


def over_runs(name: str, values: Sequence[float | str | None]) -> str:
    """``0.867 ± 0.008``: mean and standard deviation of a figure over runs; ``-`` where some run does not have it."""
    figures = np.array([number(value) for value in values])
    mean = written(name, float(figures.mean()))
    # No deviation of one value, and none of infinite ones.
    if len(figures) == 1 or not np.isfinite(figures).all():
        return mean
    return f"{mean} ± {written(name, float(figures.std(ddof=1)))}"


def interval(name: str, figures: Figures) -> str:
    """The 95% interval of a figure, ``0.473 to 0.552``; empty where there is none."""
    ends = (figures.get("ci95") or {}).get(name)
    if ends is None or any(end is None for end in ends):
        return ""
    return f"{written(name, ends[0])} to {written(name, ends[1])}"


def with_interval(name: str, figures: Figures, *, missing: str = "-") -> str:
    """``0.512 (0.473 to 0.552)``, or the figure alone where it has no interval."""
    value, ends = written(name, figures.get(name), missing=missing), interval(name, figures)
    return f"{value} ({ends})" if ends else value


def worst(name: str, entries: Iterable[Figures]) -> Figures | None:
    """The entry with the worst figure of that name, the first of equal ones; None where no entry has one."""
    judged = [entry for entry in entries if not math.isnan(number(entry.get(name)))]
    choose = max if metric(name).lower_is_better else min
    return choose(judged, key=lambda entry: number(entry[name]), default=None)


def best(name: str, entries: Iterable[Figures]) -> Figures | None:
    """The entry with the best figure of that name, the first of equal ones; None where no entry has one."""
    judged = [entry for entry in entries if not math.isnan(number(entry.get(name)))]
    choose = min if metric(name).lower_is_better else max
    return choose(judged, key=lambda entry: number(entry[name]), default=None)


def by_attribute(subgroups: Sequence[Figures]) -> dict[str, list[Figures]]:
    """The subgroups of each attribute, both in the order in which they come."""
    found: dict[str, list[Figures]] = {}
    for entry in subgroups:
        found.setdefault(str(entry["attribute"]), []).append(entry)
    return found


def group_word(partition: Mapping[str, Any] | None) -> str | None:
    """What a hospital's groups are (``patient``, ``lesion``); None where every record stands for itself."""
    word = (partition or {}).get("group")
    return None if word in (None, "", "record") else str(word)


def unit_word(summary: Mapping[str, Any]) -> str:
    """Whom a run's budget is for: ``record``, or what its data set calls whose records they are."""
    return str(summary["privacy"].get("unit_word") or "record")


def plural(word: str, count: float = 2) -> str:
    """The word as it follows that number."""
    if count == 1:
        return word
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x", "ch")) else f"{word}s"


def counted(count: int, word: str) -> str:
    """``1 record``, ``3,954 records``."""
    return f"{count:,} {plural(word, count)}"


def extent(figures: Figures, word: str | None) -> str:
    """On how much a figure rests: ``624 records, 600 patients``; empty where nobody counted.

    Args:
        figures: With ``records`` and, where records were grouped, ``groups``.
        word: What a group is, from :func:`group_word`.
    """
    records, groups = figures.get("records"), figures.get("groups")
    parts = [] if records is None else [counted(records, "record")]
    if groups is not None and word is not None:
        parts.append(counted(groups, word))
    return ", ".join(parts)


def class_totals(partition: Mapping[str, Any]) -> dict[str, int]:
    """Training records of each class over all hospitals, the largest class first."""
    totals: dict[str, int] = {}
    for hospital in partition.get("hospitals") or ():
        for name, count in (hospital.get("classes") or {}).items():
            totals[name] = totals.get(name, 0) + count
    return dict(sorted(totals.items(), key=lambda item: -item[1]))
