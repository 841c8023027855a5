"""Reads RadImageNet: CT, MR and ultrasound images of 165 classes, from its folders and its three tables.

Mei et al., "RadImageNet: An Open Radiologic Deep Learning Research Dataset for Effective Transfer Learning",
Radiology: Artificial Intelligence 4(5), e210315 (2022). The files are given out on request at
https://www.radimagenet.com.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from hbdp_fed.data.bad_records import BadRecords
from hbdp_fed.data.checks import check_integer
from hbdp_fed.data.contract import ImageDataset, Records
from hbdp_fed.data.photographs import photograph_preparation, read_photographs
from hbdp_fed.data.splits import stratified_subset
from hbdp_fed.errors import DataFileError

_LOGGER = logging.getLogger(__name__)

NUM_CLASSES = 165
"""Classes of the whole set, as its authors publish it."""

_COLUMNS = ("filename", "label")
_TOP_FOLDER = "radiology_ai"


@dataclass(frozen=True)
class _Row:
    """One line of a table: the image's path below the data set's folder, with slashes, and its class's name."""

    filename: str
    label: str

    @property
    def modality_and_anatomy(self) -> tuple[str, str]:
        """The first two folders below ``radiology_ai``: ``MR`` and ``af``, ``US`` and ``gb``."""
        folders = [part for part in PurePosixPath(self.filename).parts[:-1] if part != _TOP_FOLDER]
        modality, anatomy = (*folders, "unknown", "unknown")[:2]
        return modality, anatomy


@dataclass(frozen=True)
class _Tables:
    """The lines of each split that are read, and the classes of all lines in alphabetical order."""

    rows: Mapping[str, Sequence[_Row]]
    class_names: tuple[str, ...]


def load_radimagenet(
    *,
    root: Path,
    image_size: int = 224,
    max_records: int = 0,
    subset_seed: int = 0,
    train_csv: str = "RadiologyAI_train.csv",
    val_csv: str = "RadiologyAI_val.csv",
    test_csv: str = "RadiologyAI_test.csv",
    on_bad_record: str = "stop",
) -> ImageDataset:
    """Read ``root/radimagenet``: a table for each official split, and the images that the tables name.

    A table has the columns ``filename``, a path such as ``radiology_ai/MR/af/Plantar_plate_tear/foot040499.png`` that
    starts in the folder ``radimagenet``, and ``label``, a class's name. The classes are all names of the three tables
    in alphabetical order, even those that a smaller set is left without.

    The authors divided by patient, but publish no patients: every image stands for itself, and what is promised to a
    record is not promised to a patient with many images. Some images are there twice, also under different classes
    (https://github.com/BMEII-AI/RadImageNet/issues/17); they are read as they are.

    All images are in memory at once, a byte a pixel: 1.35 million of 224x224 take 68 GB, of 64x64 6 GB. A smaller
    machine uses ``image_size`` or ``max_records``.

    Args:
        root: The folder that holds the folder ``radimagenet``.
        image_size: Height and width that each image, 224x224, is scaled to, at least 16.
        max_records: The most records of each split, drawn with the classes in their proportions; 0 takes all.
        subset_seed: The draw's own seed.
        train_csv: The training split's table, a path in the folder ``radimagenet``.
        val_csv: The validation split's.
        test_csv: The test split's.
        on_bad_record: ``stop`` or ``skip``: what becomes of a line without file name or label, and of an image that is
            missing or cannot be read.

    Returns:
        Grey images, uint8 (N, 1, image_size, image_size); no groups. Names are the tables' file names; the attributes
        are ``modality`` (CT, MR, US) and ``anatomy``, from the path.

    Raises:
        SettingError: if an option cannot be used.
        DataFileError: if a table is missing, empty or without a column, or a record is bad under ``stop``.
    """
    check_integer("data.image_size", image_size, minimum=16)
    bad = BadRecords(on_bad_record)
    folder = root / "radimagenet"
    names = {"train": train_csv, "val": val_csv, "test": test_csv}
    tables = _read_tables(folder, names, max_records=max_records, subset_seed=subset_seed, bad=bad)
    if len(tables.class_names) != NUM_CLASSES:
        _LOGGER.warning(
            "RadImageNet has %d classes, but the tables in %s name %d", NUM_CLASSES, folder, len(tables.class_names)
        )
    class_of = {name: number for number, name in enumerate(tables.class_names)}
    splits = {
        split: _read(folder, names[split], rows, class_of, image_size, bad) for split, rows in tables.rows.items()
    }
    return ImageDataset(
        name="radimagenet",
        task="multiclass",
        class_names=tables.class_names,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        group="image",
        skipped=tuple(bad.skipped),
        preparation=photograph_preparation("L", image_size),
    )


