"""Utility of two sides of runs, with a paired interval where all of them were judged on the same test records."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hbdp_fed.audit import wording
from hbdp_fed.errors import DataFileError
from hbdp_fed.training.bootstrap import Difference, paired_difference
from hbdp_fed.training.tasks import Evidence, Point, figures, task_called

ABOUT_RECORDS = ("names", "groups")
"""Arrays of ``predictions.npz`` that say who the test records are; all others are what is known about them."""

_BROKEN = (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Judgement:
    """What a run's released model said of each test record.

    Attributes:
        evidence: What is known about each of them.
        records: Who they are: their names and groups, as far as the data set has them.
        point: The operating point.
    """

    evidence: Evidence
    records: Mapping[str, NDArray[Any]]
    point: Point


@dataclass(frozen=True)
class Utility:
    """One figure of utility on both sides.

    Attributes:
        name: The metric, ``dice_1`` for one class's.
        label: What people read.
        first: Of each run of the first side; None where it does not exist.
        second: Of the second side.
        first_ci95: The interval of a side that is one run; None otherwise.
        second_ci95: Likewise.
        difference: The mean of the second side less that of the first, with its paired 95% interval; None where the
            sides were not judged on the same records.
    """

    name: str
    label: str
    first: tuple[float | None, ...]
    second: tuple[float | None, ...]
    first_ci95: tuple[float, float] | None = None
    second_ci95: tuple[float, float] | None = None
    difference: Difference | None = None


def read_predictions(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a run's ``predictions.npz``.

    Raises:
        DataFileError: if the file is missing or broken, or says nothing about any record.
    """
    try:
        # Never unpickle: a data file must not be able to run code.
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise DataFileError(path, "there is no such file") from error
    except _BROKEN as error:
        raise DataFileError(path, f"cannot be read ({error})") from error
    if not set(arrays) - set(ABOUT_RECORDS):
        raise DataFileError(path, "holds nothing that is known about test records")
    return arrays


def judgement_of(arrays: Mapping[str, NDArray[Any]], point: Point) -> Judgement:
    """What was read by :func:`read_predictions`, with the operating point of the run's summary."""
    return Judgement(
        evidence={name: values for name, values in arrays.items() if name not in ABOUT_RECORDS},
        records={name: values for name, values in arrays.items() if name in ABOUT_RECORDS},
        point=point,
    )


def obstacle(summaries: Sequence[Mapping[str, Any]], judgements: Sequence[Judgement]) -> str | None:
    """Why these runs cannot be compared record by record: in what they differ; None if nothing stands in the way."""
    wanted = _identity(summaries[0], judgements[0])
    for summary, judgement in zip(summaries[1:], judgements[1:], strict=True):
        for what, value in _identity(summary, judgement).items():
            if not _equal(value, wanted[what]):
                return f"their {what} differ"
    return None


def _identity(summary: Mapping[str, Any], judgement: Judgement) -> Mapping[str, Any]:
    """What has to be equal, by what to call it."""
    evidence = judgement.evidence
    return {
        "tasks": summary["task"],
        "data sets": summary["dataset"],
        "classes": summary.get("class_names"),
        "numbers of test records": {len(values) for values in evidence.values()},
        **{f"test records' {name}": judgement.records.get(name) for name in ABOUT_RECORDS},
        "test records' labels": evidence.get("labels"),
        # Of outlines, there are no labels; but an overlap exists only where the truth has the class.
        "test records' classes": {name: np.isnan(values) for name, values in evidence.items()},
    }


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return bool(np.array_equal(one, other))
    return bool(one == other)


def compare_utility(
    first: Sequence[tuple[Mapping[str, Any], Judgement]],
    second: Sequence[tuple[Mapping[str, Any], Judgement]],
    *,
    replicates: int,
    generator: torch.Generator,
) -> tuple[Utility, ...]:
    """Every figure of two sides that were judged on the same records (:func:`obstacle` is None).

    The interval is of the difference of the two means under a paired bootstrap over patients (lesions, or records that
    stand for themselves): both sides are computed on the same resamples, so that what makes a resample hard for both
    cancels. It says how sure the difference is for these models on other patients, not for other training runs, which
    the deviation over runs shows.

    Args:
        first: Summary and judgement of one run or several, as a rule one a seed.
        second: Likewise.
        replicates: Resamples, at least 1.
        generator: Of the draws, on the CPU.
    """
    task = task_called(first[0][0]["task"])
    sides = [[(judgement.evidence, judgement.point) for _, judgement in side] for side in (first, second)]
    differences = paired_difference(
        task, sides[0], sides[1], first[0][1].records.get("groups"), replicates=replicates, generator=generator
    )
    before, after = ([figures(task, *judged) for judged in side] for side in sides)
    return tuple(
        Utility(
            name=name,
            label=_label(name, first[0][0]),
            first=tuple(run[name] for run in before),
            second=tuple(run[name] for run in after),
            first_ci95=_own_interval(name, [summary for summary, _ in first]),
            second_ci95=_own_interval(name, [summary for summary, _ in second]),
            difference=difference,
        )
        for name, difference in differences.items()
    )


def utility_apart(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> tuple[Utility, ...]:
    """The figures of two sides as their summaries state them, without a difference."""
    names = dict.fromkeys(name for summary in (*first, *second) for name in _figures_in(summary))
    owner = {name: next(s for s in (*first, *second) if name in s["utility"]) for name in names}
    return tuple(
        Utility(
            name=name,
            label=_label(name, owner[name]),
            first=tuple(_value(summary, name) for summary in first),
            second=tuple(_value(summary, name) for summary in second),
            first_ci95=_own_interval(name, first),
            second_ci95=_own_interval(name, second),
        )
        for name in names
    )


def _figures_in(summary: Mapping[str, Any]) -> list[str]:
    known = [name for name in wording.metrics_of(summary) if name in summary["utility"]]
    return [*known, *(name for name in summary["utility"] if name not in known and wording.is_metric(name))]


def _value(summary: Mapping[str, Any], name: str) -> float | None:
    value = summary["utility"].get(name)
    return None if value is None else float(value)


def _own_interval(name: str, side: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    ends = (side[0]["utility"].get("ci95") or {}).get(name) if len(side) == 1 else None
    return None if ends is None or None in ends else (float(ends[0]), float(ends[1]))


def _label(name: str, summary: Mapping[str, Any]) -> str:
    """What people read for a metric, with its unit, or for one class's."""
    units, classes = summary.get("units") or {}, dict(wording.classes_of(summary))
    metric, _, index = name.rpartition("_")
    if name not in wording.METRICS and index.isdigit() and int(index) in classes:
        return f"{wording.label(metric, units)}, {classes[int(index)]}"
    return wording.label(name, units)
