"""Reads any task of the Medical Segmentation Decathlon: volumes with a class a voxel.

Antonelli et al., "The Medical Segmentation Decathlon", Nature Communications 13, 4128 (2022). A task is a folder with
``dataset.json``, ``imagesTr`` and ``labelsTr``; the official test volumes have no labels and are not used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hbdp_fed.data.bad_records import BadRecords
from hbdp_fed.data.contract import ImageDataset, Records
from hbdp_fed.data.grid import READERS, Grid
from hbdp_fed.data.splits import SplitSettings, split_by_group
from hbdp_fed.data.volumes import Prepare, StoredVolume, prepared_pair, read_nifti, volume_pipeline
from hbdp_fed.errors import DataFileError

_LIST = "dataset.json"
_FOLDERS = ("imagesTr", "labelsTr")
_SUFFIXES = (".nii.gz", ".nii")

_CHUNK = 16
"""Volumes in flight at once: an error stops the reading at the next chunk."""

_SAME_GRID = 0.01
"""By how much the affine matrices of an image and its label may differ, of a voxel's size; shifts do not matter."""


@dataclass(frozen=True)
class _Layout:
    """What ``dataset.json`` says.

    Attributes:
        folder: The task's folder.
        class_names: In the order of the labels, which run from 0, the background.
        channels: How many modalities a volume has.
        is_ct: Whether grey levels are Hounsfield units, which mean the same in every volume.
        pairs: Image and label of each training volume.
    """

    folder: Path
    class_names: tuple[str, ...]
    channels: int
    is_ct: bool
    pairs: tuple[tuple[Path, Path], ...]


@dataclass(frozen=True)
class _Volume:
    """One record: image float32 (C, *spatial) in [0, 1], labels int64 (*spatial), the size of a voxel in mm."""

    image: Tensor
    labels: Tensor
    spacing: tuple[float, ...]


