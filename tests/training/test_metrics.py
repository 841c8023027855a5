"""Each figure against scikit-learn's or torchmetrics' under weights, row by row."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, matthews_corrcoef, roc_auc_score
from torchmetrics.functional.classification import binary_calibration_error

from hbdp_fed.training.metrics import (
    accuracy,
    auroc,
    balanced_accuracy,
    calibration_error,
    matthews_correlation,
    mean_of_existing,
    mean_over_records,
    tally,
)

CLOSE = {"rel": 1e-12, "abs": 1e-12}


@dataclass(frozen=True)
class Case:
    labels: np.ndarray
    decisions: np.ndarray
    scores: np.ndarray
    weights: np.ndarray
    classes: int


@st.composite
def cases(draw: st.DrawFn, classes: int | None = None, whole: bool | None = None) -> Case:
    """Records with ties in their scores, and three rows of weights: whole numbers (as a resample's) or any."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    number = draw(st.integers(1, 40))
    classes = classes or draw(st.integers(2, 5))
    counts = rng.integers(0, 4, (3, number)).astype(np.float64)
    counts[0] = 1
    whole = draw(st.booleans()) if whole is None else whole
    levels = draw(st.sampled_from([2, 8, 10**9]))
    return Case(
        labels=rng.integers(0, classes, number),
        decisions=rng.integers(0, classes, number),
        scores=rng.integers(0, levels + 1, number) / levels,
        weights=counts if whole else counts * rng.random(counts.shape),
        classes=classes,
    )


def present(case: Case, weights: np.ndarray) -> int:
    return len(np.unique(case.labels[weights > 0]))


@given(case=cases())
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_figures_of_decisions_are_scikit_learns(case: Case) -> None:
    counts = tally(case.labels, case.decisions, case.classes, case.weights)
    mcc, right, balanced = matthews_correlation(counts), accuracy(counts), balanced_accuracy(counts)
    for row, weights in enumerate(case.weights):
        if not weights.any():
            assert np.isnan(right[row])
            continue
        expected = accuracy_score(case.labels, case.decisions, sample_weight=weights)
        assert right[row] == pytest.approx(expected, **CLOSE)
        if present(case, weights) < 2:
            assert np.isnan(mcc[row])
            assert np.isnan(balanced[row])
            continue
        some = weights > 0
        given = (case.labels[some], case.decisions[some])
        assert mcc[row] == pytest.approx(matthews_corrcoef(*given, sample_weight=weights[some]), **CLOSE)
        with warnings.catch_warnings(action="ignore"):  # of a decision for a class that is not there
            expected = balanced_accuracy_score(*given, sample_weight=weights[some])
        assert balanced[row] == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize("classes", [2, 4])
def test_where_everybody_is_decided_alike_mcc_is_zero(classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 50)
    counts = tally(labels, np.ones(50, dtype=np.int64), classes, rng.random((4, 50)))
    np.testing.assert_array_equal(matthews_correlation(counts), np.zeros(4))


def test_mcc_of_right_and_of_opposite_decisions_is_one_and_minus_one() -> None:
    labels, weights = np.array([0, 1, 1, 0, 1]), np.random.default_rng(0).random((3, 5))
    np.testing.assert_allclose(matthews_correlation(tally(labels, labels, 2, weights)), 1, rtol=1e-14)
    np.testing.assert_allclose(matthews_correlation(tally(labels, 1 - labels, 2, weights)), -1, rtol=1e-14)


@given(case=cases(classes=2))
def test_auroc_is_scikit_learns_with_ties(case: Case) -> None:
    found = auroc(case.labels == 1, case.scores, case.weights)
    for row, weights in enumerate(case.weights):
        if present(case, weights) < 2:
            assert np.isnan(found[row])
        else:
            expected = roc_auc_score(case.labels, case.scores, sample_weight=weights)
            assert found[row] == pytest.approx(expected, **CLOSE)


@given(case=cases(classes=2, whole=True))
@settings(max_examples=50)
def test_calibration_error_is_torchmetrics_of_repeated_records(case: Case) -> None:
    found = calibration_error(case.scores, case.labels, case.weights)
    for row, weights in enumerate(case.weights.astype(np.int64)):
        if not weights.any():
            assert np.isnan(found[row])
            continue
        scores, labels = np.repeat(case.scores, weights), np.repeat(case.labels, weights)
        expected = binary_calibration_error(torch.from_numpy(scores), torch.from_numpy(labels), n_bins=15)
        assert found[row] == pytest.approx(float(expected), **CLOSE)


def test_calibration_error_of_several_confidences_a_record_is_that_of_all_of_them() -> None:
    rng = np.random.default_rng(0)
    confidences, outcomes, weights = rng.random((20, 3)), rng.integers(0, 2, (20, 3)), rng.random((4, 20))
    found = calibration_error(confidences, outcomes, weights)
    expected = calibration_error(confidences.ravel(), outcomes.ravel(), np.repeat(weights, 3, axis=1))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_means_pass_over_what_does_not_exist() -> None:
    nan = np.nan
    values = np.array([[1.0, nan, nan], [3.0, 5.0, nan], [nan, 7.0, nan]])
    weights = np.array([[1.0, 1.0, 1.0], [3.0, 1.0, 4.0], [0.0, 0.0, 2.0]])
    by_column = mean_over_records(values, weights)
    np.testing.assert_allclose(by_column, [[2.0, 6.0, nan], [1.5, 33 / 5, nan], [nan, 7.0, nan]])
    np.testing.assert_allclose(mean_of_existing(by_column), [4.0, 8.1 / 2, 7.0])
    np.testing.assert_allclose(mean_of_existing(np.full((1, 2), nan)), [nan])


def test_a_thousand_resamples_of_two_thousand_records_take_no_time() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 2000), rng.random(2000)
    weights = rng.multinomial(2000, np.full(2000, 1 / 2000), size=1000).astype(np.float64)
    began = time.process_time()
    auroc(labels == 1, scores, weights)
    matthews_correlation(tally(labels, labels, 2, weights))
    calibration_error(scores, labels, weights)
    # About 0.05 s; a thousand calls of scikit-learn's AUROC alone take several seconds.
    assert time.process_time() - began < 2
