"""How sure a success rate is, where records were attacked together and where each was attacked by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import torch
from scipy.stats import t as student
from torch import Tensor

Cluster = tuple[int, int]
"""How many records a cluster holds, and how many of them are successes."""

_UPPER = 0.975
"""Where a 95% interval ends, of both tails' 5%."""


def wilson_interval(successes: int, trials: int) -> tuple[float, float] | None:
    """Wilson's 95% interval for the proportion of independent trials (Wilson 1927); None without trials."""
    return _wilson(successes / trials, trials) if trials else None


def clustered_wilson(successes: Tensor, clusters: Tensor) -> tuple[float, float] | None:
    """A 95% interval for a proportion of records that come in clusters, such as the batches of several probes.

    The records of a probe share the model and the noise that met them: forty of them say less than forty probes of one.
    How much less is estimated from how the clusters differ. The variance of the proportion p over n_c clusters, a ratio
    of two sums (Cochran 1977, Sampling Techniques, chapter 3, on cluster sampling), is

        v = n_c / (n_c - 1) * sum over clusters of (successes - p * records)^2 / n^2,

    and the design effect v / (p (1 - p) / (n - 1)), what it is over its estimate for n independent records (Kish 1965,
    Survey Sampling, chapter 8). An effect below 1 is taken for chance, and for 1. In Wilson's interval n gives way to
    n / effect, times (t(n - 1) / t(n_c - 1))^2 of the quantiles of Student's law, because an effect estimated from few
    clusters is itself unsure: Korn and Graubard 1998, Survey Methodology 24, 193-201, who put it into Clopper's and
    Pearson's interval.

    Two cases leave nothing to estimate an effect from, and get Wilson's interval as if records were independent, too
    narrow if they are not: a proportion of 0 or 1, and a single cluster. The latter's interval says nothing about other
    clusters. Clusters of one record each are independent records, and get exactly Wilson's interval.

    Args:
        successes: bool (N,), a value a record.
        clusters: int64 (N,), the record's cluster, by any number.

    Returns:
        The ends; None without records.

    Raises:
        ValueError: if the lengths differ.
    """
    if successes.shape != clusters.shape or successes.dim() != 1:
        raise ValueError(f"every record needs a cluster, got {tuple(successes.shape)} and {tuple(clusters.shape)}")
    return wilson_of_clusters(cluster_counts(successes, clusters))


def cluster_counts(successes: Tensor, clusters: Tensor) -> tuple[Cluster, ...]:
    """What :func:`wilson_of_clusters` takes: a pair a cluster, in the order of their numbers.

    Args:
        successes: bool (N,), a value a record.
        clusters: int64 (N,), the record's cluster, by any number.
    """
    _, cluster, sizes = clusters.unique(return_inverse=True, return_counts=True)
    hits = torch.zeros(len(sizes), dtype=torch.int64).index_add_(0, cluster, successes.long())
    return tuple(zip(sizes.tolist(), hits.tolist(), strict=True))


def wilson_of_clusters(clusters: Sequence[Cluster]) -> tuple[float, float] | None:
    """:func:`clustered_wilson` of what :func:`cluster_counts` counted, in one audit or several; None without records.

    Raises:
        ValueError: if a cluster has more successes than records, or fewer than none.
    """
    if any(not 0 <= hits <= size for size, hits in clusters):
        raise ValueError(f"a cluster's successes must lie between 0 and its records, got {list(clusters)}")
    present = [(size, hits) for size, hits in clusters if size]
    records, successes = (sum(column) for column in zip(*present, strict=True)) if present else (0, 0)
    if not records:
        return None
    return _wilson(successes / records, _effective_records(present, records, successes / records))


def _effective_records(clusters: Sequence[Cluster], records: int, rate: float) -> float:
    """How many independent records would say as much."""
    count = len(clusters)
    if count in (1, records) or rate in (0.0, 1.0):
        return records
    sizes, hits = (torch.tensor(column, dtype=torch.float64) for column in zip(*clusters, strict=True))
    variance = count / (count - 1) * float((hits - rate * sizes).square().sum()) / records**2
    effect = max(1.0, variance * (records - 1) / (rate * (1 - rate)))
    return records / effect * float(student.ppf(_UPPER, records - 1) / student.ppf(_UPPER, count - 1)) ** 2


def _wilson(rate: float, records: float) -> tuple[float, float]:
    """Wilson's interval; ``records`` need not be a whole number."""
    z = NormalDist().inv_cdf(_UPPER)
    shrink = 1 + z**2 / records
    centre = (rate + z**2 / (2 * records)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / records + (z / (2 * records)) ** 2)
    # At these two the ends are exact, and only rounding says otherwise.
    return 0.0 if rate == 0 else max(centre - half, 0.0), 1.0 if rate == 1 else min(centre + half, 1.0)
