"""A task's judgement by hand and against other implementations, with points chosen without looking at the test set."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist
from sklearn.metrics import accuracy_score, matthews_corrcoef, roc_auc_score
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error

from hbdp_fed.data import contract as data_contract
from hbdp_fed.data.contract import Records
from hbdp_fed.dpsgd.losses import LOSSES
from hbdp_fed.errors import SettingError, TrainingDiverged
from hbdp_fed.training.tasks import TASKS, Evidence, best_threshold, figures, select, task_called

CPU = torch.device("cpu")
BINARY, MULTICLASS, MULTILABEL, SEGMENTATION = (TASKS[name] for name in data_contract.TASKS)


def binary(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float | None]:
    return figures(BINARY, {"labels": labels, "scores": scores}, {"threshold": threshold})


def noisy_evidence(seed: int = 0, records: int = 60) -> dict[str, Evidence]:
    """By task, evidence with some skill, some ties and some values that do not exist."""
    rng = np.random.default_rng(seed)
    labels, classes, findings = (
        rng.integers(0, 2, records),
        rng.integers(0, 4, records),
        rng.integers(0, 2, (records, 3)),
    )
    logits = rng.normal(size=(records, 4)) + 2 * np.eye(4)[classes]
    overlap = np.where(rng.random((records, 2)) < 0.3, np.nan, rng.random((records, 2)))
    return {
        "binary": {"labels": labels, "scores": np.clip(np.round(rng.random(records) + labels / 4, 1), 0, 1)},
        "multiclass": {"labels": classes, "scores": np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)},
        "multilabel": {"labels": findings, "scores": np.clip(rng.random((records, 3)) + findings / 4, 0, 1)},
        "segmentation": {"dice": overlap, "hd95": 20 * (1 - overlap)},
    }


EVERY_TASK = pytest.mark.parametrize("name", data_contract.TASKS)


# What all tasks have in common.


def test_there_is_a_task_for_each_name_that_a_data_set_may_have() -> None:
    assert tuple(TASKS) == data_contract.TASKS
    assert all(task_called(name).name == name for name in data_contract.TASKS)
    with pytest.raises(SettingError, match=r"data\.task: 'regression' is not known; choose one of: binary, multiclass"):
        task_called("regression")


@EVERY_TASK
def test_a_task_names_figures_that_it_gives_and_a_loss_that_there_is(name: str) -> None:
    task, evidence = TASKS[name], noisy_evidence()[name]
    found = figures(task, evidence, task.choose_point(evidence))
    assert tuple(found)[: len(task.metrics)] == task.metrics
    assert set(task.selection) <= set(task.metrics)
    assert task.default_loss in LOSSES
    assert found["records"] == 60


@EVERY_TASK
def test_a_point_survives_json(name: str) -> None:
    task, evidence = TASKS[name], noisy_evidence()[name]
    point = task.choose_point(evidence)
    again = json.loads(json.dumps(point))
    assert again == point
    assert figures(task, evidence, again) == figures(task, evidence, point)


@EVERY_TASK
def test_a_weight_of_n_is_as_good_as_n_copies(name: str) -> None:
    task, evidence = TASKS[name], noisy_evidence()[name]
    point = task.choose_point(evidence)
    counts = np.random.default_rng(1).integers(0, 4, (5, 60))
    found = task.statistics(evidence, point, counts.astype(np.float64))
    for row, count in enumerate(counts):
        copied = figures(task, select(evidence, np.repeat(np.arange(60), count)), point)
        assert {figure: values[row] for figure, values in found.items()} == pytest.approx(
            {figure: value for figure, value in copied.items() if figure != "records"}, rel=1e-12
        )


@EVERY_TASK
def test_of_no_records_there_are_no_figures(name: str) -> None:
    task, evidence = TASKS[name], noisy_evidence()[name]
    found = figures(task, select(evidence, np.zeros(60, dtype=bool)), task.choose_point(evidence))
    assert found.pop("records") == 0
    assert set(found.values()) == {None}


def test_evidence_of_unequal_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"arrays of one length, got lengths \[2, 3\]"):
        binary(np.zeros(2, dtype=np.int64), np.zeros(3), 0.5)


# Judging a model.


class Linear(nn.Module):
    """Logits k times the image's mean, k the class; with dropout, which only evaluation mode turns off."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes, self.dropout = classes, nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        return self.dropout(images.flatten(1).mean(dim=1, keepdim=True)) * torch.arange(self.classes)


def judged(name: str, classes: int, records: Records) -> Evidence:
    return TASKS[name].judge(Linear(classes), records, device=CPU)


