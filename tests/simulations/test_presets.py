"""The presets: what they set, and that the paper's run from files of their data set's form to a report.

The functions that write small data sets are used by other tests of this folder, too.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from simulations import checks, recipes
from simulations.compose import choices, compose_run, typed
from simulations.run import main
from simulations.schema import RunConfig

SOURCES = ("rosendahl", "vidir_modern", "vidir_molemax", "vienna_dias")
DIAGNOSES = ("mel", "nv")


def write_ham10000(root: Path, *, lesions: int = 10, sides: tuple[int, int] = (40, 30), outlines: bool = False) -> Path:
    """The table, and photographs in two folders: ``lesions`` of each diagnosis from each source.

    Every other lesion has two photographs. What needs attention is dark, and its outline is a rectangle.
    """
    folder = root / "ham10000"
    parts = [folder / f"HAM10000_images_part_{number}" for number in (1, 2)]
    masks = folder / "masks"
    for place in (*parts, *([masks] if outlines else [])):
        place.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for number, (source, dx, lesion) in enumerate(
        (source, dx, lesion) for source in SOURCES for dx in DIAGNOSES for lesion in range(lesions)
    ):
        for _ in range(1 + lesion % 2):
            name = f"ISIC_{len(rows):07d}"
            left, top = rng.integers(2, sides[0] // 2), rng.integers(2, sides[1] // 2)
            box = (slice(top, top + sides[1] // 2), slice(left, left + sides[0] // 2))
            pixels = rng.integers(170, 220, (sides[1], sides[0], 3)).astype(np.uint8)
            pixels[box] -= 130 if dx == "mel" else 60
            Image.fromarray(pixels).save(parts[len(rows) % 2] / f"{name}.jpg", quality=95)
            if outlines:
                outline = np.zeros((sides[1], sides[0]), dtype=np.uint8)
                outline[box] = 255
                Image.fromarray(outline).save(masks / f"{name}_segmentation.png")
            sex, age = ("female", "male", "unknown")[number % 3], ("35.0", "50.0", "80.0", "")[number % 4]
            rows.append((f"HAM_{number:07d}", name, dx, "histo", age, sex, "back", source))
    header = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset")
    _write_table(folder / "HAM10000_metadata.csv", header, rows)
    return folder


def write_decathlon(
    root: Path, task: str, *, modality: str, classes: Sequence[str], volumes: int, shape: tuple[int, int, int]
) -> Path:
    """A task's folder: ``dataset.json``, and for each volume a block of each class within brighter and brighter tissue.

    A CT has Hounsfield units, in 16 bits as in the Decathlon; anything else has grey levels without a meaning.
    """
    folder = root / "msd" / task
    for place in ("imagesTr", "labelsTr"):
        (folder / place).mkdir(parents=True)
    rng = np.random.default_rng(0)
    stem = task.partition("_")[2].lower()
    affine = np.diag([-0.8, -0.8, 2.5, 1.0]) if modality == "CT" else np.eye(4)
    training = []
    for number in range(volumes):
        labels = np.zeros(shape, dtype=np.uint8)
        corner = rng.integers(1, [side // 4 for side in shape])
        for k in range(1, len(classes)):
            # Each class lies within the one before, as a tumour in its organ.
            inner = tuple(
                slice(start + k - 1, start + side // 2 + 2 - k) for start, side in zip(corner, shape, strict=True)
            )
            labels[inner] = k
        grey = 60.0 * labels + rng.normal(0, 10, shape) - (100 if modality == "CT" else 0)
        grey[labels == 0] -= 60
        names = {part: f"{place}/{stem}_{number:03d}.nii.gz" for part, place in _PLACES.items()}
        nibabel.save(nibabel.Nifti1Image(grey.astype(np.int16), affine), folder / names["image"])
        nibabel.save(nibabel.Nifti1Image(labels, affine), folder / names["label"])
        training.append({part: f"./{name}" for part, name in names.items()})
    content = {
        "name": stem, "modality": {"0": modality}, "labels": {str(k): name for k, name in enumerate(classes)},
        "numTraining": volumes, "numTest": 0, "training": training, "test": [],
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


_PLACES = {"image": "imagesTr", "label": "labelsTr"}


def write_hippocampus(root: Path, *, volumes: int = 15) -> Path:
    """A small task of the Decathlon with two classes beside the background."""
    return write_decathlon(
        root,
        "Task04_Hippocampus",
        modality="MRI",
        classes=("background", "Anterior", "Posterior"),
        volumes=volumes,
        shape=(18, 20, 17),
    )


def write_radimagenet(root: Path, *, side: int = 32) -> Path:
    """Grey PNGs in nested folders and three tables; a class's images have one grey level, and grain."""
    folder = root / "radimagenet"
    rng = np.random.default_rng(0)
    classes = ("MR/af/Plantar_plate_tear", "MR/knee/acl_pathology", "CT/lung/Nodule", "US/gb")
    for split, count in (("train", 8), ("val", 4), ("test", 5)):
        rows = []
        for number, place in enumerate(classes):
            for image in range(count):
                name = f"radiology_ai/{place}/{split}{image:06d}.png"
                rows.append((name, place.rpartition("/")[2]))
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(40 * number, 40 * number + 60, (side, side)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / name)
        _write_table(folder / f"RadiologyAI_{split}.csv", ("filename", "label"), rows)
    return folder


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def preset(name: str, *arguments: str) -> RunConfig:
    return typed(compose_run([f"experiment={name}", *arguments]))


