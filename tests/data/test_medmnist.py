"""MedMNIST files: small ones of the same layout that the tests write, broken ones, and the real ones where present."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hbdp_fed.data.medmnist import MEDMNIST_SETS, SIZES, load_any_medmnist, load_medmnist
from hbdp_fed.errors import DataFileError, SettingError

Arrays = dict[str, NDArray[Any]]


def make_arrays(shape: tuple[int, ...] = (5, 7), num_classes: int = 2, findings: int | None = None) -> Arrays:
    """Six, three and four records; with ``findings``, labels of a multilabel set."""
    rng = np.random.default_rng(0)
    arrays: Arrays = {}
    for split, count in (("train", 6), ("val", 3), ("test", 4)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        if findings is None:
            arrays[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % num_classes)[:, None]
        else:
            arrays[f"{split}_labels"] = rng.integers(0, 2, (count, findings), dtype=np.uint8)
    return arrays


def write(root: Path, arrays: Arrays, name: str = "pneumoniamnist") -> Path:
    path = root / "medmnist" / f"{name}.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def test_grey_images_are_as_stored_and_keep_their_order(tmp_path: Path) -> None:
    arrays = make_arrays()
    write(tmp_path, arrays)
    dataset = load_medmnist("pneumoniamnist", root=tmp_path)
    assert (dataset.name, dataset.task, dataset.class_names) == ("pneumoniamnist", "binary", ("normal", "pneumonia"))
    for split, records in (("train", dataset.train), ("val", dataset.val), ("test", dataset.test)):
        assert records.images.dtype == torch.uint8
        assert np.array_equal(records.images[:, 0].numpy(), arrays[f"{split}_images"])
        assert records.labels.tolist() == arrays[f"{split}_labels"][:, 0].tolist()
        assert records.labels.dtype == torch.int64
        assert records.masks is None
        assert records.groups is None
    assert dataset.skipped == ()
    assert dataset.preparation is not None
    assert dataset.preparation.kind == "array"
    assert dataset.licence == "CC BY 4.0"
    # The one set that its authors publish under other terms.
    assert [name for name, one in MEDMNIST_SETS.items() if one.licence != "CC BY 4.0"] == ["dermamnist"]


def test_rgb_images_have_their_channels_first(tmp_path: Path) -> None:
    arrays = make_arrays((5, 7, 3))
    write(tmp_path, arrays)
    images = load_medmnist("pneumoniamnist", root=tmp_path).val.images
    assert images.shape == (3, 3, 5, 7)
    assert images.is_contiguous()
    assert images[1, 2, 3, 4] == arrays["val_images"][1, 3, 4, 2]


def test_volumes_have_one_channel_even_where_they_are_three_voxels_deep(tmp_path: Path) -> None:
    arrays = make_arrays((28, 28, 3), num_classes=3)
    write(tmp_path, arrays, "fracturemnist3d")
    dataset = load_medmnist("fracturemnist3d", root=tmp_path)
    assert dataset.task == "multiclass"
    assert dataset.train.images.shape == (6, 1, 28, 28, 3)
    assert np.array_equal(dataset.test.images[:, 0].numpy(), arrays["test_images"])
    assert dataset.train.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_multilabel_set_has_a_column_a_finding(tmp_path: Path) -> None:
    arrays = make_arrays(findings=14)
    write(tmp_path, arrays, "chestmnist")
    dataset = load_medmnist("chestmnist", root=tmp_path)
    assert dataset.task == "multilabel"
    assert len(dataset.class_names) == 14
    assert dataset.train.labels.dtype == torch.int64
    assert np.array_equal(dataset.train.labels.numpy(), arrays["train_labels"])


def test_labels_may_be_any_integers_and_without_their_last_axis(tmp_path: Path) -> None:
    arrays = make_arrays()
    for split in ("train", "val", "test"):
        arrays[f"{split}_labels"] = arrays[f"{split}_labels"][:, 0].astype(np.int64)
    write(tmp_path, arrays)
    assert load_medmnist("pneumoniamnist", root=tmp_path).train.labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_a_larger_size_is_a_file_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, make_arrays((4, 4)), "breastmnist")
    write(tmp_path, make_arrays((6, 6)), "breastmnist_64")
    assert load_medmnist("breastmnist", root=tmp_path).train.images.shape[-1] == 4
    assert load_medmnist("breastmnist", root=tmp_path, size=64).train.images.shape[-1] == 6
    with pytest.raises(DataFileError, match="no such file") as caught:
        load_medmnist("breastmnist", root=tmp_path, size=224)
    assert caught.value.path == tmp_path / "medmnist" / "breastmnist_224.npz"


@pytest.mark.parametrize(
    ("name", "size", "sizes"), [("breastmnist", 32, "28, 64, 128, 224"), ("adrenalmnist3d", 128, "28, 64")]
)
def test_an_unpublished_size_is_refused_with_the_published_ones(
    name: str, size: int, sizes: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=rf"^data\.size: {name} is published at {sizes} pixels, got {size}$"):
        load_medmnist(name, root=tmp_path, size=size)


def test_the_table_has_all_18_sets_and_names_every_class_once() -> None:
    assert len(MEDMNIST_SETS) == 18
    for name, layout in MEDMNIST_SETS.items():
        assert layout.dimensions == (3 if name.endswith("3d") else 2)
        assert len(set(layout.class_names)) == len(layout.class_names)
        assert (len(layout.class_names) == 2) == (layout.task == "binary")
        assert layout.dimensions in SIZES
    counts = [len(MEDMNIST_SETS[name].class_names) for name in sorted(MEDMNIST_SETS)]
    assert counts == [2, 8, 2, 14, 7, 3, 2, 4, 11, 11, 11, 11, 9, 2, 5, 2, 8, 2]


def test_class_1_is_the_finding_even_where_the_file_counts_it_as_0(tmp_path: Path) -> None:
    arrays = make_arrays()
    write(tmp_path, arrays, "breastmnist")
    dataset = load_medmnist("breastmnist", root=tmp_path)
    assert dataset.class_names[1] == "malignant"
    assert dataset.train.labels.tolist() == (1 - arrays["train_labels"][:, 0].astype(int)).tolist()


def without(name: str) -> Callable[[Arrays], Any]:
    return lambda arrays: arrays.pop(name)


def replaced(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Arrays], Any]:
    return lambda arrays: arrays.update({name: change(arrays[name])})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("val_labels"), "has no array val_labels"),
        (replaced("train_images", lambda a: a.astype(np.float32)), "train_images has the type float32"),
        (replaced("test_labels", lambda a: a.astype(np.float64)), "test_labels has the type float64, not integers"),
        (replaced("train_images", lambda a: a[..., None]), r"train_images has the shape \(6, 5, 7, 1\)"),
        (replaced("val_images", lambda a: a[:0]), r"val_images has the shape \(0, 5, 7\)"),
        (replaced("train_labels", lambda a: a[:-1]), r"train_labels has the shape \(5, 1\), not \(6, 1\)"),
        (replaced("test_images", lambda a: a[:, :4]), "different shapes"),
        (replaced("train_images", lambda a: a.astype(object)), "cannot be read"),
    ],
)
def test_wrong_layouts_are_refused(tmp_path: Path, damage: Callable[[Arrays], Any], message: str) -> None:
    arrays = make_arrays()
    damage(arrays)
    path = write(tmp_path, arrays)
    with pytest.raises(DataFileError, match=message) as caught:
        load_medmnist("pneumoniamnist", root=tmp_path)
    assert caught.value.path == path
    assert "download" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arrays", "message"),
    [
        ("chestmnist", make_arrays(findings=13), r"train_labels has the shape \(6, 13\), not \(6, 14\)"),
        ("chestmnist", make_arrays(), r"train_labels has the shape \(6, 1\), not \(6, 14\)"),
        ("pathmnist", make_arrays(findings=9), r"train_labels has the shape \(6, 9\), not \(6, 1\)"),
        ("adrenalmnist3d", make_arrays((5, 7)), r"train_images has the shape \(6, 5, 7\), not \(N, D, H, W\)"),
        ("pathmnist", make_arrays((5, 7, 7)), r"train_images has the shape \(6, 5, 7, 7\), not \(N, H, W\)"),
    ],
)
def test_the_layout_of_another_kind_of_set_is_refused(name: str, arrays: Arrays, message: str, tmp_path: Path) -> None:
    write(tmp_path, arrays, name)
    with pytest.raises(DataFileError, match=message):
        load_medmnist(name, root=tmp_path)


def with_value(arrays: Arrays, value: int, column: int = 0) -> Arrays:
    """The same, with a wrong label at position 2 of the training split."""
    arrays["train_labels"] = arrays["train_labels"].astype(np.int16)
    arrays["train_labels"][2, column] = value
    return arrays


@pytest.mark.parametrize(
    ("name", "arrays", "message"),
    [
        ("breastmnist", with_value(make_arrays(), 2), "holds 2 at position 2, but the classes are 0 to 1"),
        ("retinamnist", with_value(make_arrays(), 5), "holds 5 at position 2, but the classes are 0 to 4"),
        ("retinamnist", with_value(make_arrays(), -1), "holds -1 at position 2"),
        ("chestmnist", with_value(make_arrays(findings=14), 7, column=3), "holds 7 at position 2, .* are 0 to 1"),
    ],
)
def test_a_label_outside_of_the_range_is_an_error_or_left_out(
    name: str, arrays: Arrays, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, arrays, name)
    with pytest.raises(DataFileError, match=message) as caught:
        load_medmnist(name, root=tmp_path)
    assert caught.value.path == path
    dataset = load_medmnist(name, root=tmp_path, on_bad_record="skip")
    assert len(dataset.skipped) == 1
    assert dataset.skipped[0].startswith(f"{path}: train_labels holds")
    assert len(dataset.train) == len(dataset.train.images) == 5
    kept = np.delete(arrays["train_images"], 2, axis=0)
    assert np.array_equal(dataset.train.images[:, 0].numpy(), kept)
    assert len(dataset.val) == 3


def test_a_split_without_a_usable_label_is_an_error_even_under_skip(tmp_path: Path) -> None:
    arrays = make_arrays()
    arrays["val_labels"] += 9
    write(tmp_path, arrays)
    with pytest.raises(DataFileError, match="val_labels has no label that can be used"):
        load_medmnist("pneumoniamnist", root=tmp_path, on_bad_record="skip")


def test_an_unknown_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^data\.on_bad_record: 'ignore' is not known"):
        load_medmnist("pneumoniamnist", root=tmp_path, on_bad_record="ignore")


def test_damaged_files_never_raise_anything_but_a_data_file_error(tmp_path: Path) -> None:
    path = write(tmp_path, make_arrays())
    intact = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(300):
        damaged = bytearray(intact)
        if trial % 3 == 0:
            damaged = damaged[: rng.integers(len(damaged))]
        else:
            damaged[rng.integers(len(damaged))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            load_medmnist("pneumoniamnist", root=tmp_path)
        except DataFileError:
            refused += 1
    assert refused > 200


def test_a_single_array_under_the_name_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, make_arrays())
    with path.open("wb") as file:
        np.save(file, np.zeros(3, dtype=np.uint8))
    with pytest.raises(DataFileError, match="single array"):
        load_medmnist("pneumoniamnist", root=tmp_path)


def test_a_missing_folder_or_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="set HBDP_DATA") as caught:
        load_medmnist("pneumoniamnist", root=tmp_path / "nowhere")
    assert caught.value.path == tmp_path / "nowhere"
    with pytest.raises(DataFileError, match="no such file; download") as caught:
        load_medmnist("pneumoniamnist", root=tmp_path)
    assert caught.value.path == tmp_path / "medmnist" / "pneumoniamnist.npz"


def test_an_option_names_the_set(tmp_path: Path) -> None:
    write(tmp_path, make_arrays(num_classes=4), "octmnist_128")
    dataset = load_any_medmnist(root=tmp_path, set="octmnist", size=128)
    assert (dataset.name, dataset.task, len(dataset.class_names)) == ("octmnist", "multiclass", 4)


def test_an_unknown_set_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        SettingError, match=r"^data\.set: 'mnist' is not known.*adrenalmnist3d, bloodmnist.*vesselmnist3d"
    ):
        load_any_medmnist(root=tmp_path, set="mnist")


@pytest.mark.parametrize(
    ("name", "size", "shape", "classes"),
    # The records of each class in each split; their sums are what the data sets' authors publish.
    [
        ("pneumoniamnist", 28, (1, 28, 28), [(1214, 3494), (135, 389), (234, 390)]),
        ("breastmnist", 28, (1, 28, 28), [(399, 147), (57, 21), (114, 42)]),
        ("retinamnist", 28, (3, 28, 28), [(486, 128, 206, 194, 66), (54, 12, 28, 20, 6), (174, 46, 92, 68, 20)]),
        ("adrenalmnist3d", 64, (1, 64, 64, 64), [(929, 259), (76, 22), (229, 69)]),
    ],
)
def test_the_real_files_have_the_official_splits(
    name: str, size: int, shape: tuple[int, ...], classes: list[tuple[int, ...]], hbdp_data: Path
) -> None:
    dataset = load_any_medmnist(root=hbdp_data, set=name, size=size)
    splits = (dataset.train, dataset.val, dataset.test)
    assert [tuple(records.labels.bincount().tolist()) for records in splits] == classes
    for records in splits:
        assert records.images.dtype == torch.uint8
        assert records.images.shape[1:] == shape
        assert records.images.min() < 10
        assert records.images.max() > 245