def test_scores_are_the_models_probabilities_in_order() -> None:
    images = torch.linspace(0, 1, 600).view(-1, 1, 1, 1)  # more than go in one batch
    mean, labels = images.flatten().double().numpy(), torch.arange(600) % 2
    found = judged("binary", 2, Records(images, labels))
    np.testing.assert_allclose(found["scores"], 1 / (1 + np.exp(-mean)), rtol=1e-7)
    np.testing.assert_array_equal(found["labels"], labels.numpy())

    odds = np.exp(mean[:, None] * np.arange(3))
    found = judged("multiclass", 3, Records(images, labels))
    np.testing.assert_allclose(found["scores"], odds / odds.sum(axis=1, keepdims=True), rtol=1e-6)

    findings = torch.stack([labels, 1 - labels, labels], dim=1)
    found = judged("multilabel", 3, Records(images, findings))
    np.testing.assert_allclose(found["scores"], odds / (1 + odds), rtol=1e-6)
    np.testing.assert_array_equal(found["labels"], findings.numpy())


def test_bytes_are_judged_like_the_floats_they_stand_for() -> None:
    images = torch.arange(200, dtype=torch.uint8).view(50, 1, 2, 2)
    labels = torch.arange(50) % 2
    as_bytes, as_floats = (
        judged("binary", 2, Records(images, labels)),
        judged("binary", 2, Records(images / 255, labels)),
    )
    np.testing.assert_array_equal(as_bytes["scores"], as_floats["scores"])
    assert images.dtype == torch.uint8


@pytest.mark.parametrize("mode", [True, False])
def test_a_judged_model_is_left_in_its_mode(mode: bool) -> None:
    model = Linear(2).train(mode)
    BINARY.judge(model, Records(torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)), device=CPU)
    assert model.training is mode
    nothing = Records(torch.full((3, 1, 2, 2), math.nan), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(TrainingDiverged, match="outputs are not finite"):
        BINARY.judge(model, nothing, device=CPU)
    assert model.training is mode


def test_no_records_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="no records to judge"):
        judged("binary", 2, Records(torch.zeros(0, 1, 2, 2), torch.zeros(0, dtype=torch.int64)))


# Two classes.


def test_binary_figures_agree_with_the_confusion_matrix() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    scores = np.array([0.1, 0.4, 0.6, 0.3, 0.7, 0.8, 0.9, 0.2])
    tp, tn, fp, fn = 3, 3, 1, 1
    mcc = (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    pairs = [(p > n) for p in scores[labels == 1] for n in scores[labels == 0]]
    found = binary(labels, scores, 0.5)
    assert found == {
        "mcc": pytest.approx(mcc),
        "auroc": pytest.approx(np.mean(pairs)),
        "accuracy": pytest.approx(6 / 8),
        "balanced_accuracy": pytest.approx((3 / 4 + 3 / 4) / 2),
        # No bin has two of them.
        "ece": pytest.approx(np.mean(np.abs(labels - scores))),
        "records": 8,
    }


@pytest.mark.parametrize("name", ["binary", "multiclass", "multilabel"])
def test_decisions_are_those_that_accuracy_counts(name: str) -> None:
    """The model itself answers and decides here; on the other side, its judge and its figures."""
    rng = np.random.default_rng(3)
    classes = 2 if name == "binary" else 4
    logits = torch.from_numpy(rng.normal(size=(50, classes)))
    labels = rng.integers(0, 2, (50, classes)) if name == "multilabel" else rng.integers(0, classes, 50)
    task = TASKS[name]
    scores = task.answer(logits).numpy()
    evidence = {"labels": labels, "scores": scores}
    point = task.choose_point(evidence)
    assert figures(task, evidence, point)["accuracy"] == pytest.approx((task.decide(scores, point) == labels).mean())


def test_a_segmentation_answers_with_the_likeliest_class_of_each_pixel() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    task = TASKS["segmentation"]
    answer = task.answer(logits).numpy()
    assert np.array_equal(task.decide(answer, {}), logits.numpy().argmax(axis=1))


def test_the_threshold_maximises_mcc_over_all_thresholds() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    scores = np.clip(labels * 0.3 + rng.normal(0.4, 0.2, 200), 0, 1)
    chosen = BINARY.choose_point({"labels": labels, "scores": scores})["threshold"]
    best = max(binary(labels, scores, t)["mcc"] or -1 for t in np.linspace(0, 1, 2001))
    assert binary(labels, scores, chosen)["mcc"] == pytest.approx(best, abs=1e-12)
    assert chosen not in scores


def test_a_threshold_between_scores_with_nothing_between_them_still_divides_them() -> None:
    for low in (0.5, np.nextafter(0.5, 1)):
        scores, labels = np.array([low, np.nextafter(low, 1)]), np.array([0, 1])
        assert list(scores >= best_threshold(labels, scores)) == [False, True]


def test_a_model_that_says_the_same_of_everybody_has_a_threshold_too() -> None:
    labels, scores = np.array([0, 1, 1]), np.full(3, 0.25)
    found = binary(labels, scores, best_threshold(labels, scores))
    assert (found["mcc"], found["auroc"]) == (0.0, 0.5)


def test_one_class_has_no_mcc_and_no_auroc() -> None:
    labels, scores = np.ones(4, dtype=np.int64), np.array([0.2, 0.6, 0.7, 0.9])
    found = binary(labels, scores, best_threshold(labels, scores))
    assert [found[name] for name in ("mcc", "auroc", "balanced_accuracy", "accuracy")] == [None, None, None, 0.75]


# Several classes and several findings.


def test_multiclass_figures_are_other_libraries() -> None:
    evidence = noisy_evidence()["multiclass"]
    labels, scores = evidence["labels"], evidence["scores"]
    found = figures(MULTICLASS, evidence, {})
    assert MULTICLASS.choose_point(evidence) == {}
    assert found["mcc"] == pytest.approx(matthews_corrcoef(labels, scores.argmax(axis=1)), rel=1e-12)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, scores, multi_class="ovr", average="macro"), rel=1e-12)
    expected = multiclass_calibration_error(
        torch.from_numpy(scores), torch.from_numpy(labels), num_classes=4, n_bins=15
    )
    assert found["ece"] == pytest.approx(float(expected), rel=1e-6)  # torchmetrics computes in float32


