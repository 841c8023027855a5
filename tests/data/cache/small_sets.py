"""A small data set of each kind that is read from files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from hbdp_fed.data.contract import ImageDataset, Records
from tests.data import test_chest_xray, test_ham10000, test_medmnist, test_msd, test_radimagenet
from tests.data.own.writing import write_pictures, write_radiographs, write_scans, write_volumes

OWN = "own/manifest.csv"
"""The table of what a hospital has."""


@dataclass(frozen=True)
class SmallSet:
    """How a data set is written, loaded and read otherwise.

    Attributes:
        name: Of the data set.
        write: Writes its files below a folder.
        options: With which it is loaded.
        other: An option with another value.
        image: One of the files that hold images, below the folder.
    """

    name: str
    write: Callable[[Path], object]
    image: str
    other: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)


def _write_medmnist(root: Path) -> None:
    test_medmnist.write(root, test_medmnist.make_arrays((28, 28, 3)), "bloodmnist")


SMALL_SETS: Mapping[str, SmallSet] = {
    "chest_xray": SmallSet(
        "chest_xray",
        lambda root: test_chest_xray.write_set(root, persons=8),
        "chest_xray/train/NORMAL/IM-0001-0001.jpeg",
        {"task": "multiclass"},
        {"image_size": 16},
    ),
    "ham10000": SmallSet(
        "ham10000",
        lambda root: test_ham10000.write_set(root, lesions=20),
        "ham10000/HAM10000_images_part_1/ISIC_0000000.jpg",
        {"task": "multiclass"},
        {"image_size": 16},
    ),
    "outlines": SmallSet(
        "ham10000",
        lambda root: test_ham10000.write_set(root, lesions=20),
        "ham10000/masks/ISIC_0000000_segmentation.png",
        {"split_seed": 1},
        {"image_size": 16, "task": "segmentation"},
    ),
    "medmnist": SmallSet(
        "medmnist", _write_medmnist, "medmnist/bloodmnist.npz", {"on_bad_record": "skip"}, {"set": "bloodmnist"}
    ),
    "msd": SmallSet(
        "msd",
        test_msd.write_task,
        f"msd/{test_msd.TASK}/imagesTr/liver_0.nii.gz",
        {"window": [-100.0, 200.0]},
        {"task": test_msd.TASK, "image_size": [16, 16, 16]},
    ),
    "radimagenet": SmallSet(
        "radimagenet",
        lambda root: test_radimagenet.write_set(root, side=24),
        "radimagenet/radiology_ai/US/gb/train000000.png",
        {"max_records": 8},
        {"image_size": 16},
    ),
    "imagefolder": SmallSet(
        "imagefolder", write_pictures, "own/00.png", {"split_seed": 1}, {"manifest": OWN, "image_size": 16}
    ),
    "nifti": SmallSet(
        "nifti",
        write_volumes,
        "own/masks/00.nii.gz",
        {"split_seed": 1},
        {"manifest": OWN, "image_size": [16, 16, 16], "val_fraction": 0.2},
    ),
    "radiographs": SmallSet(
        "dicom", write_radiographs, "own/00.dcm", {"split_seed": 1}, {"manifest": OWN, "image_size": 16}
    ),
    "series": SmallSet(
        "dicom",
        write_scans,
        "own/00/outline/o0.png",
        {"split_seed": 1},
        {"manifest": OWN, "image_size": [16, 16, 16], "val_fraction": 0.2},
    ),
}


def differences(left: ImageDataset, right: ImageDataset) -> list[str]:
    """In which fields two data sets are not the same, bit for bit."""
    found = [
        item.name
        for item in fields(left)
        if item.name not in {"train", "val", "test"} and getattr(left, item.name) != getattr(right, item.name)
    ]
    for split in ("train", "val", "test"):
        found += [f"{split}.{name}" for name in _differences(getattr(left, split), getattr(right, split))]
    return found


def _differences(left: Records, right: Records) -> list[str]:
    return [item.name for item in fields(left) if not _same(getattr(left, item.name), getattr(right, item.name))]


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and bool((left == right).all())
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, Mapping):
        return list(left) == list(right) and all(_same(left[name], right[name]) for name in left)
    return left is right
