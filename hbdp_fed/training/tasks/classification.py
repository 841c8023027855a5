"""The tasks that say something of an image as a whole: one of two classes, one of several, or any of several findings.

Evidence is ``labels``, int64, and ``scores``, float64 in [0, 1]: for ``binary`` both (N,), the score the probability of
class 1; for ``multiclass`` (N,) and (N, K), a probability a class; for ``multilabel`` both (N, K), a probability a
finding. Figures lie in [0, 1], except MCC in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hbdp_fed.data.contract import Records
from hbdp_fed.training.metrics import (
    FloatArray,
    IntArray,
    Tally,
    accuracy,
    auroc,
    balanced_accuracy,
    calibration_error,
    matthews_correlation,
    mean_of_existing,
    tally,
)
from hbdp_fed.training.tasks.contract import Evidence, Judge, Point, Task, nothing_to_choose
from hbdp_fed.training.tasks.inference import digest_outputs
from hbdp_fed.training.tasks.thresholds import best_threshold

_METRICS = ("mcc", "auroc", "accuracy", "balanced_accuracy", "ece")
# A few hundred validation records leave ties in MCC; AUROC, which no threshold touches, breaks them.
_SELECTION = ("mcc", "auroc")


def _class_one(logits: Tensor) -> Tensor:
    return torch.softmax(logits, dim=1)[:, 1]


def _each_class(logits: Tensor) -> Tensor:
    return torch.softmax(logits, dim=1)


def _call(scores: NDArray[Any], threshold: NDArray[np.float64]) -> IntArray:
    """1 for a finding that is called: from the threshold on."""
    return (scores >= threshold).astype(np.int64)


def _decide_binary(scores: NDArray[Any], point: Point) -> IntArray:
    return _call(scores, np.asarray(point["threshold"], dtype=np.float64))


def _decide_multiclass(scores: NDArray[Any], point: Point) -> IntArray:
    likeliest: IntArray = scores.argmax(axis=1)
    return likeliest


def _decide_multilabel(scores: NDArray[Any], point: Point) -> IntArray:
    return _call(scores, np.asarray(point["thresholds"], dtype=np.float64))


def _judge_by(probabilities: Callable[[Tensor], Tensor]) -> Judge:
    """A judge that keeps the labels and ``probabilities`` of the logits, which are given as float64 (b, K)."""

    def judge(
        model: nn.Module,
        records: Records,
        *,
        device: torch.device,
        spacing: Sequence[float] | None = None,
        thorough: bool = True,
    ) -> Evidence:
        def digest(logits: Tensor, labels: Tensor) -> dict[str, NDArray[Any]]:
            return {"labels": labels.cpu().numpy(), "scores": probabilities(logits.double()).cpu().numpy()}

        return digest_outputs(model, records, digest, device=device)

    return judge


def _of_decisions(counts: Tally) -> dict[str, FloatArray]:
    return {
        "mcc": matthews_correlation(counts),
        "accuracy": accuracy(counts),
        "balanced_accuracy": balanced_accuracy(counts),
    }


def _of_finding(
    labels: IntArray, scores: FloatArray, threshold: FloatArray, weights: FloatArray
) -> dict[str, FloatArray]:
    """The figures of one finding that is called from ``threshold`` on, a single number; calibration aside."""
    return {
        **_of_decisions(tally(labels, _call(scores, threshold), 2, weights)),
        "auroc": auroc(labels == 1, scores, weights),
    }


def _in_order(found: dict[str, FloatArray]) -> dict[str, FloatArray]:
    return {name: found[name] for name in _METRICS}


def _binary_point(evidence: Evidence) -> Point:
    return {"threshold": best_threshold(evidence["labels"], evidence["scores"])}


def _binary_statistics(evidence: Evidence, point: Point, weights: FloatArray) -> dict[str, FloatArray]:
    labels, scores = evidence["labels"], evidence["scores"]
    threshold = np.asarray(point["threshold"], dtype=np.float64)
    return _in_order(
        {
            **_of_finding(labels, scores, threshold, weights),
            "ece": calibration_error(scores, labels, weights),
        }
    )


def _multiclass_statistics(evidence: Evidence, point: Point, weights: FloatArray) -> dict[str, FloatArray]:
    """The likeliest class is decided for; AUROC is each class against the rest, averaged; ECE is of the decisions."""
    labels, scores = evidence["labels"], evidence["scores"]
    classes = scores.shape[1]
    decisions = _decide_multiclass(scores, point)
    against_rest = [auroc(labels == k, scores[:, k], weights) for k in range(classes)]
    return _in_order(
        {
            **_of_decisions(tally(labels, decisions, classes, weights)),
            "auroc": mean_of_existing(np.stack(against_rest, axis=1)),
            "ece": calibration_error(scores.max(axis=1), (decisions == labels).astype(np.float64), weights),
        }
    )


def _multilabel_point(evidence: Evidence) -> Point:
    columns = zip(evidence["labels"].T, evidence["scores"].T, strict=True)
    return {"thresholds": [best_threshold(labels, scores) for labels, scores in columns]}


def _multilabel_statistics(evidence: Evidence, point: Point, weights: FloatArray) -> dict[str, FloatArray]:
    """Each finding by itself, averaged over the findings of which the figure exists; ECE is over all findings."""
    labels, scores = evidence["labels"], evidence["scores"]
    thresholds = np.asarray(point["thresholds"], dtype=np.float64)
    columns = zip(labels.T, scores.T, thresholds, strict=True)
    by_finding = [_of_finding(truth, score, threshold, weights) for truth, score, threshold in columns]
    means = {
        name: mean_of_existing(np.stack([finding[name] for finding in by_finding], axis=1)) for name in by_finding[0]
    }
    return _in_order({**means, "ece": calibration_error(scores, labels, weights)})


BINARY = Task(
    name="binary",
    metrics=_METRICS,
    selection=_SELECTION,
    default_loss="cross_entropy",
    answer=_class_one,
    decide=_decide_binary,
    judge=_judge_by(_class_one),
    choose_point=_binary_point,
    statistics=_binary_statistics,
)

MULTICLASS = Task(
    name="multiclass",
    metrics=_METRICS,
    selection=_SELECTION,
    default_loss="cross_entropy",
    answer=_each_class,
    decide=_decide_multiclass,
    judge=_judge_by(_each_class),
    choose_point=nothing_to_choose,
    statistics=_multiclass_statistics,
)

MULTILABEL = Task(
    name="multilabel",
    metrics=_METRICS,
    selection=_SELECTION,
    default_loss="binary_cross_entropy",
    answer=torch.sigmoid,
    decide=_decide_multilabel,
    judge=_judge_by(torch.sigmoid),
    choose_point=_multilabel_point,
    statistics=_multilabel_statistics,
)
