"""Figures of utility under weights of the records, for many sets of weights at once.

Every function takes a matrix of weights, float64 (B, N): a row is one set of non-negative weights of the N records. A
row of ones gives the figure itself, a row of whole numbers the figure of a resample that holds each record that many
times. So a figure has one implementation, whether it is reported or resampled. Resampling is also why scikit-learn is
not called here: a thousand calls for each figure sort and check the same records a thousand times, while matrix
products and cumulative sums over records that are sorted once answer for all rows together. The tests hold each
function against scikit-learn's or torchmetrics' under weights.

A figure that does not exist under a row of weights, for want of a class for example, is NaN. Scores must be finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

_BINS = 15


@dataclass(frozen=True)
class Tally:
    """The weight of right and of all records of each class: the part of a confusion matrix that figures need.

    Attributes:
        right: float64 (B, K), of the records that are of class k and were decided to be.
        truth: float64 (B, K), of the records that are of class k.
        decided: float64 (B, K), of the records that were decided to be of class k.
    """

    right: FloatArray
    truth: FloatArray
    decided: FloatArray

    @property
    def total(self) -> FloatArray:
        """The weight of all records, (B,)."""
        total: FloatArray = self.decided.sum(axis=1)
        return total

    @property
    def divided(self) -> BoolArray:
        """Where two or more classes are present, (B,)."""
        divided: BoolArray = (self.truth > 0).sum(axis=1) >= 2
        return divided


def tally(labels: IntArray, decisions: IntArray, classes: int, weights: FloatArray) -> Tally:
    """Count ``labels`` (N,) and ``decisions`` (N,), classes from 0 to ``classes`` - 1, under ``weights`` (B, N)."""
    one_hot = np.eye(classes)
    truth, decided = one_hot[labels], one_hot[decisions]
    return Tally(right=weights @ (truth * decided), truth=weights @ truth, decided=weights @ decided)


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """The quotient, NaN where ``denominator`` is not positive; both have the same shape."""
    quotient: FloatArray = np.divide(
        numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0
    )
    return quotient


def accuracy(counts: Tally) -> FloatArray:
    """The share of right decisions in [0, 1], (B,)."""
    return _ratio(counts.right.sum(axis=1), counts.total)


def balanced_accuracy(counts: Tally) -> FloatArray:
    """The share of right decisions of each class that is present, averaged over these classes, in [0, 1], (B,).

    Brodersen et al. 2010, doi 10.1109/ICPR.2010.764. Exists where two or more classes are present.
    """
    return np.where(counts.divided, mean_of_existing(_ratio(counts.right, counts.truth)), np.nan)


def _variance(classes: FloatArray) -> FloatArray:
    """total² - sum of squares of each row of class weights (B, K), (B,); never negative, and 0 for one class alone."""
    # Written so that nothing cancels. A total from elsewhere might differ in its last bit, and give less than 0.
    variance: FloatArray = (classes * (classes.sum(axis=1, keepdims=True) - classes)).sum(axis=1)
    return variance


def matthews_correlation(counts: Tally) -> FloatArray:
    """The correlation of decisions with truth in [-1, 1], (B,).

    With two classes Matthews 1975 (doi 10.1016/0005-2795(75)90109-9), with more Gorodkin's R_K (2004, doi
    10.1016/j.compbiolchem.2004.09.006). Exists where two or more classes are present; where all records were decided
    to be of one class it is 0 by convention.
    """
    total = counts.total
    covariance = counts.right.sum(axis=1) * total - (counts.truth * counts.decided).sum(axis=1)
    scale = np.sqrt(_variance(counts.truth)) * np.sqrt(_variance(counts.decided))
    correlation = np.divide(covariance, scale, out=np.zeros(len(scale)), where=scale > 0)
    return np.where(counts.divided, correlation, np.nan)


def auroc(positive: BoolArray, scores: FloatArray, weights: FloatArray) -> FloatArray:
    """The probability in [0, 1] that a positive record scores higher than a negative one, ties counted half, (B,).

    Which is the area under the receiver operating characteristic (Hanley and McNeil 1982, doi
    10.1148/radiology.143.1.7063747). Exists where there are positive and negative records.

    Args:
        positive: (N,), which records are positive.
        scores: float64 (N,).
        weights: float64 (B, N).
    """
    # Records along the first axis from here on: its rows are copied and added as wholes.
    of_positives = weights.T[positive]
    order = np.argsort(scores[~positive])
    below = np.cumsum(weights.T[~positive][order], axis=0)
    below = np.concatenate([np.zeros((1, len(weights))), below])
    negative_scores = scores[~positive][order]
    lower = np.searchsorted(negative_scores, scores[positive], side="left")
    lower_or_tied = np.searchsorted(negative_scores, scores[positive], side="right")
    wins = (of_positives * (below[lower] + below[lower_or_tied])).sum(axis=0) / 2
    return _ratio(wins, of_positives.sum(axis=0) * below[-1])


def calibration_error(confidences: FloatArray, outcomes: FloatArray, weights: FloatArray) -> FloatArray:
    """The expected calibration error in [0, 1], (B,): the gap between confidence and outcome, averaged over bins.

    Naeini et al. 2015 (doi 10.1609/aaai.v29i1.9602), as torchmetrics bins it: 15 bins of equal width that contain their
    lower edge, and a bin of its own for a confidence of exactly 1. Weighted by a bin's records, the gap between mean
    confidence and mean outcome is the sum of the differences in that bin, so no bin's mean is needed.

    Args:
        confidences: float64 (N,) or (N, M), in [0, 1]: a record's confidences count equally.
        outcomes: Of the same shape, 1 where what the confidence speaks of is so, else 0.
        weights: float64 (B, N).
    """
    records = len(confidences)
    if confidences.ndim == 1:
        confidences, outcomes = confidences[:, None], outcomes[:, None]
    edges = np.linspace(0, 1, _BINS + 1)
    gaps = np.zeros((records, len(edges)))
    places = (np.arange(records)[:, None], np.searchsorted(edges, confidences, side="right") - 1)
    np.add.at(gaps, places, outcomes - confidences)
    return _ratio(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1) * confidences.shape[1])


def mean_over_records(values: FloatArray, weights: FloatArray) -> FloatArray:
    """The weighted mean of each column over the records that have a value, float64 (B, M).

    Args:
        values: float64 (N, M), NaN where a record has no value.
        weights: float64 (B, N).
    """
    exists = ~np.isnan(values)
    return _ratio(weights @ np.where(exists, values, 0.0), weights @ exists.astype(np.float64))


def mean_of_existing(values: FloatArray) -> FloatArray:
    """The plain mean of each row of ``values`` (B, M) over the entries that are not NaN, (B,); NaN where all are."""
    exists = ~np.isnan(values)
    return _ratio(np.where(exists, values, 0.0).sum(axis=1), exists.sum(axis=1).astype(np.float64))