def test_an_absent_class_does_not_count_in_multiclass_auroc() -> None:
    evidence = noisy_evidence()["multiclass"]
    some = select(evidence, evidence["labels"] != 2)
    apart = [roc_auc_score(some["labels"] == k, some["scores"][:, k]) for k in (0, 1, 3)]
    assert figures(MULTICLASS, some, {})["auroc"] == pytest.approx(np.mean(apart), rel=1e-12)
    alone = figures(MULTICLASS, select(evidence, evidence["labels"] == 2), {})
    assert [alone[name] for name in ("mcc", "auroc", "balanced_accuracy")] == [None, None, None]


def test_two_classes_are_the_same_as_class_and_finding() -> None:
    evidence = noisy_evidence()["binary"]
    scores = evidence["scores"]
    # Where the threshold is a half and the score is not, deciding for the likelier class is the same.
    evidence = select(evidence, scores != 0.5)
    scores = evidence["scores"]
    one = figures(BINARY, evidence, {"threshold": 0.5})
    two = figures(MULTICLASS, {**evidence, "scores": np.stack([1 - scores, scores], axis=1)}, {})
    for name in ("mcc", "auroc", "accuracy", "balanced_accuracy"):
        assert one[name] == pytest.approx(two[name], rel=1e-12)


def test_multilabel_figures_are_the_mean_over_findings() -> None:
    evidence = noisy_evidence()["multilabel"]
    labels, scores = evidence["labels"], evidence["scores"]
    point = MULTILABEL.choose_point(evidence)
    thresholds = [best_threshold(labels[:, k], scores[:, k]) for k in range(3)]
    assert point == {"thresholds": thresholds}
    found = figures(MULTILABEL, evidence, point)

    def mean(score: Callable[[np.ndarray, np.ndarray], float], values: np.ndarray) -> Any:
        return pytest.approx(np.mean([score(labels[:, k], values[:, k]) for k in range(3)]), rel=1e-12)

    assert found["mcc"] == mean(matthews_corrcoef, scores >= np.array(thresholds))
    assert found["accuracy"] == mean(accuracy_score, scores >= np.array(thresholds))
    assert found["auroc"] == mean(roc_auc_score, scores)
    assert found["ece"] == pytest.approx(binary(labels.ravel(), scores.ravel(), 0.5)["ece"], rel=1e-12)


def test_a_finding_that_nobody_has_counts_where_its_figure_exists() -> None:
    evidence = noisy_evidence()["multilabel"]
    labels = evidence["labels"] * np.array([1, 0, 1])
    point = {"thresholds": [0.5, 0.5, 0.5]}
    found = figures(MULTILABEL, {**evidence, "labels": labels}, point)
    by_finding = [binary(labels[:, k], evidence["scores"][:, k], 0.5) for k in range(3)]
    assert by_finding[1]["mcc"] is None
    assert found["mcc"] == pytest.approx((by_finding[0]["mcc"] + by_finding[2]["mcc"]) / 2, rel=1e-12)
    assert found["accuracy"] == pytest.approx(np.mean([one["accuracy"] for one in by_finding]), rel=1e-12)


