"""Utility of a classifier: scores, the threshold that validation chooses, and the figures that are reported."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import accuracy_score, matthews_corrcoef, roc_auc_score, roc_curve
from torch import Tensor, nn

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Utility:
    """Figures of a binary classifier at one threshold; None where a figure does not exist (one class only).

    Attributes:
        mcc: Matthews correlation coefficient in [-1, 1].
        auroc: Area under the receiver operating characteristic in [0, 1].
        accuracy: Share of right decisions in [0, 1].
        records: How many records were judged.
    """

    mcc: float | None
    auroc: float | None
    accuracy: float | None
    records: int


def predict(model: nn.Module, images: Tensor, *, device: torch.device, batch_size: int = 256) -> FloatArray:
    """The probability of class 1 of each record, float64 (N,), from images (N, C, H, W) in [0, 1]."""
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        parts = [
            torch.softmax(model(images[start : start + batch_size].to(device)).double(), dim=1)[:, 1].cpu()
            for start in range(0, len(images), batch_size)
        ]
    model.train(was_training)
    return torch.cat(parts).numpy() if parts else np.zeros(0)


def best_threshold(labels: npt.NDArray[np.int64], scores: FloatArray) -> float:
    """The threshold with the largest MCC on validation, half-way between the two neighbouring scores.

    Half-way, because a threshold that sits on a validation score would decide like-scored test records by rounding.
    With one class only there is nothing to choose, and 0.5 is returned.
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
    return (chosen + float(below.max())) / 2 if len(below) else chosen


def utility(labels: npt.NDArray[np.int64], scores: FloatArray, *, threshold: float) -> Utility:
    """The figures of ``scores`` (N,) against int64 ``labels`` (N,) when class 1 is called at or above ``threshold``."""
    if len(labels) == 0:
        return Utility(mcc=None, auroc=None, accuracy=None, records=0)
    both = len(np.unique(labels)) == 2
    decisions = scores >= threshold
    return Utility(
        mcc=float(matthews_corrcoef(labels, decisions)) if both else None,
        auroc=float(roc_auc_score(labels, scores)) if both else None,
        accuracy=float(accuracy_score(labels, decisions)),
        records=len(labels),
    )
