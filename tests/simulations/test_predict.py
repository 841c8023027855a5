"""A released model asked about images: the same answers that the run gave itself, and clear refusals."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from hbdp_fed.data import load_dataset
from hbdp_fed.models import build_model, initial_weights, save_weights, weights_sha256
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelSpec
from simulations.predict import main
from simulations.run import main as run

QUICK = [
    "engine=inprocess", "clients=2", "training.rounds=1", "training.local_steps=2", "training.expected_batch=4",
    "training.learning_rate=0.1", "training.max_grad_norm=1", "adversary.attack=none", "evaluation.bootstrap=0",
    "evaluation.matrix=0", "data.scanner_shift=0",
]  # fmt: skip


def answered(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*map(str, arguments), "format=json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    return told.err


def by_image(told: Mapping[str, Any]) -> dict[str, Any]:
    return {Path(one["image"]).name: one for one in told["predictions"]}


# What the run said itself.


@pytest.mark.parametrize("data", ["phantom", "pneumoniamnist"])
def test_the_test_split_is_answered_as_in_the_run(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, images, rng = tmp_path / "run", tmp_path / "images", np.random.default_rng(0)
    options = {"num_train": 40, "num_val": 20, "num_test": 24} if data == "phantom" else {}
    if data != "phantom":
        arrays = {}
        for split, count in (("train", 40), ("val", 20), ("test", 24)):
            arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
            arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)
        (tmp_path / "medmnist").mkdir()
        np.savez(tmp_path / "medmnist" / "pneumoniamnist.npz", **arrays)  # type: ignore[arg-type]
    monkeypatch.setenv("HBDP_DATA", str(tmp_path))
    settings = [f"data.{name}={value}" for name, value in options.items()]
    assert run([*QUICK, f"data={data}", "model.width=4", f"run_dir={folder}", *settings]) == 0
    test = load_dataset(data, root=tmp_path, options=options).test.images
    images.mkdir()
    if data == "phantom":
        np.save(images / "all.npy", test.numpy())
        names = [f"all.npy[{number}]" for number in range(len(test))]
    else:
        names = [f"{number:02d}.png" for number in range(len(test))]
        for name, image in zip(names, test, strict=True):
            Image.fromarray(image[0].numpy()).save(images / name)
    told = answered(capsys, folder, images)
    found = by_image(told)
    with np.load(folder / "predictions.npz") as file:
        scores = file["scores"]
    mine = [found[name]["probabilities"][told["class_names"][1]] for name in names]
    assert np.abs(np.asarray(mine) - scores).max() < 1e-6
    threshold = json.loads((folder / "summary.json").read_text())["utility"]["point"]["threshold"]
    clear = np.abs(scores - threshold) > 1e-6
    decided = np.asarray([found[name]["decision"] == [told["class_names"][1]] for name in names])
    assert np.array_equal(decided[clear], (scores >= threshold)[clear])


def test_the_outlines_of_the_test_split_overlap_as_in_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dice by hand from the written masks, on the files' own grid, against what the run measured on the model's."""
    task, rng, pairs = tmp_path / "msd" / "Task99_Test", np.random.default_rng(1), []
    for number in range(14):
        label = np.zeros((16, 16, 16), dtype=np.uint8)
        corner = rng.integers(2, 6, 3)
        label[tuple(slice(start, start + 5) for start in corner)] = 1
        grey = (600.0 * label + rng.normal(0, 100, label.shape)).astype(np.int16)
        pair = {"image": f"imagesTr/{number}.nii.gz", "label": f"labelsTr/{number}.nii.gz"}
        for place, array in ((pair["image"], grey), (pair["label"], label)):
            (task / place).parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.diag([-1.0, 1.0, 2.0, 1.0])), task / place)
        pairs.append(pair)
    content = {"labels": {"0": "background", "1": "organ"}, "modality": {"0": "MRI"}, "training": pairs}
    (task / "dataset.json").write_text(json.dumps(content))
    monkeypatch.setenv("HBDP_DATA", str(tmp_path))
    folder, masks = tmp_path / "run", tmp_path / "masks"
    own = ["data=msd", "data.task=Task99_Test", "data.image_size=[16,16,16]", "model=unet", "model.width=8"]
    assert run([*QUICK, *own, "eps=inf", f"run_dir={folder}"]) == 0
    with np.load(folder / "predictions.npz") as file:
        names, dice = file["names"].tolist(), file["dice"][:, 0]
    assert dice.max() > 0.1
    files = [task / "imagesTr" / f"{name}.nii.gz" for name in names]
    told = answered(capsys, folder, *files, f"masks={masks}")
    assert [one["mask"] for one in told["predictions"]] == [str(masks / f"{name}_mask.nii.gz") for name in names]
    for name, expected, one in zip(names, dice, told["predictions"], strict=True):
        mask = np.asarray(nibabel.load(masks / f"{name}_mask.nii.gz").dataobj)  # type: ignore[attr-defined]
        truth = np.asarray(nibabel.load(task / "labelsTr" / f"{name}.nii.gz").dataobj)  # type: ignore[attr-defined]
        assert mask.shape == truth.shape
        assert one["sizes"] == {"organ": int((mask == 1).sum())}
        assert 2 * ((mask == 1) & (truth == 1)).sum() / (mask.sum() + truth.sum()) == pytest.approx(expected, abs=1e-6)


