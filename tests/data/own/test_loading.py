"""From a manifest to a data set: who is in which split, and what each record carries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hbdp_fed.data import ImageDataset, PartitionSettings, deal, load_dataset
from hbdp_fed.errors import DataFileError, SettingError
from tests.data.own.writing import read_manifest, write_manifest, write_pictures

SIZE = 16


def load(root: Path, **options: Any) -> ImageDataset:
    given = {"manifest": "own/manifest.csv", "image_size": SIZE, **options}
    return load_dataset("imagefolder", root=root, options=given)


def rewritten(root: Path, change: Callable[[int, dict[str, str]], dict[str, str]]) -> None:
    path = root / "own/manifest.csv"
    write_manifest(path, [change(number, row) for number, row in enumerate(read_manifest(path))])


def splits(dataset: ImageDataset) -> dict[str, set[str]]:
    return {name: set(getattr(dataset, name).names.tolist()) for name in ("train", "val", "test")}


def test_every_record_is_there_once_with_what_its_row_says(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    dataset = load(tmp_path)
    assert (dataset.task, dataset.class_names, dataset.group) == ("binary", ("no", "yes"), "patient")
    rows = {row["path"]: row for row in read_manifest(tmp_path / "own/manifest.csv")}
    seen = []
    for records in (dataset.train, dataset.val, dataset.test):
        assert records.images.shape[1:] == (1, SIZE, SIZE)
        assert records.images.dtype == torch.uint8
        assert records.names is not None
        for number, name in enumerate(records.names.tolist()):
            row = rows[name]
            with Image.open(tmp_path / "own" / name) as picture:
                expected = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
            np.testing.assert_array_equal(records.images[number, 0].numpy(), expected)
            assert dataset.class_names[int(records.labels[number])] == row["label"]
            assert {key: words[number] for key, words in records.attributes.items()} == {
                key: row[key] for key in ("hospital", "sex")
            }
            seen.append(name)
    assert sorted(seen) == sorted(rows)


def test_no_patient_is_in_two_splits(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    dataset = load(tmp_path, val_fraction=0.3, test_fraction=0.3)
    groups = [
        set(part.groups.tolist()) for part in (dataset.train, dataset.val, dataset.test) if part.groups is not None
    ]
    assert list(map(len, groups)) == [8, 6, 6]
    assert len(set.union(*groups)) == 20


def test_every_hospital_has_every_class_in_every_split(tmp_path: Path) -> None:
    write_pictures(tmp_path, 80)
    dataset = load(tmp_path, val_fraction=0.2, test_fraction=0.2)
    for records in (dataset.train, dataset.val, dataset.test):
        pairs = set(zip(records.attributes["hospital"].tolist(), records.labels.tolist(), strict=True))
        assert len(pairs) == 4
    federated = deal(dataset, clients=2, partition=PartitionSettings(scheme="natural", column="hospital"), seed=0)
    assert federated.sites == ("north", "south")
    assert set(federated.hospitals[0].records.attributes["hospital"]) == {"north"}


def test_without_patients_every_record_stands_for_itself(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    rewritten(tmp_path, lambda _, row: {key: row[key] for key in ("path", "label")})
    dataset = load(tmp_path)
    assert dataset.train.groups is None
    assert dataset.group == "image"
    assert dict(dataset.train.attributes) == {}


def test_the_table_says_who_is_in_which_split(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    rewritten(tmp_path, lambda number, row: {**row, "split": ("train", "val", "test", "train")[number // 2 % 4]})
    found = splits(load(tmp_path))
    for number in range(40):
        assert f"{number:02d}.png" in found[("train", "val", "test", "train")[number // 2 % 4]]


@pytest.mark.parametrize(
    ("named", "sizes"),
    [
        ("test", (24, 6, 10)),  # a fifth of the 15 patients of training is for validation
        ("val", (24, 10, 6)),
        (None, (28, 4, 8)),  # a tenth and a fifth of 20
    ],
)
def test_splits_that_the_table_does_not_name_are_drawn_from_training(
    named: str | None, sizes: tuple[int, ...], tmp_path: Path
) -> None:
    write_pictures(tmp_path)

    def change(number: int, row: dict[str, str]) -> dict[str, str]:
        return {**row, "split": named if named and number // 2 % 4 == 3 else "train"}

    rewritten(tmp_path, change)
    dataset = load(tmp_path, val_fraction=0.2 if named else 0.1, test_fraction=0.2)
    parts = (dataset.train, dataset.val, dataset.test)
    assert tuple(map(len, parts)) == sizes
    patients = [set(part.groups.tolist()) for part in parts if part.groups is not None]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 20


def test_a_table_without_training_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    rewritten(tmp_path, lambda _, row: {**row, "split": "test"})
    with pytest.raises(DataFileError, match="gives no record to the split train"):
        load(tmp_path)


def test_a_record_that_is_left_out_moves_nobody_to_another_split(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    before = splits(load(tmp_path))
    (tmp_path / "own/07.png").write_bytes(b"")
    dataset = load(tmp_path, on_bad_record="skip")
    after = splits(dataset)
    assert {name: own - {"07.png"} for name, own in before.items()} == after
    (line,) = dataset.skipped
    assert line == f"{tmp_path / 'own/07.png'}: zero bytes: has no content"


def test_a_split_that_loses_everybody_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    rewritten(
        tmp_path, lambda number, row: {**row, "split": "val" if number < 2 else ("train", "test")[number // 2 % 2]}
    )
    for name in ("00.png", "01.png"):
        (tmp_path / "own" / name).unlink()
    with pytest.raises(DataFileError, match="leaves no record for the split val"):
        load(tmp_path, on_bad_record="skip")


def test_class_names_set_the_order_and_what_is_known(tmp_path: Path) -> None:
    write_pictures(tmp_path, classes=("a", "b", "c"))
    dataset = load(tmp_path, class_names=["c", "b", "a"])
    assert (dataset.task, dataset.class_names) == ("multiclass", ("c", "b", "a"))
    with pytest.raises(DataFileError, match=r"12 unknown label.*has the label 'c', but the classes are a, b"):
        load(tmp_path, class_names=["a", "b"])


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, classes=("a",))
    with pytest.raises(DataFileError, match="has the label 'a' alone"):
        load(tmp_path)


def test_one_picture_of_sixteen_bits_makes_all_of_them_floats(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    before = load(tmp_path)
    deep = np.full((20, 24), 40000, dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "own/07.png")
    after = load(tmp_path)
    assert after.train.images.dtype == torch.float32
    for name in ("train", "val", "test"):
        old, new = getattr(before, name), getattr(after, name)
        is_deep = torch.from_numpy(new.names == "07.png")
        assert torch.equal(new.images[~is_deep], old.images[~is_deep].float() / 255)
        assert torch.allclose(new.images[is_deep], torch.tensor(40000 / 65535))


def test_masks_are_the_labels_of_a_segmentation(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    mask = np.zeros((20, 24), dtype=np.uint8)
    mask[:10] = 255
    Image.fromarray(mask).save(tmp_path / "own/mask.png")
    rewritten(tmp_path, lambda _, row: {"path": row["path"], "mask": "mask.png"})
    dataset = load(tmp_path)
    assert (dataset.task, dataset.class_names) == ("segmentation", ("background", "foreground"))
    expected = torch.zeros(SIZE, SIZE, dtype=torch.int64)
    expected[:8] = 1
    assert all(torch.equal(labels, expected) for labels in dataset.train.labels)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"image_size": 8}, r"^data\.image_size: must be an integer of at least 16"),
        ({"mode": "CMYK"}, r"^data\.mode: 'CMYK' is not known; choose one of: L, RGB"),
        ({"class_names": ["a"]}, r"^data\.class_names: must be two or more different names"),
        ({"on_bad_record": "error"}, r"^data\.on_bad_record: 'error' is not known; choose one of: skip, stop"),
        ({"val_fraction": 0.6, "test_fraction": 0.5}, r"^data\.val_fraction: "),
        ({"val_fraction": 0.001}, r"^data\.test_fraction: 20 groups of records are too few"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], told: str, tmp_path: Path) -> None:
    write_pictures(tmp_path)
    with pytest.raises(SettingError, match=told):
        load(tmp_path, **options)