def load_msd(
    *,
    root: Path,
    task: str = "Task04_Hippocampus",
    image_size: Sequence[int] = (40, 56, 40),
    fit: str = "crop",
    spacing: Sequence[float] | None = None,
    window: Sequence[float] = (-150.0, 250.0),
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    on_bad_record: str = "stop",
) -> ImageDataset:
    """Read ``root/msd/<task>``.

    Grey levels become [0, 1] without a look at any other record: CT by a fixed window, everything else between two
    percentiles of the volume itself.

    The files do not say which volumes are of one person (a left and a right hippocampus may be), so a record is a
    volume: the guarantee is per volume, and a person may be in two splits.

    Args:
        root: The folder that holds the folder ``msd``.
        task: The task's folder, for example ``Task03_Liver``.
        image_size: The common size in voxels, three sides of at least 16, in the order right, anterior, superior.
        fit: One of :data:`hbdp_fed.data.grid.FITS`.
        spacing: The size of a voxel in mm that volumes are resampled to first, three numbers; None leaves them.
        window: For CT: the Hounsfield units that become 0 and 1. The default shows the organs of the abdomen.
        val_fraction: The share of volumes in the validation split.
        test_fraction: The share of volumes in the test split.
        split_seed: The division's own seed.
        on_bad_record: ``stop`` or ``skip``: what becomes of a volume without label, a label without volume, and of
            files that cannot be read or contradict each other.

    Returns:
        Volumes (N, C, *image_size), float32, a channel a modality; the labels are what the voxels are.

    Raises:
        SettingError: if an option cannot be used.
        DataFileError: if ``dataset.json`` is missing or not the Decathlon's, a record is bad under ``stop``, or
            ``skip`` leaves a split without a record.
    """
    settings = SplitSettings(val_fraction=val_fraction, test_fraction=test_fraction, seed=split_seed)
    grid = Grid(size=image_size, fit=fit, spacing=spacing, window=window)
    bad = BadRecords(on_bad_record)
    layout = _read_layout(root / "msd", task)
    everyone = torch.arange(len(layout.pairs))
    if not len(everyone):
        raise DataFileError(layout.folder / _LIST, "lists no volume with a label")
    # By the list alone: which files can be read moves no volume to another split.
    split = split_by_group(everyone, torch.zeros_like(everyone), settings)
    whole = list(_complete_pairs(layout, bad))
    preparation = (grid if layout.is_ct else replace(grid, window=None)).preparation()
    prepare = volume_pipeline(preparation.details, label=True)
    volumes: list[_Volume] = []
    kept = []
    with ThreadPoolExecutor(max_workers=min(READERS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(whole), _CHUNK):
            chunk = whole[start : start + _CHUNK]
            reads = pool.map(lambda number: _read(layout.pairs[number], layout, prepare), chunk)
            for number, volume in zip(chunk, reads, strict=True):
                if isinstance(volume, _Volume):
                    volumes.append(volume)
                    kept.append(number)
                else:
                    bad.refuse(*volume)
    numbers = torch.tensor(kept, dtype=torch.int64)
    rows = [torch.nonzero(torch.isin(numbers, part))[:, 0] for part in (split.train, split.val, split.test)]
    if not all(map(len, rows)):
        raise DataFileError(layout.folder, "has a split without a single volume that can be used")
    records = Records(
        images=torch.stack([volume.image for volume in volumes]),
        labels=torch.stack([volume.labels for volume in volumes]),
        names=np.asarray([_stem(layout.pairs[number][0]) for number in kept]),
    )
    train, val, test = (records.select(part) for part in rows)
    sizes = {volume.spacing for volume in volumes}
    return ImageDataset(
        name="msd",
        task="segmentation",
        class_names=layout.class_names,
        train=train,
        val=val,
        test=test,
        group="volume",
        skipped=tuple(bad.skipped),
        # Scaled volumes differ in their voxels' size: there, distances are counted in voxels.
        spacing=sizes.pop() if len(sizes) == 1 else None,
        preparation=preparation,
        licence="CC BY-SA 4.0",
    )


def _read_layout(folder: Path, task: str) -> _Layout:
    path = folder / task / _LIST
    if not path.is_file():
        there = sorted(part.parent.name for part in folder.glob(f"*/{_LIST}"))
        advice = f"; in {folder} there are: {', '.join(there)}" if there else ", HBDP_DATA to the folder that holds msd"
        raise DataFileError(path, f"there is no such file; set data.task to a task's folder{advice}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {int(number): str(name) for number, name in content["labels"].items()}
        modalities = [str(name).upper() for name in content["modality"].values()]
        pairs = tuple(
            (folder / task / str(pair["image"]), folder / task / str(pair["label"])) for pair in content["training"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataFileError(path, f"is not the dataset.json of a Decathlon task ({error!r})") from error
    if sorted(names) != list(range(len(names))) or len(names) < 2:
        raise DataFileError(path, f"its labels are {sorted(names)}, but should be 0, 1, ... without a gap")
    return _Layout(
        folder=folder / task,
        class_names=tuple(names[number] for number in sorted(names)),
        channels=len(modalities),
        is_ct=modalities == ["CT"],
        pairs=pairs,
    )


def msd_files(*, root: Path, task: str, **_: Any) -> Iterator[Path]:
    """The files on which :func:`load_msd` depends: also those that its list leaves out, which it looks for.

    Raises:
        DataFileError: if ``dataset.json`` is missing or not the Decathlon's.
    """
    layout = _read_layout(root / "msd", task)
    yield layout.folder / _LIST
    for pair in layout.pairs:
        yield from pair
    for folder in _FOLDERS:
        yield from _volumes_in(layout.folder / folder)


def _volumes_in(folder: Path) -> list[Path]:
    # The archives of the Decathlon hold a hidden twin of every file.
    return [p for p in sorted(folder.glob("*")) if p.name.endswith(_SUFFIXES) and not p.name.startswith(".")]


def _complete_pairs(layout: _Layout, bad: BadRecords) -> Iterator[int]:
    """Which pairs are whole; what is in the folders alone, or in the list alone or twice, is refused."""
    seen = set()
    for number, (image, label) in enumerate(layout.pairs):
        if image in seen:
            bad.refuse(image, "is listed twice by dataset.json")
        elif not image.is_file():
            bad.refuse(image, f"there is no such file, though {label.name} is its label")
        elif not label.is_file():
            bad.refuse(image, f"has no label: there is no file {label}")
        else:
            yield number
        seen.add(image)
    listed = {(path.parent.name, path.name) for pair in layout.pairs for path in pair}
    alone = {
        folder: {path.name: path for path in _volumes_in(layout.folder / folder) if (folder, path.name) not in listed}
        for folder in _FOLDERS
    }
    for name, path in alone["imagesTr"].items():
        problem = "is left out" if name in alone["labelsTr"] else "is a volume without label: it is not listed"
        bad.refuse(path, f"{problem} by dataset.json")
    for name, path in alone["labelsTr"].items():
        if name not in alone["imagesTr"]:
            bad.refuse(path, "is a label without volume: it is not listed by dataset.json")


def _read(pair: tuple[Path, Path], layout: _Layout, prepare: Prepare) -> _Volume | tuple[Path, str]:
    """One record, or the file that is to blame and what is wrong with it."""
    image, label = (read_nifti(path) for path in pair)
    if isinstance(image, str):
        return pair[0], image
    if isinstance(label, str):
        return pair[1], label
    if blame := _contradiction(pair, image, label, layout) or _other_grid(pair, image.affine, label.affine):
        return blame
    try:
        return _Volume(*prepared_pair(image, label.voxels, prepare))
    except ValueError as error:
        return pair[0], str(error)


def _contradiction(
    pair: tuple[Path, Path], stored: StoredVolume, stored_label: StoredVolume, layout: _Layout
) -> tuple[Path, str] | None:
    """The file to blame if image and label do not make one record of the task, and why; None if they do."""
    image, label = stored.voxels, stored_label.voxels
    if label.ndim != 3 or image.shape[:3] != label.shape or image.ndim > 4:
        return pair[1], f"has {label.shape} voxels, but its image {pair[0].name} has {image.shape}"
    if stored.modalities != layout.channels:
        return pair[0], f"has {stored.modalities} modalities, but dataset.json names {layout.channels}"
    wrong = label[(label != np.round(label)) | (label < 0) | (label >= len(layout.class_names))]
    if wrong.size:
        return pair[1], f"holds the label {wrong[0]:g}, but the classes are 0 to {len(layout.class_names) - 1}"
    if not np.isfinite(image).all():
        return pair[0], "has a grey level that is not a finite number"
    return None


def _other_grid(
    pair: tuple[Path, Path], affine: NDArray[np.float64], label_affine: NDArray[np.float64]
) -> tuple[Path, str] | None:
    """The label and what is wrong with it, if its axes or its voxels' size are not those of its image."""
    axes, label_axes = affine[:3, :3], label_affine[:3, :3]
    if np.isfinite(axes).all() and np.abs(axes - label_axes).max() > _SAME_GRID * np.abs(axes).max():
        return pair[1], f"has voxels of another size or direction than its image {pair[0].name}"
    return None


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
