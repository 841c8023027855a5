"""MedMNIST files: small ones of the same layout that the tests write, broken ones, and the real ones where present."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hbdp_fed.data.medmnist import load_medmnist
from hbdp_fed.errors import DataFileError, SettingError

Arrays = dict[str, NDArray[Any]]


def make_arrays(channels: tuple[int, ...] = ()) -> Arrays:
    rng = np.random.default_rng(0)
    arrays: Arrays = {}
    for split, count in (("train", 6), ("val", 3), ("test", 4)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 5, 7, *channels), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % 2)[:, None]
    return arrays


def write(root: Path, arrays: Arrays, name: str = "pneumoniamnist") -> Path:
    path = root / "medmnist" / f"{name}.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def test_grey_images_are_scaled_and_keep_their_order(tmp_path: Path) -> None:
    arrays = make_arrays()
    write(tmp_path, arrays)
    dataset = load_medmnist("pneumoniamnist", root=tmp_path)
    assert (dataset.name, dataset.task, dataset.class_names) == ("pneumoniamnist", "binary", ("normal", "pneumonia"))
    for split, records in (("train", dataset.train), ("val", dataset.val), ("test", dataset.test)):
        assert records.images.dtype == torch.float32
        assert records.images[:, 0].numpy() == pytest.approx(arrays[f"{split}_images"] / 255, abs=1e-7)
        assert records.labels.tolist() == arrays[f"{split}_labels"][:, 0].tolist()
        assert records.labels.dtype == torch.int64
        assert records.masks is None


def test_rgb_images_have_their_channels_first(tmp_path: Path) -> None:
    arrays = make_arrays(channels=(3,))
    write(tmp_path, arrays)
    images = load_medmnist("pneumoniamnist", root=tmp_path).val.images
    assert images.shape == (3, 3, 5, 7)
    assert images.is_contiguous()
    assert images[1, 2, 3, 4] == pytest.approx(arrays["val_images"][1, 3, 4, 2] / 255)


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
        (replaced("test_labels", lambda a: a.astype(np.int64)), "test_labels has the type int64"),
        (replaced("train_images", lambda a: a[..., None]), r"train_images has the shape \(6, 5, 7, 1\)"),
        (replaced("val_images", lambda a: a[:0]), r"val_images has the shape \(0, 5, 7\)"),
        (replaced("train_labels", lambda a: a[:-1]), r"train_labels has the shape \(5, 1\), not \(6, 1\)"),
        (replaced("test_labels", lambda a: a + 1), "test_labels holds 2"),
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


def test_an_unknown_set_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^data: 'retinamnist' is not known.*breastmnist, pneumoniamnist"):
        load_medmnist("retinamnist", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "findings"),
    # (records, findings) of each split, as the data set's authors publish them.
    [
        ("pneumoniamnist", [(4708, 3494), (524, 389), (624, 390)]),
        ("breastmnist", [(546, 147), (78, 21), (156, 42)]),
    ],
)
def test_the_real_files_have_the_official_splits(name: str, findings: list[tuple[int, int]], hbdp_data: Path) -> None:
    dataset = load_medmnist(name, root=hbdp_data)
    splits = (dataset.train, dataset.val, dataset.test)
    assert [(len(records), int(records.labels.sum())) for records in splits] == findings
    for records in splits:
        assert records.images.shape[1:] == (1, 28, 28)
        assert 0 <= records.images.min() < records.images.max() <= 1