# Models that were written by hand.


def write_model(
    folder: Path,
    task: str,
    classes: Sequence[str],
    point: Mapping[str, Any],
    *,
    shape: Sequence[int] = (1, 16, 16),
    name: str = "cnn",
    width: int = 4,
    kind: str | None = "array",
) -> Path:
    folder.mkdir(parents=True)
    spec = ModelSpec(name, {"in_channels": shape[0], "num_classes": len(classes), "width": width, "spatial_dims": 2})
    weights = initial_weights(build_model(spec), generator(0, "test"))
    save_weights(folder / "model.safetensors", weights)
    preparation = None if kind is None else {"kind": kind, "words": "", "details": {"mode": "RGB", "size": shape[1:]}}
    card = {
        "schema": 1, "kind": "run_card", "task": task, "class_names": list(classes), "point": point,
        "architecture": {"name": spec.name, "args": spec.args}, "model_file": "model.safetensors",
        "model_sha256": weights_sha256(weights), "input": {"shape": list(shape), "preparation": preparation},
        "data": {"name": "written"},
    }  # fmt: skip
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def pictures(folder: Path, count: int = 3, *, shape: tuple[int, ...] = (16, 16)) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    rng, paths = np.random.default_rng(2), [folder / f"{number}.png" for number in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(path)
    return paths


def logits_of(folder: Path, paths: Sequence[Path]) -> torch.Tensor:
    from safetensors.torch import load_file

    card = json.loads((folder / "card.json").read_text())
    model = build_model(ModelSpec(card["architecture"]["name"], card["architecture"]["args"])).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    images = torch.stack([torch.from_numpy(np.array(Image.open(path))).float()[None] / 255 for path in paths])
    with torch.no_grad():
        found: torch.Tensor = model(images)
    return found


@pytest.mark.parametrize("by_file", [False, True])
def test_several_findings_are_called_each_from_its_own_threshold(
    by_file: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, names = pictures(tmp_path / "images"), ["mass", "nodule", "edema"]
    folder = write_model(tmp_path / "model", "multilabel", names, {"thresholds": [0.0, 1.0, 0.5]})
    told = answered(capsys, folder / "model.safetensors" if by_file else folder, *paths)
    scores = torch.sigmoid(logits_of(folder, paths))
    for one, expected in zip(told["predictions"], scores, strict=True):
        assert list(one["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-6)
        called = [name for name, p, at in zip(names, expected, (0.0, 1.0, 0.5), strict=True) if p >= at]
        assert one["decision"] == called


def test_the_likeliest_of_several_classes_is_decided_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths, names = pictures(tmp_path / "images"), [f"class {number}" for number in range(9)]
    folder = write_model(tmp_path / "model", "multiclass", names, {})
    expected = torch.softmax(logits_of(folder, paths), dim=1)
    told = answered(capsys, folder, tmp_path / "images")
    for one, scores in zip(told["predictions"], expected, strict=True):
        assert list(one["probabilities"].values()) == pytest.approx(scores.tolist(), abs=1e-6)
        assert one["decision"] == [names[int(scores.argmax())]]
    assert main([str(folder), str(tmp_path / "images")]) == 0
    shown = capsys.readouterr().out
    assert f"{float(expected[0].max()):.3f}" in shown
    # Nine columns of probabilities have no room: the decision's own stands for them.
    assert "probability" in shown
    assert f"{float(expected[0].min()):.3f}" not in shown


def test_a_picture_that_is_segmented_has_a_mask_of_its_own_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "images", 2, shape=(40, 24, 3))
    folder = write_model(
        tmp_path / "model",
        "segmentation",
        ["skin", "lesion"],
        {},
        shape=(3, 16, 16),
        name="unet",
        width=8,
        kind="photograph",
    )
    told = answered(capsys, folder, tmp_path / "images", f"masks={tmp_path / 'masks'}")
    for one in told["predictions"]:
        mask = np.array(Image.open(one["mask"]))
        assert mask.shape == (40, 24)
        assert one["sizes"] == {"lesion": int((mask == 1).sum())}
        assert one["decision"] == (["lesion"] if mask.any() else [])


BINARY: tuple[str, Sequence[str], Mapping[str, Any]] = ("binary", ["healthy", "lesion"], {"threshold": 0.5})


def test_csv_has_every_digit_and_a_line_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, paths = write_model(tmp_path / "model", *BINARY), pictures(tmp_path / "images")
    told = answered(capsys, folder, *paths)
    assert main([str(folder), *map(str, paths), f"output={tmp_path / 'answers.csv'}"]) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "answers.csv").read_text())))
    assert [row["image"] for row in rows] == [str(path) for path in paths]
    for row, one in zip(rows, told["predictions"], strict=True):
        assert row["decision"] == one["decision"][0]
        assert float(row["probability of lesion"]) == one["probabilities"]["lesion"]
    assert str(tmp_path / "answers.csv") in capsys.readouterr().out


