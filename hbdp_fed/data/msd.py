"""Reads any task of the Medical Segmentation Decathlon: volumes with a class a voxel.

Antonelli et al., "The Medical Segmentation Decathlon", Nature Communications 13, 4128 (2022). A task is a folder with
``dataset.json``, ``imagesTr`` and ``labelsTr``; the official test volumes have no labels and are not used.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hbdp_fed.data.bad_records import BadRecords, reason
from hbdp_fed.data.checks import check_integer, check_number
from hbdp_fed.data.contract import ImageDataset, Preparation, Records
from hbdp_fed.data.splits import SplitSettings, split_by_group
from hbdp_fed.data.volumes import Prepare, StoredVolume, read_nifti, volume_pipeline
from hbdp_fed.errors import DataFileError, SettingError, unknown_choice

PERCENTILES = (0.5, 99.5)
"""Of each volume and channel by itself: what is outside is clipped, for one bright voxel may be a thousand times as
bright as tissue."""

FITS = ("crop", "scale")
"""How a volume comes to the common size: padded or cropped around its centre, or scaled as a whole."""

_LIST = "dataset.json"
_SUFFIXES = (".nii.gz", ".nii")

_MOST_VOXELS = 2**28
"""Of one volume, which is a gigabyte."""

_READERS = 4
"""Volumes in preparation at once: a large CT takes gigabytes while it is, however many processors there are."""

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
        fit: A key of :data:`FITS`.
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
    _check_options(image_size=image_size, fit=fit, spacing=spacing, window=window)
    bad = BadRecords(on_bad_record)
    layout = _read_layout(root / "msd", task)
    everyone = torch.arange(len(layout.pairs))
    if not len(everyone):
        raise DataFileError(layout.folder / _LIST, "lists no volume with a label")
    # By the list alone: which files can be read moves no volume to another split.
    split = split_by_group(everyone, torch.zeros_like(everyone), settings)
    whole = list(_complete_pairs(layout, bad))
    preparation = _preparation(layout, image_size=image_size, fit=fit, spacing=spacing, window=window)
    prepare = volume_pipeline(preparation.details, label=True)
    volumes: list[_Volume] = []
    kept = []
    with ThreadPoolExecutor(max_workers=min(_READERS, os.cpu_count() or 1)) as pool:
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


def _preparation(
    layout: _Layout,
    *,
    image_size: Sequence[int],
    fit: str,
    spacing: Sequence[float] | None,
    window: Sequence[float],
) -> Preparation:
    """What becomes of an image (see :func:`hbdp_fed.data.volumes.volume_pipeline`)."""
    low, high = window if layout.is_ct else PERCENTILES
    unit = "Hounsfield units" if layout.is_ct else "percentiles of each channel by itself"
    resampled = "" if spacing is None else f"resampled to voxels of {' x '.join(f'{size:g}' for size in spacing)} mm, "
    fitted = "padded or cropped around its centre" if fit == "crop" else "scaled"
    return Preparation(
        kind="volume",
        words=(
            f"the volume is turned to right, anterior, superior, {resampled}its grey levels from {low:g} to {high:g} "
            f"({unit}) become 0 to 1, and it is {fitted} to {' x '.join(map(str, image_size))} voxels"
        ),
        details={
            "orientation": "RAS",
            "spacing": None if spacing is None else list(spacing),
            "intensity": {"kind": "window" if layout.is_ct else "percentiles", "low": low, "high": high},
            "fit": fit,
            "size": list(image_size),
        },
    )


def _check_options(
    *, image_size: Sequence[int], fit: str, spacing: Sequence[float] | None, window: Sequence[float]
) -> None:
    if isinstance(image_size, int) or len(image_size) != 3:
        raise SettingError("data.image_size", f"must be three numbers, as in [40,56,40], got {image_size}")
    for side in image_size:
        check_integer("data.image_size", side, minimum=16)
    if math.prod(image_size) > _MOST_VOXELS:
        raise SettingError("data.image_size", f"must come to at most {_MOST_VOXELS} voxels, got {list(image_size)}")
    if fit not in FITS:
        raise unknown_choice("data.fit", fit, FITS)
    if spacing is not None:
        if isinstance(spacing, int | float) or len(spacing) != 3:
            raise SettingError("data.spacing", f"must be three numbers in mm or null, got {spacing}")
        for size in spacing:
            check_number("data.spacing", size, low=0.0, open_ends=True)
    if isinstance(window, int | float) or len(window) != 2 or not -np.inf < window[0] < window[1] < np.inf:
        raise SettingError("data.window", f"must be two Hounsfield units, the lower one first, got {window}")


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
        folder: {
            path.name: path
            for path in sorted((layout.folder / folder).glob("*"))
            # The archives of the Decathlon hold a hidden twin of every file.
            if path.name.endswith(_SUFFIXES) and not path.name.startswith(".") and (folder, path.name) not in listed
        }
        for folder in ("imagesTr", "labelsTr")
    }
    for name, path in alone["imagesTr"].items():
        problem = "is left out" if name in alone["labelsTr"] else "is a volume without label: it is not listed"
        bad.refuse(path, f"{problem} by dataset.json")
    for name, path in alone["labelsTr"].items():
        if name not in alone["imagesTr"]:
            bad.refuse(path, "is a label without volume: it is not listed by dataset.json")


def _read(pair: tuple[Path, Path], layout: _Layout, prepare: Prepare) -> _Volume | tuple[Path, str]:
    """One record, or the file that is to blame and what is wrong with it."""
    from monai.data.meta_tensor import MetaTensor

    image, label = (read_nifti(path) for path in pair)
    if isinstance(image, str):
        return pair[0], image
    if isinstance(label, str):
        return pair[1], label
    if blame := _contradiction(pair, image, label, layout) or _other_grid(pair, image.affine, label.affine):
        return blame
    try:
        # The label is where the image is, though its own matrix may differ in a last digit.
        affine = torch.from_numpy(image.affine)
        ready = prepare(
            {
                "image": MetaTensor(image.channels_first, affine=affine),
                "label": MetaTensor(torch.from_numpy(label.voxels[None]), affine=affine),
            }
        )
    except (ValueError, RuntimeError) as error:
        return pair[0], f"cannot be brought to the common grid ({reason(error)})"
    return _Volume(
        image=ready["image"].as_tensor().float().contiguous(),
        labels=ready["label"].as_tensor()[0].long(),
        spacing=tuple(round(float(size), 3) for size in ready["image"].pixdim),
    )


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
