"""The summary's figures of utility, computed again from what a run left: other code, the same numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, matthews_corrcoef, roc_auc_score

from hbdp_fed.data import as_floats
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.types import Weights
from simulations.compose import compose_run, typed
from simulations.prepare import Prepared, prepare
from simulations.run import main
from simulations.run_folder import RunFolder
from simulations.selection import Chosen
from simulations.utility import measure_utility, partition_summary
from tests.simulations.test_presets import write_ham10000

PHANTOM = (
    "engine=inprocess", "clients=3", "training.rounds=3", "training.local_steps=5", "training.expected_batch=16",
    "data.num_train=90", "data.num_val=60", "data.num_test=80", "model.width=4", "adversary.attack=none",
    "evaluation.bootstrap=60",
)  # fmt: skip
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Finished:
    """A finished run, and the same settings prepared again, which gives the same test records."""

    folder: Path
    summary: dict[str, Any]
    predictions: Arrays
    prepared: Prepared

    @property
    def site(self) -> np.ndarray:
        return self.prepared.federated.test_site.numpy()

    def logits(self, weights: Weights) -> torch.Tensor:
        """The answers of a model with these weights for all test records."""
        model = build_model(self.prepared.architecture).eval()
        load_weights(model, weights)
        with torch.no_grad():
            return model(as_floats(self.prepared.federated.test.images)).double()


def run(folder: Path, *arguments: str) -> Finished:
    assert main([*arguments, f"run_dir={folder}"]) == 0
    with np.load(folder / "predictions.npz", allow_pickle=False) as file:
        predictions = dict(file)
    return Finished(
        folder=folder,
        summary=json.loads((folder / "summary.json").read_text(), parse_constant=pytest.fail),
        predictions=predictions,
        prepared=prepare(typed(compose_run(list(arguments)))),
    )


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run(tmp_path_factory.mktemp("phantom") / "run", *PHANTOM)


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Outlines of skin lesions at the four hospitals that they come from; some lesions have two photographs."""
    root = tmp_path_factory.mktemp("lesions")
    write_ham10000(root, lesions=6, outlines=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HBDP_DATA", str(root))
        return run(
            root / "run", "engine=inprocess", "data=ham10000", "data.task=segmentation", "data.image_size=32",
            "data.test_fraction=0.4", "model=unet", "model.width=8", "partition.scheme=natural",
            "partition.column=dataset", "clients=4", "training.rounds=2", "training.local_steps=4",
            "training.expected_batch=24", "training.optimizer=nadam", "training.learning_rate=0.01",
            "evaluation.bootstrap=60",
        )  # fmt: skip


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Chest X-rays with any of fourteen findings, of which the last one is nowhere."""
    root = tmp_path_factory.mktemp("chests")
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 60), ("val", 40), ("test", 50)):
        labels = rng.integers(0, 2, (count, 14)).astype(np.uint8)
        labels[:, -1] = 0
        images = rng.integers(0, 60, (count, 28, 28))
        images[:, :14] += 100 * labels[:, :1, None]
        images[:, 14:] += 100 * labels[:, 1:2, None]
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels}
    (root / "medmnist").mkdir()
    np.savez(root / "medmnist/chestmnist.npz", **arrays)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HBDP_DATA", str(root))
        return run(
            root / "run", "engine=inprocess", "data=medmnist", "data.set=chestmnist", "model=cnn", "model.width=4",
            "clients=3", "training.rounds=2", "training.local_steps=4", "training.expected_batch=16",
            "evaluation.bootstrap=60",
        )  # fmt: skip


def by_sklearn(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    decisions = scores >= threshold
    return {
        "mcc": matthews_corrcoef(labels, decisions),
        "accuracy": accuracy_score(labels, decisions),
        "balanced_accuracy": balanced_accuracy_score(labels, decisions),
        "auroc": roc_auc_score(labels, scores),
    }


def close(found: Mapping[str, Any], expected: Mapping[str, Any], within: float = 1e-12) -> None:
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=within)


# Overall, and at each hospital.


def test_binary_figures_follow_from_the_predictions_at_the_stated_threshold(phantom: Finished) -> None:
    labels, scores = phantom.predictions["labels"], phantom.predictions["scores"]
    threshold = phantom.summary["utility"]["point"]["threshold"]
    close(phantom.summary["utility"], by_sklearn(labels, scores, threshold))
    assert phantom.summary["utility"]["auroc"] > 0.6
    for number, entry in enumerate(phantom.summary["utility_per_hospital"]):
        rows = phantom.site == number
        close(entry, {**by_sklearn(labels[rows], scores[rows], threshold), "records": rows.sum()})


def test_the_predictions_are_the_released_models_for_the_test_records_in_their_order(phantom: Finished) -> None:
    released = load_file(phantom.folder / "model.safetensors")
    scores = torch.softmax(phantom.logits(released), dim=1)[:, 1].numpy()
    np.testing.assert_allclose(phantom.predictions["scores"], scores, atol=1e-6)
    np.testing.assert_array_equal(phantom.predictions["labels"], phantom.prepared.federated.test.labels.numpy())
    assert set(phantom.predictions) == {"labels", "scores"}


def test_figures_of_several_findings_are_means_over_those_that_can_be_judged(chests: Finished) -> None:
    labels, scores = chests.predictions["labels"], chests.predictions["scores"]
    assert labels.shape == scores.shape == (50, 14)
    thresholds = chests.summary["utility"]["point"]["thresholds"]
    assert len(thresholds) == 14

    def expected(rows: np.ndarray) -> dict[str, float]:
        found = [
            by_sklearn(labels[rows, k], scores[rows, k], thresholds[k])
            for k in range(14)
            if len(np.unique(labels[rows, k])) == 2
        ]
        means = {name: float(np.mean([one[name] for one in found])) for name in ("mcc", "balanced_accuracy", "auroc")}
        # Right or wrong can be said of a finding that nobody has, too.
        return {**means, "accuracy": float(np.mean((scores[rows] >= thresholds) == labels[rows]))}

    close(chests.summary["utility"], expected(np.ones(50, dtype=bool)))
    for number, entry in enumerate(chests.summary["utility_per_hospital"]):
        close(entry, expected(chests.site == number))
    classes = [hospital["classes"] for hospital in chests.summary["partition"]["hospitals"]]
    held = chests.prepared.dataset.train.labels.sum(dim=0).tolist()
    assert [sum(own[name] for own in classes) for name in chests.summary["class_names"]] == held
    assert held[-1] == 0


def test_overlap_is_the_mean_over_records_that_have_the_class(lesions: Finished) -> None:
    test = lesions.prepared.federated.test
    decided = lesions.logits(load_file(lesions.folder / "model.safetensors")).argmax(dim=1)
    dice = np.array([
        f1_score(truth.flatten(), found.flatten(), zero_division=0)
        for truth, found in zip(test.labels.numpy(), decided.numpy(), strict=True)
    ])  # fmt: skip
    # MONAI counts in float32.
    np.testing.assert_allclose(lesions.predictions["dice"][:, 0], dice, atol=1e-6)
    close(lesions.summary["utility"], {"dice": dice.mean(), "dice_1": dice.mean(), "records": len(test)}, within=1e-6)
    distance = lesions.predictions["hd95"][:, 0]
    close(lesions.summary["utility"], {"hd95": distance.mean(), "hd95_1": distance.mean()})
    assert lesions.summary["utility"]["point"] == {}
    for number, entry in enumerate(lesions.summary["utility_per_hospital"]):
        rows = lesions.site == number
        close(entry, {"dice": dice[rows].mean(), "hd95": distance[rows].mean()}, within=1e-6)


def test_names_and_groups_go_along_with_the_predictions(lesions: Finished) -> None:
    test = lesions.prepared.federated.test
    assert test.names is not None
    assert test.groups is not None
    assert lesions.predictions["names"].tolist() == test.names.tolist()
    assert lesions.predictions["groups"].tolist() == test.groups.tolist()


@pytest.mark.parametrize("which", ["phantom", "lesions", "chests"])
def test_hospitals_add_up_and_the_worst_has_the_least_of_what_decides(
    which: str, request: pytest.FixtureRequest
) -> None:
    finished: Finished = request.getfixturevalue(which)
    summary = finished.summary
    hospitals = summary["utility_per_hospital"]
    assert sum(entry["records"] for entry in hospitals) == summary["utility"]["records"] == len(finished.site)
    deciding = summary["selection"][0]
    least = min(hospitals, key=lambda entry: entry[deciding])
    assert summary["worst_hospital"] == {"name": least["name"], "metric": deciding, "value": least[deciding]}
    for entry in (summary["utility"], *hospitals):
        for name, (low, high) in ((n, ends) for n, ends in entry["ci95"].items() if ends is not None):
            assert low <= high
            if entry is summary["utility"] and name == deciding:
                assert low < entry[name] < high
    by_round = {entry["round"]: entry for entry in summary["validation_history"]}
    assert list(by_round) == list(range(1, summary["rounds"] + 1))
    best = by_round[summary["utility"]["round"]]
    assert best[deciding] == max(entry[deciding] for entry in by_round.values())
    assert summary["utility_validation"][deciding] == best[deciding]


def test_subgroups_are_the_records_with_that_value(lesions: Finished) -> None:
    attributes, dice = lesions.prepared.federated.test.attributes, lesions.predictions["dice"][:, 0]
    entries = lesions.summary["utility_by_subgroup"]
    for attribute in ("sex", "age", "dataset"):
        own = [entry for entry in entries if entry["attribute"] == attribute]
        assert [entry["value"] for entry in own] == sorted(set(attributes[attribute].tolist()))
        assert sum(entry["records"] for entry in own) == len(dice)
        for entry in own:
            rows = attributes[attribute] == entry["value"]
            groups = lesions.predictions["groups"][rows]
            close(entry, {"dice": dice[rows].mean(), "records": rows.sum(), "groups": len(np.unique(groups))})


# The released model beside each hospital's own.


@pytest.mark.parametrize("which", ["phantom", "lesions", "chests"])
def test_the_matrix_begins_with_the_released_model_at_each_hospital(which: str, request: pytest.FixtureRequest) -> None:
    summary = request.getfixturevalue(which).summary
    matrix, hospitals = summary["utility_matrix"], summary["utility_per_hospital"]
    names = [entry["name"] for entry in hospitals]
    assert matrix["metric"] == summary["selection"][0]
    assert matrix["hospitals"] == names
    assert [row["model"] for row in matrix["rows"]] == ["released", *names]
    assert matrix["rows"][0]["values"] == [entry[matrix["metric"]] for entry in hospitals]


def own_weights(finished: Finished, hospital: str) -> Weights:
    """What a hospital trained in the released round: the weights before it and what it sent."""
    number = finished.summary["utility"]["round"]
    before = load_file(finished.folder / f"checkpoints/round-{number - 1:04d}.safetensors")
    sent = load_file(finished.folder / f"observations/round-{number:04d}/{hospital}.safetensors")
    return {name: (value + sent[name]).float() for name, value in before.items()}


def test_a_hospitals_own_model_is_what_it_was_handed_and_what_it_sent(phantom: Finished) -> None:
    threshold = phantom.summary["utility"]["point"]["threshold"]
    labels = phantom.predictions["labels"]
    for row in phantom.summary["utility_matrix"]["rows"][1:]:
        scores = torch.softmax(phantom.logits(own_weights(phantom, row["model"])), dim=1)[:, 1].numpy()
        expected = [
            matthews_corrcoef(labels[phantom.site == number], scores[phantom.site == number] >= threshold)
            for number in range(3)
        ]
        assert row["values"] == pytest.approx(expected, abs=1e-9)
    models = [tuple(row["values"]) for row in phantom.summary["utility_matrix"]["rows"]]
    assert len(set(models)) > 1


def test_a_hospitals_own_outlines_are_judged_as_the_released_ones(lesions: Finished) -> None:
    row = lesions.summary["utility_matrix"]["rows"][2]
    decided = lesions.logits(own_weights(lesions, row["model"])).argmax(dim=1).numpy()
    truth = lesions.prepared.federated.test.labels.numpy()
    dice = np.array([f1_score(t.flatten(), d.flatten(), zero_division=0) for t, d in zip(truth, decided, strict=True)])
    assert row["values"] == pytest.approx([dice[lesions.site == number].mean() for number in range(4)], abs=1e-6)


# What may be missing. Nothing is trained from here on: a model with its starting weights can be judged as well.


def prepared_phantom(*arguments: str) -> Prepared:
    return prepare(typed(compose_run([*PHANTOM, *arguments])))


def judged(prepared: Prepared, folder: Path, **local: Weights) -> dict[str, Any]:
    chosen = Chosen(
        round=1, weights=prepared.initial, point={"threshold": 0.5}, validation={"mcc": 0.0}, local=local
    )  # fmt: skip
    return measure_utility(prepared, chosen, RunFolder(folder))


def test_intervals_and_the_matrix_can_be_left_out(tmp_path: Path) -> None:
    assert main([*PHANTOM, "training.rounds=1", "evaluation.matrix=0", "evaluation.bootstrap=0",
                 f"run_dir={tmp_path / 'r'}"]) == 0  # fmt: skip
    summary = json.loads((tmp_path / "r/summary.json").read_text())
    assert summary["utility_matrix"] is None
    assert summary["utility"]["ci95"] == {}
    assert all(entry["ci95"] == {} for entry in summary["utility_per_hospital"])
    assert (tmp_path / "r/report.html").exists()
    assert not (tmp_path / "r/figures/matrix.png").exists()


def test_a_federation_that_is_larger_than_the_matrix_has_none(tmp_path: Path) -> None:
    given = ["training.rounds=1", "training.local_steps=1", "evaluation.bootstrap=0"]
    for matrix, rows in ((2, None), (3, 4)):
        assert main([*PHANTOM, *given, f"evaluation.matrix={matrix}", f"run_dir={tmp_path / str(matrix)}"]) == 0
        found = json.loads((tmp_path / str(matrix) / "summary.json").read_text())["utility_matrix"]
        assert (found and len(found["rows"])) == rows


def test_a_hospital_without_test_records_has_no_figures_and_is_never_the_worst(tmp_path: Path) -> None:
    prepared = prepared_phantom("clients=12", "data.num_test=8")
    found = judged(prepared, tmp_path, **{"hospital-01": prepared.initial})
    empty = [entry for entry in found["utility_per_hospital"] if entry["records"] == 0]
    assert len(empty) >= 4
    for entry in empty:
        assert all(entry[name] is None for name in prepared.task.metrics)
        assert entry["ci95"] == {}
    names = [entry["name"] for entry in empty]
    assert found["worst_hospital"] is None or found["worst_hospital"]["name"] not in names
    for row in found["utility_matrix"]["rows"]:
        for name, value in zip(found["utility_matrix"]["hospitals"], row["values"], strict=True):
            assert value is None or name not in names


def test_a_hospitals_own_model_that_has_diverged_has_a_row_without_figures(tmp_path: Path) -> None:
    prepared = prepared_phantom("evaluation.bootstrap=0")
    broken = {name: torch.full_like(value, 1e38) for name, value in prepared.initial.items()}
    found = judged(prepared, tmp_path, **{"hospital-01": prepared.initial, "hospital-02": broken})
    released, first, second = (row["values"] for row in found["utility_matrix"]["rows"])
    assert first == released
    assert second == [None, None, None]


def test_the_bootstrap_follows_the_seed(tmp_path: Path) -> None:
    prepared = prepared_phantom()
    first, again = (judged(prepared, tmp_path)["utility"]["ci95"] for _ in range(2))
    assert first == again
    other = replace(prepared, config=replace(prepared.config, seed=1))
    assert judged(other, tmp_path)["utility"]["ci95"] != first


# Who holds what.


@pytest.mark.parametrize("which", ["phantom", "lesions", "chests"])
def test_the_partition_adds_up(which: str, request: pytest.FixtureRequest) -> None:
    finished: Finished = request.getfixturevalue(which)
    dataset, partition = finished.prepared.dataset, finished.summary["partition"]
    for split, records in (("train", dataset.train), ("val", dataset.val), ("test", dataset.test)):
        assert sum(entry[split] for entry in partition["hospitals"]) == len(records)
    sizes = [plan["num_records"] for plan in finished.summary["privacy"]["hospitals"]]
    assert [entry["train"] for entry in partition["hospitals"]] == sizes
    if dataset.task == "binary":
        for entry in partition["hospitals"]:
            assert list(entry["classes"]) == ["healthy", "lesion"]
            assert sum(entry["classes"].values()) == entry["train"]
    grouped = dataset.train.groups is not None
    assert partition["group"] == ("lesion" if grouped else "record")
    for entry in partition["hospitals"]:
        assert (entry["groups"] is not None) is grouped
    if grouped:
        # Every lesion has one source, so that no hospital shares one with another.
        assert sum(entry["groups"] for entry in partition["hospitals"]) == len(dataset.train.groups.unique())
        assert all(entry["classes"] == {} for entry in partition["hospitals"])


def test_settings_that_the_scheme_does_not_look_at_are_not_told(lesions: Finished) -> None:
    partition = lesions.summary["partition"]
    assert (partition["scheme"], partition["column"], partition["sizes"]) == ("natural", "dataset", None)
    told = partition_summary(prepared_phantom("partition.column=dataset", "partition.sizes=power_law"))
    assert (told["scheme"], told["column"], told["sizes"]) == ("iid", None, "power_law")
