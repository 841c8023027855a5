"""Reads the paediatric chest X-rays of Kermany et al. from their folders: normal, or pneumonia by bacteria or virus.

Kermany et al., "Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning", Cell 172, 1122
(2018); the files are at https://data.mendeley.com/datasets/rscbjbr9sj and, under other names, on Kaggle.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hbdp_fed.data.bad_records import BadRecords
from hbdp_fed.data.checks import check_integer
from hbdp_fed.data.contract import ImageDataset, Records
from hbdp_fed.data.photographs import photograph_preparation, read_photographs
from hbdp_fed.data.splits import numbered, split_train_val
from hbdp_fed.errors import DataFileError, unknown_choice

KINDS = ("normal", "bacteria", "virus")
"""What an image can show."""

_FOLDERS: Mapping[str, tuple[str, ...]] = {"NORMAL": ("normal",), "PNEUMONIA": ("bacteria", "virus")}
_SPLITS = ("train", "test")
_SUFFIXES = {".jpeg", ".jpg", ".png"}

# Of each way in which files are named: what the patient's number counts, and the pattern.
_NAMES = (
    ("person", re.compile(r"person(?P<patient>\d+)_(?P<kind>bacteria|virus)_\d+(_\d+)*")),
    ("normal", re.compile(r"(NORMAL2-)?IM-(?P<patient>\d+)-\d+(-\d+)*")),
    ("patient", re.compile(r"(?P<kind>NORMAL|BACTERIA|VIRUS)-(?P<patient>\d+)-\d+(-\d+)*")),
)


@dataclass(frozen=True)
class _Task:
    """One question that can be asked of the images.

    Attributes:
        class_names: As in the contract.
        class_of: The class of each kind.
    """

    class_names: tuple[str, ...]
    class_of: Mapping[str, int]


CHEST_XRAY_TASKS: Mapping[str, _Task] = {
    "binary": _Task(("normal", "pneumonia"), {"normal": 0, "bacteria": 1, "virus": 1}),
    "multiclass": _Task(KINDS, {kind: number for number, kind in enumerate(KINDS)}),
}
"""What can be asked, by ``data.task``."""


@dataclass(frozen=True)
class _Xray:
    """One file: where it is, whose it is and what it shows (one of :data:`KINDS`)."""

    path: Path
    patient: str
    kind: str


def load_chest_xray(
    *,
    root: Path,
    image_size: int = 64,
    task: str = "binary",
    val_fraction: float = 0.1,
    split_seed: int = 0,
    on_bad_record: str = "stop",
) -> ImageDataset:
    """Read ``root/chest_xray/{train,test}/{NORMAL,PNEUMONIA}``; the test split is the official one.

    The validation split is taken from the official training split, by patient, and spreads the three kinds evenly.
    Kaggle's folder ``val``, 16 images, is not read.

    A file's name gives the patient: ``person7_virus_29.jpeg``, ``IM-0115-0001.jpeg`` and ``NORMAL2-IM-0518-0001.jpeg``
    or, in the authors' later version, ``BACTERIA-1008087-0001.jpeg``. In the earlier names the same number stands for
    more than one thing: 808 of 1635 persons of the training split have images of both kinds of pneumonia, and 211
    numbers of healthy patients stand with and without ``NORMAL2``. Files with the same number are one patient here,
    whatever else is in their names: this is right if the number is the person's, and joins strangers, which only makes
    groups larger, if every kind is counted from 1.

    The official splits cannot be treated like this. 170 of the 202 persons of the test split have a number that the
    training split has too, and so have 94 of the 202 healthy patients. Most likely these are strangers: not one of
    these numbers has the same kind (or series) in both splits, the authors say that they divided by patient, and no
    image is in both splits. But the files do not prove it. If they are the same children, figures on the test split
    are too good.

    Args:
        root: The folder that holds the folder ``chest_xray``.
        image_size: Height and width that each image is scaled to, whatever its sides were, at least 16.
        task: A key of :data:`CHEST_XRAY_TASKS`: ``binary`` (normal, pneumonia) or ``multiclass`` (normal, bacteria,
            virus).
        val_fraction: The share of the training split's patients that go to the validation split, in (0, 1).
        split_seed: The division's own seed.
        on_bad_record: ``stop`` or ``skip``: what becomes of a file that cannot be read, or whose name does not tell
            the patient, or contradicts its folder.

    Returns:
        Grey images, uint8 (N, 1, image_size, image_size). Groups are patients; names are paths below ``chest_xray``;
        the attribute ``kind`` is one of :data:`KINDS`.

    Raises:
        SettingError: if an option cannot be used.
        DataFileError: if a folder is missing or has no image, or a record is bad under ``stop``.
    """
    if task not in CHEST_XRAY_TASKS:
        raise unknown_choice("data.task", task, CHEST_XRAY_TASKS)
    check_integer("data.image_size", image_size, minimum=16)
    bad = BadRecords(on_bad_record)
    folder = root / "chest_xray"
    official = {split: _list_split(folder / split, bad) for split in _SPLITS}
    training = official["train"]
    train, val = split_train_val(
        numbered([xray.patient for xray in training]),
        numbered([xray.kind for xray in training]),
        val_fraction=val_fraction,
        seed=split_seed,
    )
    chosen = {
        "train": [training[number] for number in train.tolist()],
        "val": [training[number] for number in val.tolist()],
        "test": official["test"],
    }
    # One numbering for all splits: a group is the same patient in each.
    patients = {
        name: number for number, name in enumerate(sorted({x.patient for part in official.values() for x in part}))
    }
    splits = {
        split: _read(folder, xrays, patients, CHEST_XRAY_TASKS[task].class_of, image_size, bad)
        for split, xrays in chosen.items()
    }
    return ImageDataset(
        name="chest_xray",
        task=task,
        class_names=CHEST_XRAY_TASKS[task].class_names,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        group="patient",
        skipped=tuple(bad.skipped),
        preparation=photograph_preparation("L", image_size),
        licence="CC BY 4.0",
    )


def chest_xray_files(*, root: Path, **_: Any) -> Iterator[Path]:
    """The files on which :func:`load_chest_xray` depends.

    Raises:
        OSError: if a folder is missing.
    """
    for split in _SPLITS:
        for name in _FOLDERS:
            yield from _images_in(root / "chest_xray" / split / name)


def _images_in(folder: Path) -> list[Path]:
    # Archives that were packed on a Mac have a hidden twin of every file.
    return [p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and not p.name.startswith(".")]


def _list_split(folder: Path, bad: BadRecords) -> list[_Xray]:
    """The images of an official split in the order of their paths."""
    xrays = [xray for name, kinds in _FOLDERS.items() for xray in _list_folder(folder / name, kinds, bad)]
    if not xrays:
        raise DataFileError(folder, "has no image that can be used")
    return xrays


def _list_folder(folder: Path, kinds: Sequence[str], bad: BadRecords) -> Iterator[_Xray]:
    if not folder.is_dir():
        raise DataFileError(folder, "there is no such folder; set HBDP_DATA to the folder that holds chest_xray")
    paths = _images_in(folder)
    if not paths:
        raise DataFileError(folder, f"has no image ({', '.join(sorted(_SUFFIXES))})")
    for path in sorted(paths):
        xray = _identify(path)
        if xray is None:
            bad.refuse(path, "has a name that does not tell the patient, as person7_virus_29 or IM-0115-0001 would")
        elif xray.kind not in kinds:
            bad.refuse(path, f"is an image of the kind '{xray.kind}' by its name, but lies in the folder {folder.name}")
        else:
            yield xray


def _identify(path: Path) -> _Xray | None:
    for counted, pattern in _NAMES:
        if match := pattern.fullmatch(path.stem):
            kind = match.groupdict().get("kind", "normal").lower()
            return _Xray(path=path, patient=f"{counted} {int(match['patient'])}", kind=kind)
    return None


def _read(
    folder: Path,
    xrays: Sequence[_Xray],
    patients: Mapping[str, int],
    class_of: Mapping[str, int],
    image_size: int,
    bad: BadRecords,
) -> Records:
    images, kept = read_photographs([xray.path for xray in xrays], mode="L", image_size=image_size, bad=bad)
    readable = [xrays[number] for number in kept.tolist()]
    if not readable:
        raise DataFileError(folder, "has a split without a single image that can be read")
    return Records(
        images=images,
        labels=torch.tensor([class_of[xray.kind] for xray in readable]),
        groups=torch.tensor([patients[xray.patient] for xray in readable]),
        names=np.asarray([xray.path.relative_to(folder).as_posix() for xray in readable]),
        attributes={"kind": np.asarray([xray.kind for xray in readable])},
    )