@pytest.mark.parametrize("name", choices("experiment"))
def test_every_preset_composes_and_can_be_used_at_every_budget(name: str) -> None:
    config = preset(name)
    assert config.name == name
    checks.check(config)
    for eps in (1.0, 8.0, 1e9, math.inf):
        hyper = recipes.choose(config.training, config.data.recipes, eps)
        assert hyper.batch_per == "federation"
        assert recipes.rounds_for(config.training.epochs or 1, hyper, [100] * config.clients) >= 1


DATA = {"ham10000": "ham10000", "msd_liver": "msd", "radimagenet": "radimagenet"}
"""The data set of each experiment of the paper."""


@pytest.mark.parametrize(
    ("name", "batch", "epochs", "clip", "image_size"),
    [
        ("ham10000", 2048, 100, 9.0, 224),
        ("msd_liver", 1, 500, 0.046, [128, 128, 50]),
        ("radimagenet", 3328, 50, 5.66, 224),
    ],
)
def test_the_full_presets_have_the_papers_settings(
    name: str, batch: float, epochs: float, clip: float, image_size: object
) -> None:
    config = preset(f"ziller_{name}")
    training, data, model = config.training, vars(config.data), vars(config.model)
    assert (training.expected_batch, training.batch_per, training.epochs) == (batch, "federation", epochs)
    server = config.federation
    if name == "ham10000":
        # NAdam is the server's, over the hospitals' single plain steps: what it would be in one place.
        assert (server.server_optimizer, server.server_learning_rate) == ("nadam", 2e-3)
        assert (training.local_steps, training.optimizer, training.learning_rate, training.momentum) == (1, "sgd", 1, 0)
    else:
        assert (server.server_optimizer, training.optimizer, training.learning_rate) == ("none", "nadam", 2e-3)
    assert training.schedule == "constant"
    assert (training.max_grad_norm, training.multiplicity) == (clip, 4)
    assert (training.rounds, training.precision, training.loss) == (None, "float32", "auto")
    assert config.delta == 8e-7
    assert (data["name"], data["image_size"]) == (DATA[name], image_size)
    if name == "msd_liver":
        assert (data["task"], model["name"], model["width"]) == ("Task03_Liver", "unet", 16)
    else:
        assert (model["name"], model["width"], model["weight_standardization"]) == ("resnet9", 64, True)
    if name == "ham10000":
        assert data["task"] == "binary"
        assert (config.clients, config.partition.scheme, config.partition.column) == (4, "natural", "dataset")


@pytest.mark.parametrize("name", DATA)
def test_the_small_presets_ask_the_same_of_the_same_federation_with_less(name: str) -> None:
    full, small = preset(f"ziller_{name}"), preset(f"ziller_{name}_small")
    for section in (lambda run: run.data.name, lambda run: run.model.name, lambda run: vars(run.partition),
                    lambda run: run.clients, lambda run: run.delta, lambda run: run.training.optimizer,
                    lambda run: getattr(run.data, "task", None), lambda run: run.adversary.attack):  # fmt: skip
        assert section(small) == section(full)
    assert vars(small.model)["width"] == 16
    assert np.prod(vars(small.data)["image_size"]) < np.prod(vars(full.data)["image_size"])
    assert small.training.multiplicity == 1


SMALL = ("engine=inprocess", "training.epochs=null", "training.rounds=1", "evaluation.bootstrap=50")