def test_a_file_that_cannot_be_read_ends_before_anything_is_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_model(tmp_path / "model", *BINARY)
    pictures(tmp_path / "images", 70)
    (tmp_path / "images" / "z.png").write_text("no picture")
    monkeypatch.setattr("simulations.predict.ReleasedModel.load", lambda *_, **__: pytest.fail("it was loaded"))
    told = refused(capsys, folder, tmp_path / "images")
    assert told.startswith(f"error: {tmp_path / 'images' / 'z.png'}: cannot be read")
    assert told.rstrip().endswith("repair it, or leave such records out with on_bad_record=skip")


def test_files_that_cannot_be_read_are_left_out_and_listed_if_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, paths = write_model(tmp_path / "model", *BINARY), pictures(tmp_path / "images")
    paths[1].write_text("no picture")
    capsys.readouterr()
    assert main([str(folder), str(tmp_path / "images"), "on_bad_record=skip", "format=json"]) == 0
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert list(by_image(told)) == ["0.png", "2.png"]
    assert told["skipped"][0].startswith(f"{paths[1]}: cannot be read")
    assert f"left out: {paths[1]}: cannot be read" in shown.err
    assert "none of the 1 files could be used" in refused(capsys, folder, paths[1], "on_bad_record=skip")


def test_weights_that_are_not_the_cards_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, paths = write_model(tmp_path / "model", *BINARY), pictures(tmp_path / "images")
    spec = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
    save_weights(folder / "model.safetensors", initial_weights(build_model(spec), generator(1, "test")))
    assert "holds other weights than its card describes" in refused(capsys, folder, *paths)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["model"], "name a model, and images behind it"),
        (["none", "images"], "MODEL: 'none' does not exist"),
        (["images", "images"], "card.json: there is no such file"),
        (["model", "nothing"], "nothing: there is no such file or folder"),
        (["model", "images", "masks=m"], "masks: are what a segmentation answers; this model's task is binary"),
        (["model", "images", "format=md"], "format: 'md' is not known; choose one of: csv, json, table"),
        (["model", "images", "output=none/a.csv"], "output: the folder"),
        (["model", "images", "on_bad_record=ignore"], "on_bad_record: 'ignore' is not known"),
        (["model", "images", "device=tpu"], "device: 'tpu' is not known"),
        (["model", "images", "threshold=0.5"], "threshold: there is no such setting"),
    ],
)
def test_what_cannot_be_used_is_told_before_a_model_is_loaded(
    given: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model", *BINARY)
    pictures(tmp_path / "images")
    monkeypatch.setattr("simulations.predict.ReleasedModel.load", lambda *_, **__: pytest.fail("it was loaded"))
    assert message in refused(capsys, *given)


def test_help_says_what_images_can_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "MODEL IMAGES..." in capsys.readouterr().out
