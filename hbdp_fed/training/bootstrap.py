"""How sure a figure is: resampling of the judged records, by patient where a patient has several.

Records of one patient (or lesion) resemble each other, so they are drawn or left out together: the cluster bootstrap
(Davison and Hinkley 1997, section 3.8, doi 10.1017/CBO9780511802843; Field and Welsh 2007, doi
10.1111/j.1467-9868.2007.00593.x). Drawing record by record would take copies for news and give too short intervals.

What varies is which records were judged. The model and its operating point stay as they are, so an interval says
nothing of another training run; pass several runs on a side of :func:`paired_difference` to average over them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hbdp_fed.training.metrics import FloatArray, IntArray
from hbdp_fed.training.tasks.contract import Evidence, Point, Task, count_records

Interval = tuple[float, float]
"""The lower and the upper end."""

Judged = tuple[Evidence, Point]
"""What is known about each record under one model, and that model's operating point."""

_ENTRIES_A_CHUNK = 2**21
"""Weights are made for so many resamples at a time that their matrix stays within 16 MiB."""


@dataclass(frozen=True)
class Difference:
    """By how much one side differs from another; all None where the figure, or the interval, does not exist.

    Attributes:
        value: The second side's figure less the first's.
        low: The lower end of its interval.
        high: The upper end.
    """

    value: float | None
    low: float | None
    high: float | None