def radimagenet_files(
    *,
    root: Path,
    max_records: int,
    subset_seed: int,
    train_csv: str,
    val_csv: str,
    test_csv: str,
    on_bad_record: str,
    **_: Any,
) -> Iterator[Path]:
    """The files on which :func:`load_radimagenet` depends: the tables, and the images that it takes of them.

    Raises:
        SettingError: if an option cannot be used.
        DataFileError: if a table is missing or broken, or a line is bad under ``error``.
    """
    folder = root / "radimagenet"
    names = {"train": train_csv, "val": val_csv, "test": test_csv}
    yield from (folder / name for name in names.values())
    tables = _read_tables(
        folder, names, max_records=max_records, subset_seed=subset_seed, bad=BadRecords(on_bad_record)
    )
    yield from (folder / row.filename for rows in tables.rows.values() for row in rows)


def _read_tables(
    folder: Path, names: Mapping[str, str], *, max_records: int, subset_seed: int, bad: BadRecords
) -> _Tables:
    check_integer("data.max_records", max_records, minimum=0)
    check_integer("data.subset_seed", subset_seed, minimum=0)
    tables = {split: _read_table(folder / name, bad) for split, name in names.items()}
    class_names = tuple(sorted({row.label for rows in tables.values() for row in rows}))
    if not max_records:
        return _Tables(tables, class_names)
    class_of = {name: number for number, name in enumerate(class_names)}
    chosen = {}
    for split, rows in tables.items():
        labels = torch.tensor([class_of[row.label] for row in rows])
        chosen[split] = [rows[number] for number in stratified_subset(labels, max_records, seed=subset_seed).tolist()]
    return _Tables(chosen, class_names)


def _read_table(path: Path, bad: BadRecords) -> list[_Row]:
    rows = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise DataFileError(path, f"has no column {', '.join(missing)}; it should be a table of RadImageNet")
            for line in reader:
                row = _Row(filename=(line["filename"] or "").strip(), label=(line["label"] or "").strip())
                if problem := _problem(row):
                    bad.refuse(path, f"line {reader.line_num} {problem}")
                else:
                    rows.append(row)
    except FileNotFoundError as error:
        raise DataFileError(
            path, "there is no such file; set HBDP_DATA to the folder that holds radimagenet"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(path, f"cannot be read ({error})") from error
    if not rows:
        raise DataFileError(path, "has no line with a file name and a label")
    return rows


def _problem(row: _Row) -> str | None:
    if not (row.filename and row.label):
        return "has no file name or no label"
    path = PurePosixPath(row.filename)
    if path.is_absolute() or ".." in path.parts:
        return f"names a file outside of the data set's folder: {row.filename}"
    return None


def _read(
    folder: Path, table: str, rows: Sequence[_Row], class_of: Mapping[str, int], image_size: int, bad: BadRecords
) -> Records:
    images, kept = read_photographs([folder / row.filename for row in rows], mode="L", image_size=image_size, bad=bad)
    readable = [rows[number] for number in kept.tolist()]
    if not readable:
        raise DataFileError(folder / table, "names no image that can be read")
    places = np.asarray([row.modality_and_anatomy for row in readable])
    return Records(
        images=images,
        labels=torch.tensor([class_of[row.label] for row in readable]),
        names=np.asarray([row.filename for row in readable]),
        attributes={"modality": places[:, 0], "anatomy": places[:, 1]},
    )
