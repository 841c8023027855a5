"""By how much a setting's utility differs from another's, over training runs and patients at once.

Two things are left to chance: what training came to (initial weights, batches, noise, how records were dealt) and whom
the test split holds. Runs with the same seed on both sides make pairs, and with d_s the difference of pair s,

    d = mean of d_s,    v = s^2 / n + b^2,

where s^2 / n is the variance of the mean over n pairs, and b the standard deviation of d over a paired bootstrap of the
patients with all models as they are. The first says nothing of other patients, because all runs are judged on the same
ones, and the second nothing of other runs; both add up. The interval is d ± t sqrt(v), with the quantile of Student's
law at the degrees of freedom of Welch and Satterthwaite for the two parts, the second of which counts as known:
(s^2 / n + b^2)^2 / ((s^2 / n)^2 / (n - 1)) (Satterthwaite 1946, Biometrics Bulletin 2, doi 10.2307/3002019). Patients
who suit one run's model more than another's are counted in both parts, so the interval errs on the wide side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import t as student

from hbdp_fed.training.bootstrap import Judged, resampled_differences
from hbdp_fed.training.metrics import IntArray
from hbdp_fed.training.tasks import Task, figures


@dataclass(frozen=True)
class SeedDifference:
    """One figure's difference.

    Attributes:
        mean: Over the pairs.
        low: The lower end of the 95% interval; None where nothing is known of the deviation.
        high: The upper end.
        p_value: Two-sided, of there being no difference; None where there is no interval.
        pairs: How many pairs of runs there are. Of a single pair, the interval is over patients alone.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    pairs: int


def seed_differences(
    task: Task,
    first: Sequence[Judged],
    second: Sequence[Judged],
    groups: IntArray | None,
    *,
    replicates: int,
    generator: torch.Generator,
) -> dict[str, SeedDifference]:
    """By how much each figure of the second side differs from the first's.

    Args:
        task: Whose figures.
        first: What is known about the same N test records under each run's model, with its operating point; a run a
            seed.
        second: Likewise, in the order of the same seeds.
        groups: int64 (N,), equal for records that belong together; None where every record stands for itself.
        replicates: Resamples of the bootstrap; 1000 is usual.
        generator: Of the draws, on the CPU.

    Returns:
        By figure that every run has.

    Raises:
        ValueError: if the sides hold no runs or not as many, or were judged on different records.
    """
    if len(first) != len(second):
        raise ValueError(f"runs are compared in pairs, got {len(first)} and {len(second)}")
    resampled = resampled_differences(task, first, second, groups, replicates=replicates, generator=generator)
    pairs = [(figures(task, *before), figures(task, *after)) for before, after in zip(first, second, strict=True)]
    found: dict[str, SeedDifference] = {}
    for name, values in resampled.items():
        differences = [_less(before.get(name), after.get(name)) for before, after in pairs]
        known = [value for value in differences if value is not None]
        if len(known) == len(pairs):
            existing = values[~np.isnan(values)]
            patients = float(existing.var(ddof=1)) if 2 * len(existing) > max(len(values), 2) else math.nan
            found[name] = _difference(known, patients)
    return found


def _less(before: float | None, after: float | None) -> float | None:
    if before is None or after is None or not math.isfinite(after - before):
        return None
    return after - before


def _difference(values: Sequence[float], patients: float) -> SeedDifference:
    """From the pairs' differences and the mean's variance over patients (NaN where unknown)."""
    pairs = len(values)
    mean = float(np.mean(values))
    runs = float(np.var(values, ddof=1)) / pairs if pairs > 1 else 0.0
    variance = runs + patients
    if math.isnan(variance):
        return SeedDifference(mean, None, None, None, pairs)
    if variance == 0:
        return SeedDifference(mean, mean, mean, 1.0 if mean == 0 else 0.0, pairs)
    freedom = variance**2 / (runs**2 / (pairs - 1)) if runs > 0 else math.inf
    half = float(student.ppf(0.975, freedom)) * math.sqrt(variance)
    p_value = 2 * float(student.sf(abs(mean) / math.sqrt(variance), freedom))
    return SeedDifference(mean, mean - half, mean + half, p_value, pairs)
