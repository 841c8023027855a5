"""The threshold from which on a finding is called, chosen on validation."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_curve

from hbdp_fed.training.metrics import FloatArray, IntArray


def best_threshold(labels: IntArray, scores: FloatArray) -> float:
    """The threshold with the largest MCC on validation, half-way between the two neighbouring scores.

    Half-way, because a threshold that sits on a validation score would decide like-scored test records by rounding.
    With one class only there is nothing to choose, and 0.5 is returned.

    Args:
        labels: int64 (N,), 0 or 1.
        scores: float64 (N,), higher where 1 is likelier.
    """
    if len(np.unique(labels)) < 2:
        return 0.5
    false_rate, true_rate, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    positives, negatives = float(labels.sum()), float(len(labels) - labels.sum())
    tp, fp = true_rate * positives, false_rate * negatives
    called, cleared = tp + fp, len(labels) - tp - fp
    # Matthews 1975, as (TP * N - called * P) / sqrt(...); where all or none are called, it is 0 by convention.
    with np.errstate(divide="ignore", invalid="ignore"):
        mcc = (tp * len(labels) - called * positives) / np.sqrt(called * cleared * positives * negatives)
    candidates = np.where(np.isfinite(thresholds), np.nan_to_num(mcc, nan=0.0), -np.inf)
    chosen = float(thresholds[int(np.argmax(candidates))])
    below = scores[scores < chosen]
    if not len(below):
        return chosen
    half_way = (chosen + float(below.max())) / 2
    # Between two numbers with none between them, half-way rounds to one of them, which may be the lower.
    return half_way if half_way > below.max() else chosen