def resampling_weights(groups: IntArray, replicates: int, generator: torch.Generator) -> Iterator[FloatArray]:
    """Resamples of the records, a few rows at a time: how often each record is in each of ``replicates`` resamples.

    A resample draws as many groups as there are, with replacement; a record is in it as often as its group was drawn.

    Args:
        groups: int64 (N,), equal for records that belong together; N is at least 1.
        replicates: Resamples in all, at least 1.
        generator: Of the draws, on the CPU.

    Yields:
        float64 (b, N), ``replicates`` rows in all.
    """
    names, group_of_record = np.unique(groups, return_inverse=True)
    rows_a_chunk = max(1, _ENTRIES_A_CHUNK // len(groups))
    for start in range(0, replicates, rows_a_chunk):
        rows = min(rows_a_chunk, replicates - start)
        drawn = torch.randint(len(names), (rows, len(names)), generator=generator).numpy()
        # Each row counts in a range of its own, so that one call counts for all of them.
        drawn += np.arange(rows)[:, None] * len(names)
        counts = np.bincount(drawn.ravel(), minlength=rows * len(names)).reshape(rows, len(names))
        yield counts[:, group_of_record].astype(np.float64)


def _check(everybody: Sequence[Judged], groups: IntArray | None, replicates: int, level: float) -> IntArray:
    """The groups, after a look at every argument.

    Raises:
        ValueError: if an argument cannot be used or the evidence is not about the same records.
    """
    if replicates < 1:
        raise ValueError(f"replicates must be at least 1, got {replicates}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    counts = {count_records(evidence) for evidence, _ in everybody}
    truths = [evidence["labels"] for evidence, _ in everybody if "labels" in evidence]
    if len(counts) != 1 or not all(np.array_equal(truth, truths[0]) for truth in truths):
        raise ValueError("only models that were judged on the same records can be compared on resamples of them")
    (records,) = counts
    if groups is None:
        return np.arange(records)
    if groups.shape != (records,):
        raise ValueError(f"groups must have one entry for each of {records} records, got shape {groups.shape}")
    return groups


def _figures_of(task: Task, side: Sequence[Judged], weights: FloatArray) -> dict[str, FloatArray]:
    """Each figure's mean over the models of a side, (B,) under weights (B, N)."""
    found = [task.statistics(evidence, point, weights) for evidence, point in side]
    return {name: np.mean([one[name] for one in found], axis=0) for name in found[0]}


def _resampled(
    task: Task, sides: Sequence[Sequence[Judged]], resamples: Iterator[FloatArray]
) -> list[dict[str, FloatArray]]:
    """Each side's figures in every resample, (replicates,)."""
    chunks = [[_figures_of(task, side, weights) for side in sides] for weights in resamples]
    return [
        {name: np.concatenate([chunk[index][name] for chunk in chunks]) for name in chunks[0][index]}
        for index in range(len(sides))
    ]


def _interval(values: FloatArray, groups: IntArray, level: float) -> Interval | None:
    """The percentile interval over the resamples in which a figure exists; None if too little is known of it."""
    existing = values[~np.isnan(values)]
    if len(np.unique(groups)) < 2 or 2 * len(existing) < len(values):
        return None
    low, high = np.quantile(existing, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def confidence_intervals(
    task: Task,
    evidence: Evidence,
    point: Point,
    groups: IntArray | None,
    *,
    replicates: int,
    generator: torch.Generator,
    level: float = 0.95,
) -> dict[str, Interval | None]:
    """The percentile interval of each figure.

    Args:
        task: Whose figures.
        evidence: About N records, at least one.
        point: The operating point.
        groups: int64 (N,), equal for records that belong together; None where every record stands for itself.
        replicates: Resamples; 1000 is usual.
        generator: Of the draws, on the CPU.
        level: The share of resamples within the interval, in (0, 1).

    Returns:
        By figure, the interval over the resamples in which the figure exists. None where it exists in less than half
        of them, and where there are fewer than two groups.

    Raises:
        ValueError: if an argument is none of these.
    """
    side = [(evidence, point)]
    groups = _check(side, groups, replicates, level)
    (drawn,) = _resampled(task, [side], resampling_weights(groups, replicates, generator))
    return {name: _interval(values, groups, level) for name, values in drawn.items()}


def resampled_differences(
    task: Task,
    first: Sequence[Judged],
    second: Sequence[Judged],
    groups: IntArray | None,
    *,
    replicates: int,
    generator: torch.Generator,
) -> dict[str, FloatArray]:
    """The differences that :func:`paired_difference` takes its intervals from, one a resample.

    Returns:
        By figure that both sides have, float64 (replicates,): the second side's mean figure less the first's; NaN where
        one of them does not exist.

    Raises:
        ValueError: as :func:`paired_difference`.
    """
    if not first or not second:
        raise ValueError("each side must hold at least one model's evidence")
    groups = _check([*first, *second], groups, replicates, 0.95)
    before, after = _resampled(task, [first, second], resampling_weights(groups, replicates, generator))
    return {name: after[name] - before[name] for name in before if name in after}


def paired_difference(
    task: Task,
    first: Sequence[Judged],
    second: Sequence[Judged],
    groups: IntArray | None,
    *,
    replicates: int,
    generator: torch.Generator,
    level: float = 0.95,
) -> dict[str, Difference]:
    """By how much each figure differs between two sides that were judged on the same records, second minus first.

    Both sides are computed on the same resamples. So what makes a resample easy or hard for both cancels, and the
    interval is of the difference itself: it can exclude 0 where the two sides' own intervals overlap.

    Args:
        task: Whose figures.
        first: One or more models' evidence about the same N records (at least one) in the same order, with their
            points: for example one a seed. The side's figure is the mean of theirs.
        second: Likewise, of any number of models.
        groups: int64 (N,), equal for records that belong together; None where every record stands for itself.
        replicates: Resamples; 1000 is usual.
        generator: Of the draws, on the CPU.
        level: The share of resamples within the interval, in (0, 1).

    Returns:
        By figure that both sides have. No interval where :func:`confidence_intervals` would give none.

    Raises:
        ValueError: if an argument is none of these, or the models were judged on different records.
    """
    groups = _check([*first, *second], groups, replicates, level)
    drawn = resampled_differences(task, first, second, groups, replicates=replicates, generator=generator)
    ones = np.ones((1, len(groups)))
    before, after = _figures_of(task, first, ones), _figures_of(task, second, ones)
    differences: dict[str, Difference] = {}
    for name, values in drawn.items():
        value = float((after[name] - before[name])[0])
        low, high = _interval(values, groups, level) or (None, None)
        differences[name] = Difference(None if np.isnan(value) else value, low, high)
    return differences
