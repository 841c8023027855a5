"""Differences between settings over runs and patients: against hand computation, and how often intervals are right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from hbdp_fed.audit.seed_difference import seed_differences
from hbdp_fed.seeding import generator
from hbdp_fed.training.bootstrap import Judged
from hbdp_fed.training.metrics import IntArray
from hbdp_fed.training.tasks import task_called

BINARY = task_called("binary")


def judged(scores: np.ndarray, labels: IntArray) -> Judged:
    return {"labels": labels, "scores": scores}, {"threshold": 0.5}


def right_at(labels: IntArray, right: np.ndarray) -> Judged:
    """A model whose decisions are right where ``right`` says so."""
    scores = np.where(right, labels, 1 - labels).astype(np.float64)
    return judged(scores, labels)


def test_of_one_pair_the_interval_is_that_of_the_patients() -> None:
    labels = np.arange(200) % 2
    before, after = np.arange(200) < 150, np.arange(200) < 170
    found = seed_differences(
        BINARY, [right_at(labels, before)], [right_at(labels, after)], None, replicates=4000, generator=generator(0)
    )["accuracy"]
    # 20 of 200 records differ, all in one direction: the difference is the mean of 200 zeros and ones.
    assert found.mean == pytest.approx(0.1)
    half = 1.96 * math.sqrt(0.1 * 0.9 / 200)
    assert found.low == pytest.approx(0.1 - half, rel=0.1)
    assert found.high == pytest.approx(0.1 + half, rel=0.05)
    assert found.pairs == 1


def test_where_patients_say_nothing_it_is_students_interval_over_runs() -> None:
    """Every record is alike, so that no resample of them changes anything."""
    labels = np.ones(50, dtype=np.int64)
    groups = np.zeros(50, dtype=np.int64)
    shares = [(10, 20), (12, 15), (20, 22)]
    sides = [[right_at(labels, np.arange(50) < pair[side]) for pair in shares] for side in (0, 1)]
    found = seed_differences(BINARY, *sides, groups, replicates=50, generator=generator(0))["accuracy"]
    differences = [(after - before) / 50 for before, after in shares]
    expected = stats.ttest_1samp(differences, 0)
    low, high = expected.confidence_interval(0.95)
    assert found.mean == pytest.approx(np.mean(differences))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.p_value == pytest.approx(expected.pvalue)


def test_a_setting_does_not_differ_from_itself() -> None:
    labels = np.arange(60) % 2
    side = [right_at(labels, np.arange(60) < 40 + k) for k in range(3)]
    found = seed_differences(BINARY, side, side, None, replicates=50, generator=generator(0))["accuracy"]
    assert (found.mean, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Models whose accuracy varies from run to run, on patients that vary from study to study."""
    rng = np.random.default_rng(0)
    hits, trials, records, pairs = 0, 150, 80, 3
    for trial in range(trials):
        labels = rng.integers(0, 2, records)
        hard = rng.random(records)
        sides = [
            [right_at(labels, hard < np.clip(mean + 0.03 * rng.standard_normal(), 0, 1)) for _ in range(pairs)]
            for mean in (0.8, 0.7)
        ]
        found = seed_differences(BINARY, *sides, None, replicates=100, generator=generator(trial))["accuracy"]
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= -0.1 <= found.high
    # Wide on purpose, never too narrow: at 95% fewer than 136 of 150 have a chance of 1%.
    assert hits >= 136


def test_unequal_sides_are_refused() -> None:
    labels = np.arange(10) % 2
    one = right_at(labels, labels == 1)
    with pytest.raises(ValueError, match="pairs"):
        seed_differences(BINARY, [one], [one, one], None, replicates=10, generator=generator(0))
