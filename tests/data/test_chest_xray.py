"""Chest X-rays in folders: small ones of the same layout that the tests write, bad ones, and the real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hbdp_fed.data.chest_xray import load_chest_xray
from hbdp_fed.errors import DataFileError, SettingError

SIZE = 16


def write_image(path: Path, level: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(level).integers(0, 256, (40, 50), dtype=np.uint8)
    pixels[:, :25] = level
    Image.fromarray(pixels).save(path)
    return path


def write_set(root: Path, persons: int = 30) -> Path:
    """Folders of the true form: each person has two bacterial images, some a viral one; two series of healthy ones."""
    folder = root / "chest_xray"
    for split, first in (("train", 1), ("test", 500)):
        for person in range(first, first + persons):
            for image in (1, 2):
                write_image(folder / split / "PNEUMONIA" / f"person{person}_bacteria_{10 * person + image}.jpeg", 200)
            if person % 3 == 0:
                write_image(folder / split / "PNEUMONIA" / f"person{person}_virus_{person}.jpeg", 150)
            write_image(folder / split / "NORMAL" / f"IM-{person:04d}-0001.jpeg", 50)
            write_image(folder / split / "NORMAL" / f"NORMAL2-IM-{person:04d}-0001-0002.jpeg", 20)
    return folder


def test_classes_kinds_names_and_splits_are_the_folders_and_names(tmp_path: Path) -> None:
    write_set(tmp_path)
    dataset = load_chest_xray(root=tmp_path, image_size=SIZE)
    assert (dataset.name, dataset.task, dataset.group) == ("chest_xray", "binary", "patient")
    assert dataset.class_names == ("normal", "pneumonia")
    assert len(dataset.train) + len(dataset.val) == len(dataset.test) == 130
    for split, records in (("train", dataset.train), ("train", dataset.val), ("test", dataset.test)):
        assert records.images.shape[1:] == (1, SIZE, SIZE)
        assert records.images.dtype == torch.uint8
        assert records.names is not None
        for name, label, kind in zip(records.names, records.labels.tolist(), records.attributes["kind"], strict=True):
            assert name.startswith(f"{split}/{'PNEUMONIA' if label else 'NORMAL'}/")
            assert kind in name or (kind == "normal" and "IM-" in name)
            assert (tmp_path / "chest_xray" / name).is_file()
    assert dataset.skipped == ()


def test_images_belong_to_their_names(tmp_path: Path) -> None:
    write_set(tmp_path)
    records = load_chest_xray(root=tmp_path, image_size=SIZE).test
    left = records.images[:, 0, 4:12, 2:6].float().mean(dim=(1, 2))
    assert records.names is not None
    for name, level in zip(records.names, left.tolist(), strict=True):
        expected = 200 if "bacteria" in name else 150 if "virus" in name else 20 if "NORMAL2" in name else 50
        assert level == pytest.approx(expected, abs=8)


def test_the_multiclass_task_tells_the_kinds_apart(tmp_path: Path) -> None:
    write_set(tmp_path)
    dataset = load_chest_xray(root=tmp_path, image_size=SIZE, task="multiclass")
    assert dataset.class_names == ("normal", "bacteria", "virus")
    kinds = [dataset.class_names[label] for label in dataset.train.labels.tolist()]
    assert kinds == dataset.train.attributes["kind"].tolist()
    assert set(kinds) == set(dataset.class_names)


def patients(names: np.ndarray) -> set[str]:
    """Person or healthy patient by number alone, read here in another way than the loader does."""
    return {
        name.split("/")[-1].split("_")[0] if "person" in name else "healthy " + name.split("IM-")[1].split("-")[0]
        for name in names.tolist()
    }


def test_a_patients_images_are_in_one_split_and_one_group(tmp_path: Path) -> None:
    write_set(tmp_path)
    dataset = load_chest_xray(root=tmp_path, image_size=SIZE, val_fraction=0.3)
    assert dataset.train.names is not None
    assert dataset.val.names is not None
    assert dataset.train.groups is not None
    assert dataset.val.groups is not None
    assert len(patients(dataset.val.names)) == pytest.approx(0.3 * 60, abs=1)
    assert not patients(dataset.train.names) & patients(dataset.val.names)
    assert not set(dataset.train.groups.tolist()) & set(dataset.val.groups.tolist())
    for records in (dataset.train, dataset.val, dataset.test):
        assert records.names is not None
        assert records.groups is not None
        assert len(records.groups.unique()) == len(patients(records.names))


def test_the_division_depends_on_its_own_seed_and_the_test_split_does_not(tmp_path: Path) -> None:
    write_set(tmp_path)
    first, again, other = (load_chest_xray(root=tmp_path, image_size=SIZE, split_seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.val.names, again.val.names)  # type: ignore[arg-type]
    assert not np.array_equal(first.val.names, other.val.names)  # type: ignore[arg-type]
    assert np.array_equal(first.test.names, other.test.names)  # type: ignore[arg-type]


def test_the_authors_later_names_and_other_endings_are_read(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for number in range(20):
            write_image(tmp_path / "chest_xray" / split / "NORMAL" / f"NORMAL-{number}7-0001.png")
            write_image(tmp_path / "chest_xray" / split / "PNEUMONIA" / f"BACTERIA-{number}8-0001.JPG")
            write_image(tmp_path / "chest_xray" / split / "PNEUMONIA" / f"VIRUS-{number}9-0002.jpeg")
    dataset = load_chest_xray(root=tmp_path, image_size=SIZE, task="multiclass")
    assert dataset.test.labels.bincount().tolist() == [20, 20, 20]


def test_hidden_twins_and_other_files_are_no_images(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    (folder / "train" / "NORMAL" / "._IM-0001-0001.jpeg").write_bytes(b"Mac OS X")
    (folder / "train" / "NORMAL" / ".DS_Store").write_bytes(b"Mac OS X")
    (folder / "test" / "NORMAL" / "notes.txt").write_text("mine")
    assert len(load_chest_xray(root=tmp_path, image_size=SIZE).test) == 130


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-300])
    return path


def empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "truncated": (lambda folder: truncate(folder / "train/NORMAL/IM-0003-0001.jpeg"), "cannot be read"),
    "empty": (lambda folder: empty(folder / "test/PNEUMONIA/person501_bacteria_5011.jpeg"), "cannot be read"),
    "name": (lambda folder: write_image(folder / "train/PNEUMONIA/scan12.jpeg"), "does not tell the patient"),
    "folder": (
        lambda folder: write_image(folder / "test/NORMAL/person9_virus_1.jpeg"),
        "is an image of the kind 'virus' by its name, but lies in the folder NORMAL",
    ),
    "other folder": (
        lambda folder: write_image(folder / "train/PNEUMONIA/IM-0400-0001.jpeg"),
        "is an image of the kind 'normal' by its name, but lies in the folder PNEUMONIA",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_record_is_an_error_with_its_path_or_left_out(case: str, tmp_path: Path) -> None:
    harm, message = BAD[case]
    path = harm(write_set(tmp_path))
    with pytest.raises(DataFileError, match=message) as caught:
        load_chest_xray(root=tmp_path, image_size=SIZE)
    assert caught.value.path == path
    dataset = load_chest_xray(root=tmp_path, image_size=SIZE, on_bad_record="skip")
    assert len(dataset.skipped) == 1
    assert dataset.skipped[0].startswith(f"{path}: ")
    everyone = len(dataset.train) + len(dataset.val) + len(dataset.test)
    assert everyone == 260 - (case in ("truncated", "empty"))
    for records in (dataset.train, dataset.val, dataset.test):
        assert records.names is not None
        assert records.groups is not None
        assert path.name not in {name.split("/")[-1] for name in records.names.tolist()}
        assert len(records.images) == len(records.labels) == len(records.groups) == len(records.attributes["kind"])


def test_skipping_an_unreadable_image_moves_no_other_to_another_split(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    before = load_chest_xray(root=tmp_path, image_size=SIZE)
    truncate(folder / "train/NORMAL/IM-0003-0001.jpeg")
    after = load_chest_xray(root=tmp_path, image_size=SIZE, on_bad_record="skip")
    assert set(after.val.names.tolist()) <= set(before.val.names.tolist())  # type: ignore[union-attr]
    assert set(after.train.names.tolist()) <= set(before.train.names.tolist())  # type: ignore[union-attr]


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="no such folder; set HBDP_DATA") as caught:
        load_chest_xray(root=tmp_path)
    assert caught.value.path == tmp_path / "chest_xray" / "train" / "NORMAL"
    (tmp_path / "chest_xray" / "train" / "NORMAL").mkdir(parents=True)
    with pytest.raises(DataFileError, match=r"has no image \(\.jpeg, \.jpg, \.png\)"):
        load_chest_xray(root=tmp_path)


def test_a_split_without_a_readable_image_is_an_error_even_under_skip(tmp_path: Path) -> None:
    folder = write_set(tmp_path, persons=10)
    for path in (folder / "test").rglob("*.jpeg"):
        empty(path)
    with pytest.raises(DataFileError, match="without a single image"):
        load_chest_xray(root=tmp_path, image_size=SIZE, on_bad_record="skip")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "multilabel"}, r"^data\.task: 'multilabel' is not known; choose one of: binary, multiclass"),
        ({"image_size": 8}, r"^data\.image_size: must be an integer of at least 16"),
        ({"val_fraction": 1.5}, r"^data\.val_fraction: must be a number strictly between 0 and 1"),
        ({"split_seed": -1}, r"^data\.split_seed"),
        ({"on_bad_record": "ignore"}, r"^data\.on_bad_record: 'ignore' is not known"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    write_set(tmp_path, persons=10)
    with pytest.raises(SettingError, match=message):
        load_chest_xray(root=tmp_path, **options)  # type: ignore[arg-type]


def test_the_real_images_have_the_official_numbers_and_patients(hbdp_data: Path) -> None:
    dataset = load_chest_xray(root=hbdp_data, image_size=32, task="multiclass")
    training = torch.bincount(dataset.train.labels) + torch.bincount(dataset.val.labels)
    assert training.tolist() == [1341, 2530, 1345]
    assert dataset.test.labels.bincount().tolist() == [234, 242, 148]
    assert dataset.train.names is not None
    assert dataset.val.names is not None
    assert not patients(dataset.train.names) & patients(dataset.val.names)
    assert len(patients(dataset.val.names)) == pytest.approx(263.5, abs=1)
    shares = torch.bincount(dataset.val.labels) / training
    assert ((shares > 0.07) & (shares < 0.14)).all()
    assert dataset.train.images.float().mean() == pytest.approx(123, abs=15)
