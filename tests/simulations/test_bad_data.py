"""Data that is broken and settings that do not fit the data: one line with the path or the key, before any training."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from hbdp_fed.models import initial_weights, save_weights
from hbdp_fed.models.cnn import SmallCnn
from hbdp_fed.seeding import generator
from simulations.compose import compose_run, typed
from simulations.prepare import Prepared, prepare
from simulations.run import main
from tests.simulations.refusing import refusal
from tests.simulations.test_presets import write_ham10000, write_hippocampus

VOLUMES = (
    "data=msd", "data.image_size=[16,16,16]", "data.val_fraction=0.2", "clients=2", "engine=inprocess",
    "training.rounds=1", "training.local_steps=1", "evaluation.bootstrap=0",
)  # fmt: skip
HIPPOCAMPUS = (*VOLUMES, "model=unet", "model.width=8")
LESIONS = ("data=ham10000", "data.image_size=16", "data.val_fraction=0.2", "clients=2", "model.width=4")
PHANTOM = ("data.num_train=60", "data.num_val=40", "data.num_test=40", "model.width=4", "clients=2", "engine=inprocess")

Harm = Callable[[Path], Path]
"""Breaks a data set in its folder, and says which file an error should name."""


@pytest.fixture
def hippocampus(root: Path) -> Path:
    return write_hippocampus(root)


@pytest.fixture
def lesions(root: Path) -> Path:
    return write_ham10000(root, lesions=4, sides=(24, 18))


def prepared(*arguments: str) -> Prepared:
    return prepare(typed(compose_run(arguments)))


# Files.


def _no_label(folder: Path) -> Path:
    (folder / "labelsTr/hippocampus_003.nii.gz").unlink()
    return folder / "imagesTr/hippocampus_003.nii.gz"


def _unlisted_volume(folder: Path) -> Path:
    extra = folder / "imagesTr/hippocampus_900.nii.gz"
    extra.write_bytes((folder / "imagesTr/hippocampus_003.nii.gz").read_bytes())
    return extra


def _label_alone(folder: Path) -> Path:
    extra = folder / "labelsTr/hippocampus_901.nii.gz"
    extra.write_bytes((folder / "labelsTr/hippocampus_000.nii.gz").read_bytes())
    return extra


def _cut_off(folder: Path) -> Path:
    path = folder / "imagesTr/hippocampus_003.nii.gz"
    path.write_bytes(path.read_bytes()[:300])
    return path


def _no_gzip(folder: Path) -> Path:
    path = folder / "imagesTr/hippocampus_003.nii.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))
    return path


def _label_out_of_range(folder: Path) -> Path:
    path = folder / "labelsTr/hippocampus_003.nii.gz"
    stored = nibabel.load(path)
    labels = np.asanyarray(stored.dataobj).copy()  # type: ignore[attr-defined]
    labels[4, 4, 4] = 3
    nibabel.save(nibabel.Nifti1Image(labels, stored.affine), path)  # type: ignore[attr-defined]
    return path


@pytest.mark.parametrize(
    ("harm", "problem", "usable"),
    [
        (_no_label, "has no label", 14),
        (_unlisted_volume, "is a volume without label", 15),
        (_label_alone, "is a label without volume", 15),
        (_cut_off, "cannot be read", 14),
        (_no_gzip, "cannot be read", 14),
        (_label_out_of_range, "holds the label 3, but the classes are 0 to 2", 14),
    ],
)
def test_a_volume_that_cannot_be_used_ends_the_run_or_is_left_out_and_counted(
    harm: Harm, problem: str, usable: int, hippocampus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = harm(hippocampus)
    told = refusal(capsys, *HIPPOCAMPUS)
    assert f"error: {path}: " in told
    assert problem in told
    assert "data.on_bad_record=skip" in told
    dataset = prepared(*HIPPOCAMPUS, "data.on_bad_record=skip").dataset
    (line,) = dataset.skipped
    assert line.startswith(f"{path}: ")
    assert problem in line
    assert sum(map(len, (dataset.train, dataset.val, dataset.test))) == usable


def test_what_was_left_out_is_shown_and_is_in_the_summary(
    hippocampus: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    paths = [_no_label(hippocampus), _label_alone(hippocampus)]
    run_dir = tmp_path / "run"
    assert main([*HIPPOCAMPUS, "data.on_bad_record=skip", f"run_dir={run_dir}"]) == 0
    summary = json.loads((run_dir / "summary.json").read_text())
    assert len(summary["skipped"]) == 2
    shown = capsys.readouterr().out
    assert "left out 2 records (data.on_bad_record=skip):" in shown
    for path, line in zip(paths, summary["skipped"], strict=True):
        assert line.startswith(f"{path}: ")
        assert str(path) in shown
    held = sum(entry[split] for entry in summary["partition"]["hospitals"] for split in ("train", "val", "test"))
    assert held == 14


def test_a_task_that_is_not_there_names_the_ones_that_are(
    hippocampus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refusal(capsys, *HIPPOCAMPUS, "data.task=Task03_Liver")
    assert str(hippocampus.parent / "Task03_Liver/dataset.json") in told
    assert "Task04_Hippocampus" in told


def test_a_broken_list_is_named(hippocampus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (hippocampus / "dataset.json").write_text('{"labels": {"0": "background"}}')
    assert str(hippocampus / "dataset.json") in refusal(capsys, *HIPPOCAMPUS)


def _no_photograph(folder: Path) -> Path:
    (folder / "HAM10000_images_part_1/ISIC_0000004.jpg").unlink()
    return Path("ISIC_0000004.jpg")


def _half_a_photograph(folder: Path) -> Path:
    path = folder / "HAM10000_images_part_2/ISIC_0000005.jpg"
    path.write_bytes(path.read_bytes()[:200])
    return path


def _unknown_diagnosis(folder: Path) -> Path:
    path = folder / "HAM10000_metadata.csv"
    lines = path.read_text().splitlines()
    assert ",mel," in lines[3]
    lines[3] = lines[3].replace(",mel,", ",melanoma,")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (_no_photograph, "there is no such file"),
        (_half_a_photograph, "cannot be read"),
        (_unknown_diagnosis, "the diagnosis 'melanoma'"),
    ],
)
def test_a_photograph_that_cannot_be_used_ends_the_run_or_is_left_out_and_counted(
    harm: Harm, problem: str, lesions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = harm(lesions)
    told = refusal(capsys, *LESIONS)
    assert str(path) in told
    assert problem in told
    dataset = prepared(*LESIONS, "data.on_bad_record=skip", "adversary.attack=none").dataset
    (line,) = dataset.skipped
    assert str(path) in line
    assert problem in line
    assert sum(map(len, (dataset.train, dataset.val, dataset.test))) == 48 - 1


def test_what_becomes_of_bad_records_is_one_of_two(lesions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refusal(capsys, *LESIONS, "data.on_bad_record=ignore")
    assert told == "error: data.on_bad_record: 'ignore' is not known; choose one of: skip, stop\n"


# Settings that do not fit the data.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["model=cnn"],
            "model: cnn cannot be trained on msd: the data set asks for a class for every pixel: set model=unet",
        ),
        (["model=resnet9"], "model: resnet9 cannot be trained on msd: the data set asks for a class for every pixel"),
        (["data.image_size=[16,16]"], "data.image_size: must be three numbers"),
        (["adversary.attack=imprint"], "adversary.attack: imprint rebuilds images of binary and multiclass tasks; "),
        (["training.class_weights=[1,2]"], "training.class_weights: must be one number for each of background, Ant"),
        (["training.loss=binary_cross_entropy"], "training.loss: binary_cross_entropy does not suit a segmentation"),
        (["data.subgroups=[sex]"], "data.subgroups: msd has no column to group records by"),
        (["data.scanner_shift=1.5"], "data.scanner_shift: must be a number between 0 and 1, got 1.5"),
        (["partition.scheme=natural", "partition.column=x"], "partition.scheme: this data set has no column that nam"),
    ],
)
def test_what_does_not_suit_volumes_is_refused(
    arguments: list[str], message: str, hippocampus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The model may be named once.
    given = VOLUMES if arguments[0].startswith("model=") else HIPPOCAMPUS
    assert refusal(capsys, *given, *arguments).startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.subgroups=[sex,hair]"], "data.subgroups: 'hair' is not known; choose one of: age, dataset, dx, "),
        (["data.task=regression"], "data.task: 'regression' is not known; choose one of: binary, multiclass, segm"),
        (["partition.scheme=natural"], "partition.column: natural needs the column that names the hospital, one of: "),
        (["partition.scheme=natural", "partition.column=site"], "partition.column: 'site' is not known; choose one of"),
        (
            ["partition.scheme=natural", "partition.column=dataset"],
            "clients: the column 'dataset' names 4 hospitals (rosendahl, vidir_modern, vidir_molemax, vienna_dias): "
            "set clients=4",
        ),
    ],
)
def test_what_does_not_suit_photographs_with_attributes_is_refused(
    arguments: list[str], message: str, lesions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(capsys, *LESIONS, *arguments).startswith(f"error: {message}")


def test_outlines_need_a_model_that_draws_them(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_ham10000(root, lesions=4, sides=(24, 18), outlines=True)
    given = (*LESIONS, "data.task=segmentation")
    told = refusal(capsys, *given, "model=cnn")
    assert (
        "model: cnn cannot be trained on ham10000: the data set asks for a class for every pixel: set model=unet"
        in told
    )
    assert "adversary.attack: imprint rebuilds" in refusal(
        capsys,
        "data=ham10000",
        "data.task=segmentation",
        "data.image_size=16",
        "model=unet",
        "adversary.attack=imprint",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["model=unet", "model.width=8"],
            "model: unet cannot be trained on phantom: the data set asks for one answer an ",
        ),
        (
            ["training.class_weights=[1,2,3]"],
            "training.class_weights: must be one number for each of healthy, lesion; got 3",
        ),
        (
            ["training.class_weights=[]"],
            "training.class_weights: must be one number for each of healthy, lesion; got 0",
        ),
        (["training.class_weights=[1,0]"], "training.class_weights: must be positive finite numbers"),
        (["training.loss=dice_cross_entropy"], "training.loss: dice_cross_entropy does not suit a binary task: "),
        (["training.loss=binary_cross_entropy"], "training.loss: binary_cross_entropy does not suit a binary task: "),
        (["data.subgroups=[sex]"], "data.subgroups: phantom has no column to group records by: set it to []"),
        (["training.rounds=1", "training.epochs=1"], "training.epochs: takes the place of training.rounds"),
        (["training.epochs=0"], "training.epochs: must be positive and finite, got 0"),
        (["training.batch_per=site"], "training.batch_per: 'site' is not known; choose one of: federation, hospital"),
        (["partition.scheme=natural"], "partition.scheme: this data set has no column that names a hospital"),
    ],
)
def test_what_does_not_suit_plain_images_is_refused(
    arguments: list[str], message: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(capsys, *PHANTOM, *arguments).startswith(f"error: {message}")


def test_starting_weights_that_cannot_be_used_are_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / "start.safetensors"
    given = (*PHANTOM, f"model.weights={path}", "adversary.attack=none")
    assert refusal(capsys, *given) == f"error: {path}: there is no such file\n"
    path.write_bytes(b"no weights")
    assert refusal(capsys, *given).startswith(f"error: {path}: not a readable safetensors file")
    save_weights(path, initial_weights(SmallCnn(in_channels=3, num_classes=2, width=4), generator(0)))
    told = refusal(capsys, *given)
    assert told.startswith(f"error: model.weights: {path} does not fit the model: features.0.weight has shape")
    assert "model.weights_partial=true" in told
    ready = prepared(*given, "model.weights_partial=true")
    assert ready.fresh == ("features.0.weight",)


def test_starting_weights_are_where_training_starts(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also from a path below the home folder."""
    monkeypatch.setenv("HOME", str(root))
    weights = initial_weights(SmallCnn(in_channels=1, num_classes=2, width=4), generator(9))
    save_weights(root / "start.safetensors", weights)
    ready = prepared(*PHANTOM, "model.weights='~/start.safetensors'")
    assert ready.fresh == ()
    assert ready.initial.keys() == weights.keys()
    assert all(bool((ready.initial[name] == value).all()) for name, value in weights.items())
