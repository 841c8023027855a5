"""Reads the binary 2D sets of MedMNIST v2 from the files their authors publish.

Yang et al., "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image classification",
Scientific Data 10, 41 (2023).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hbdp_fed.data.contract import ImageDataset, Records
from hbdp_fed.errors import DataFileError, unknown_choice

_ADVICE = "download the set again from https://medmnist.com"


@dataclass(frozen=True)
class MedMnistSet:
    """What one set's labels mean.

    Attributes:
        class_names: The names of classes 0 and 1 as this system counts them: class 1 is the finding.
        finding: The label in the file that stands for the finding.
    """

    class_names: tuple[str, str]
    finding: int


MEDMNIST_SETS: Mapping[str, MedMnistSet] = {
    "pneumoniamnist": MedMnistSet(class_names=("normal", "pneumonia"), finding=1),
    # The authors count malignant as 0 and "normal, benign" as 1.
    "breastmnist": MedMnistSet(class_names=("normal or benign", "malignant"), finding=0),
}
"""The sets that can be read, by their official names."""


def load_medmnist(name: str, *, root: Path) -> ImageDataset:
    """Read ``root/medmnist/<name>.npz`` with its official splits, in the file's order.

    Args:
        name: A key of ``MEDMNIST_SETS``.
        root: The folder that holds the folder ``medmnist``.

    Returns:
        Grey (C = 1) or RGB (C = 3) images, 0 to 255 scaled to [0, 1]; class 1 is the finding, whatever number it has
        in the file. There are no outlines.

    Raises:
        SettingError: if no such set is known.
        DataFileError: if the file is missing, unreadable or does not have MedMNIST's layout.
    """
    if name not in MEDMNIST_SETS:
        raise unknown_choice("data", name, MEDMNIST_SETS)
    if not root.is_dir():
        raise DataFileError(root, "there is no such folder; set HBDP_DATA to the folder that holds the data sets")
    path = root / "medmnist" / f"{name}.npz"
    if not path.is_file():
        raise DataFileError(path, f"there is no such file; {_ADVICE} and put it there")
    arrays = _read_arrays(path)
    layout = MEDMNIST_SETS[name]
    splits = {split: _split_records(path, arrays, split, layout) for split in ("train", "val", "test")}
    shapes = {tuple(records.images.shape[1:]) for records in splits.values()}
    if len(shapes) > 1:
        raise DataFileError(path, f"its splits have images of different shapes: {sorted(shapes)}; {_ADVICE}")
    return ImageDataset(name=name, task="binary", class_names=layout.class_names, **splits)


def _read_arrays(path: Path) -> dict[str, NDArray[np.uint8]]:
    """The six arrays of MedMNIST's layout, all uint8."""
    names = [f"{split}_{part}" for split in ("train", "val", "test") for part in ("images", "labels")]
    try:
        # Never unpickle: a data file must not be able to run code.
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataFileError(path, f"is a single array, not an npz archive; {_ADVICE}")
        with archive:
            missing = [name for name in names if name not in archive.files]
            if missing:
                raise DataFileError(path, f"has no array {', '.join(missing)}; {_ADVICE}")
            arrays = {name: archive[name] for name in names}
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataFileError(path, f"cannot be read ({error}); {_ADVICE}") from error
    for name, array in arrays.items():
        if array.dtype != np.uint8:
            raise DataFileError(path, f"{name} has the type {array.dtype}, not uint8; {_ADVICE}")
    return arrays


def _split_records(path: Path, arrays: Mapping[str, NDArray[np.uint8]], split: str, layout: MedMnistSet) -> Records:
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    is_grey = images.ndim == 3
    if not (is_grey or (images.ndim == 4 and images.shape[-1] == 3)) or 0 in images.shape:
        raise DataFileError(
            path, f"{split}_images has the shape {images.shape}, not (N, H, W) or (N, H, W, 3) with N > 0; {_ADVICE}"
        )
    if labels.shape not in ((len(images), 1), (len(images),)):
        raise DataFileError(
            path, f"{split}_labels has the shape {labels.shape}, not ({len(images)}, 1) like {split}_images; {_ADVICE}"
        )
    if labels.max() > 1:
        raise DataFileError(path, f"{split}_labels holds {labels.max()}, but the classes are 0 and 1; {_ADVICE}")
    pixels = torch.from_numpy(images)
    channels_first = pixels[:, None] if is_grey else pixels.permute(0, 3, 1, 2)
    return Records(
        images=channels_first.float().div(255).contiguous(),
        labels=torch.from_numpy(labels.reshape(-1) == layout.finding).long(),
    )