# Segmentation.


class Fixed(nn.Module):
    """Decides for the class that is written in the image: an image of value c / 10 is of class c."""

    def forward(self, images: Tensor) -> Tensor:
        return -(images * 10 - torch.arange(3).view(1, 3, *[1] * (images.dim() - 2))).abs()


def segmentation(decided: Tensor, truth: Tensor, **settings: Any) -> Evidence:
    return SEGMENTATION.judge(Fixed(), Records(decided[:, None] / 10, truth), device=CPU, **settings)


def boxes(seed: int, *shape: int) -> Tensor:
    """Two overlapping boxes of the classes 1 and 2 in each image, int64."""
    rng = np.random.default_rng(seed)
    maps = torch.zeros(shape, dtype=torch.int64)
    for image in maps:
        for k in (1, 2):
            starts = [int(rng.integers(0, side - 4)) for side in image.shape]
            image[tuple(slice(start, start + int(rng.integers(2, 5))) for start in starts)] = k
    return maps


def outline(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """The places of a mask's pixels that have a neighbour, by an edge or a face, outside it."""
    return np.argwhere(mask & ~binary_erosion(mask)) * np.array(spacing)


def distance_by_hand(decided: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]) -> float:
    apart = cdist(outline(decided, spacing), outline(truth, spacing))
    return max(float(np.percentile(apart.min(axis=axis), 95)) for axis in (0, 1))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 2.5), (3, 0.5, 0.8)])
def test_segmentation_evidence_by_hand(spacing: tuple[float, ...]) -> None:
    shape = (4, *[12, 9, 8][: len(spacing)])
    decided, truth = boxes(0, *shape), boxes(1, *shape)
    found = segmentation(decided, truth, spacing=spacing)
    for record in range(4):
        for k in (1, 2):
            ours, theirs = (decided[record] == k).numpy(), (truth[record] == k).numpy()
            dice = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
            assert found["dice"][record, k - 1] == pytest.approx(dice, rel=1e-6)
            assert found["hd95"][record, k - 1] == pytest.approx(distance_by_hand(ours, theirs, spacing), rel=1e-6)


def test_without_spacing_distances_are_in_pixels() -> None:
    decided, truth = boxes(0, 3, 12, 9), boxes(1, 3, 12, 9)
    plain, unit = segmentation(decided, truth), segmentation(decided, truth, spacing=(1.0, 1.0))
    np.testing.assert_array_equal(plain["hd95"], unit["hd95"])


def test_a_missed_class_is_as_far_as_the_image_is_long_and_an_absent_one_does_not_count() -> None:
    truth = torch.zeros(2, 6, 8, dtype=torch.int64)
    truth[0, 1:3, 1:3] = 1
    decided = torch.zeros_like(truth)
    decided[1, 0, 0] = 1  # seen where it is not: in neither figure
    found = segmentation(decided, truth, spacing=(2.0, 1.0))
    nan = np.nan
    np.testing.assert_array_equal(found["dice"], [[0.0, nan], [nan, nan]])
    np.testing.assert_allclose(found["hd95"], [[math.hypot(12, 8), nan], [nan, nan]])
    assert figures(SEGMENTATION, found, {}) == {
        "dice": 0.0,
        "hd95": pytest.approx(math.hypot(12, 8)),
        "dice_1": 0.0,
        "dice_2": None,
        "hd95_1": pytest.approx(math.hypot(12, 8)),
        "hd95_2": None,
        "records": 2,
    }


def test_a_quick_look_leaves_distances_out_and_changes_nothing_else() -> None:
    decided, truth = boxes(0, 3, 12, 9), boxes(1, 3, 12, 9)
    quick, thorough = segmentation(decided, truth, thorough=False), segmentation(decided, truth)
    assert set(quick) == {"dice"}
    np.testing.assert_array_equal(quick["dice"], thorough["dice"])
    assert set(figures(SEGMENTATION, quick, {})) == {"dice", "dice_1", "dice_2", "records"}


def test_segmentation_figures_are_means_over_records_and_then_over_classes() -> None:
    nan = np.nan
    evidence: Mapping[str, np.ndarray] = {"dice": np.array([[0.2, nan], [0.4, 0.9], [0.9, nan]])}
    found = figures(SEGMENTATION, evidence, {})
    assert found == pytest.approx({"dice": 0.7, "dice_1": 0.5, "dice_2": 0.9, "records": 3})


def test_perfect_segmentation() -> None:
    truth = boxes(0, 3, 12, 9)
    found = figures(SEGMENTATION, segmentation(truth, truth), {})
    assert (found["dice"], found["hd95"]) == (1.0, 0.0)