def run_preset(name: str, root: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """The summary of a small run over the data sets in ``root``."""
    monkeypatch.setenv("HBDP_DATA", str(root))
    assert main([f"experiment={name}", *SMALL, f"run_dir={root / 'run'}", *arguments]) == 0
    summary = json.loads((root / "run/summary.json").read_text(), parse_constant=pytest.fail)
    assert isinstance(summary, dict)
    check_is_complete(summary)
    assert (root / "run/report.html").stat().st_size > 10_000
    for picture in ("partition", "matrix"):
        assert (root / f"run/figures/{picture}.png").read_bytes().startswith(b"\x89PNG")
    return summary


def check_is_complete(summary: dict[str, Any]) -> None:
    """Everything that pages and tables read is there, whatever the task."""
    names = [entry["name"] for entry in summary["partition"]["hospitals"]]
    assert len(names) == summary["clients"]
    for entry in summary["partition"]["hospitals"]:
        assert entry["train"] > 0
    tested = [entry["test"] for entry in summary["partition"]["hospitals"]]
    assert [entry["records"] for entry in summary["utility_per_hospital"]] == tested
    assert sum(tested) == summary["utility"]["records"] > 0
    for entry in (summary["utility"], *summary["utility_per_hospital"], *summary["utility_by_subgroup"]):
        assert entry.keys() >= {*summary["metrics"], "records", "groups", "ci95"}
    assert summary["utility"]["ci95"].keys() >= set(summary["metrics"])
    assert any(summary["utility"]["ci95"].values())
    matrix = summary["utility_matrix"]
    assert [row["model"] for row in matrix["rows"]] == ["released", *names]
    assert matrix["hospitals"] == names
    assert {len(row["values"]) for row in matrix["rows"]} == {len(names)}
    assert summary["worst_hospital"]["name"] in names
    assert len(summary["validation_history"]) == summary["rounds"] == 1
    assert summary["participation"]["failed"] == 0
    assert summary["skipped"] == []


BOTH = pytest.mark.parametrize("size", [pytest.param("", marks=pytest.mark.slow), "_small"])


@BOTH
def test_the_skin_lesions_of_four_sources_run_from_their_files_to_the_report(
    size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ham10000(tmp_path)
    summary = run_preset(
        f"ziller_ham10000{size}", tmp_path, monkeypatch,
        "data.image_size=32", "data.val_fraction=0.2", "model.width=8", "adversary.bins=32",
        *(["training.expected_batch=40"] if size else []),
    )  # fmt: skip
    assert [entry["name"] for entry in summary["partition"]["hospitals"]] == list(SOURCES)
    assert (summary["partition"]["scheme"], summary["partition"]["column"]) == ("natural", "dataset")
    assert summary["partition"]["group"] == "lesion"
    assert {entry["attribute"] for entry in summary["utility_by_subgroup"]} == {"sex", "age", "dataset"}
    by_source = {e["value"]: e for e in summary["utility_by_subgroup"] if e["attribute"] == "dataset"}
    for entry in summary["utility_per_hospital"]:
        assert by_source[entry["name"]]["mcc"] == entry["mcc"]
        assert 0 < entry["groups"] < entry["records"]
    train = sum(entry["train"] for entry in summary["partition"]["hospitals"])
    (attack,) = (entry for entry in summary["risk"]["realistic"]["attacks"] if entry["name"] == "imprint")
    rates = [hospital["sample_rate"] for hospital in summary["privacy"]["hospitals"]]
    if size == "":
        # Fewer records than a batch: everyone takes part in every step.
        assert rates == [1.0] * 4
        assert attack["records"] == train
    else:
        assert rates == pytest.approx([40 / train] * 4)
        assert 0 < attack["records"] < train


@BOTH
def test_the_liver_task_runs_from_its_volumes_to_the_report(
    size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_decathlon(
        tmp_path,
        "Task03_Liver",
        modality="CT",
        classes=("background", "liver", "cancer"),
        volumes=15,
        shape=(36, 32, 20),
    )
    summary = run_preset(
        f"ziller_msd_liver{size}", tmp_path, monkeypatch, "data.image_size=[16,16,16]", "training.local_steps=3"
    )
    assert summary["class_names"] == ["background", "liver", "cancer"]
    assert summary["metrics"] == ["dice", "hd95"]
    assert summary["utility"].keys() >= {"dice_1", "dice_2", "hd95_1", "hd95_2"}
    assert summary["units"] == {"hd95": "mm"}
    assert summary["risk"]["realistic"]["attacks"] == []
    # A batch of the whole federation's: all sample alike.
    rates = [hospital["sample_rate"] for hospital in summary["privacy"]["hospitals"]]
    batch = {"": 1, "_small": 8}[size]
    assert rates == pytest.approx([batch / sum(entry["train"] for entry in summary["partition"]["hospitals"])] * 4)


@BOTH
def test_radiology_images_run_from_their_tables_to_the_report(
    size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_radimagenet(tmp_path)
    summary = run_preset(
        f"ziller_radimagenet{size}", tmp_path, monkeypatch,
        "data.image_size=32", "training.local_steps=2", "model.width=8", "adversary.bins=32",
    )  # fmt: skip
    assert summary["task"] == "multiclass"
    assert summary["class_names"] == ["Nodule", "Plantar_plate_tear", "acl_pathology", "gb"]
    assert [entry["train"] for entry in summary["partition"]["hospitals"]] == [7, 7, 6, 6, 6]
    (attack,) = (entry for entry in summary["risk"]["realistic"]["attacks"] if entry["name"] == "imprint")
    assert attack["records"] == 32
