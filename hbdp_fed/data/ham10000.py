"""Reads HAM10000: photographs of pigmented skin lesions from four sources, with a diagnosis and an outline each.

Tschandl et al., "The HAM10000 dataset, a large collection of multi-source dermatoscopic images of common pigmented skin
lesions", Scientific Data 5, 180161 (2018). The outlines are from Tschandl et al., Nature Medicine 26, 1229 (2020).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hbdp_fed.data.bad_records import BadRecords
from hbdp_fed.data.checks import check_integer
from hbdp_fed.data.contract import ImageDataset, Records, Words
from hbdp_fed.data.photographs import photograph_preparation, read_photographs
from hbdp_fed.data.splits import SplitSettings, numbered, split_by_group
from hbdp_fed.errors import DataFileError, unknown_choice

TABLE = "HAM10000_metadata.csv"

DIAGNOSES: Mapping[str, str] = {
    "akiec": "actinic keratosis",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic naevus",
    "vasc": "vascular lesion",
}
"""The table's seven diagnoses, in the order of the classes."""

NEEDS_ATTENTION = ("akiec", "bcc", "mel")
"""Malignant or on the way there: class 1 of the binary task of Ziller et al. (2024)."""

_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset")
_IDENTITIES = ("lesion_id", "image_id")
_PHOTOGRAPHS = "HAM10000_images*"
_OUTLINES = ("masks*", "*segmentation*")
_OUTLINE_ENDING = "_segmentation"
_SUFFIXES = {".jpg", ".jpeg", ".png"}
_AGE_BANDS = ((40, "0 to 39"), (60, "40 to 59"), (np.inf, "60 and above"))
_MIDDLE_GREY = 127

Row = Mapping[str, str]


@dataclass(frozen=True)
class _Task:
    """One question that can be asked of the photographs.

    Attributes:
        task: The contract's word for it.
        class_names: As in the contract.
        labels: From a table's rows, in the order of the records, to labels (N,); None where outlines are the labels.
    """

    task: str
    class_names: tuple[str, ...]
    labels: Callable[[Sequence[Row]], Tensor] | None


def _needs_attention(rows: Sequence[Row]) -> Tensor:
    return torch.tensor([row["dx"] in NEEDS_ATTENTION for row in rows]).long()


def _diagnosis(rows: Sequence[Row]) -> Tensor:
    numbers = {name: number for number, name in enumerate(DIAGNOSES)}
    return torch.tensor([numbers[row["dx"]] for row in rows])


HAM10000_TASKS: Mapping[str, _Task] = {
    "binary": _Task("binary", ("benign", "needs attention"), _needs_attention),
    "multiclass": _Task("multiclass", tuple(DIAGNOSES.values()), _diagnosis),
    "segmentation": _Task("segmentation", ("skin", "lesion"), None),
}
"""What can be asked, by ``data.task``."""


def load_ham10000(
    *,
    root: Path,
    task: str = "binary",
    image_size: int = 64,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    on_bad_record: str = "stop",
) -> ImageDataset:
    """Read ``root/ham10000``: the table, the folders ``HAM10000_images*`` and, for outlines, ``masks*``.

    There are no official splits with known labels. The division is by lesion, of which many have several photographs,
    and spreads sources and diagnoses evenly.

    Args:
        root: The folder that holds the folder ``ham10000``.
        task: A key of :data:`HAM10000_TASKS`: ``binary`` (akiec, bcc and mel need attention), ``multiclass`` (the seven
            diagnoses), ``segmentation`` (the lesion's outline).
        image_size: Height and width that each photograph, 4:3, is scaled to, at least 16.
        val_fraction: The share of lesions in the validation split.
        test_fraction: The share of lesions in the test split.
        split_seed: The division's own seed.
        on_bad_record: ``stop`` or ``skip``: what becomes of a row that is cut off, repeats a photograph or has an
            unknown diagnosis, and of a record whose files are missing or cannot be read.

    Returns:
        RGB images, uint8. Groups are lesions; the attributes are the table's columns ``dataset``, ``sex``,
        ``localization``, ``dx`` and ``dx_type``, and ``age`` in three bands.

    Raises:
        SettingError: if an option cannot be used.
        DataFileError: if the table is missing or not HAM10000's, a record is bad under ``stop``, or ``skip`` leaves a
            split without a record.
    """
    if task not in HAM10000_TASKS:
        raise unknown_choice("data.task", task, HAM10000_TASKS)
    check_integer("data.image_size", image_size, minimum=16)
    settings = SplitSettings(val_fraction=val_fraction, test_fraction=test_fraction, seed=split_seed)
    bad = BadRecords(on_bad_record)
    folder = root / "ham10000"
    rows = _read_table(folder / TABLE, bad)
    lesions = numbered([row["lesion_id"] for row in rows])
    # By the table alone: which photographs can be read, and which have an outline, moves no lesion to another split.
    split = split_by_group(lesions, numbered([f"{row['dataset']} {row['dx']}" for row in rows]), settings)
    pictures = _index(folder, (_PHOTOGRAPHS,), "")
    places = [pictures.get(row["image_id"], folder / "HAM10000_images" / f"{row['image_id']}.jpg") for row in rows]
    images, kept = read_photographs(places, mode="RGB", image_size=image_size, bad=bad)
    question = HAM10000_TASKS[task]
    if question.labels is None:
        outlines = _index(folder, _OUTLINES, _OUTLINE_ENDING)
        names = [rows[number]["image_id"] for number in kept.tolist()]
        places = [outlines.get(name, folder / "masks" / f"{name}{_OUTLINE_ENDING}.png") for name in names]
        masks, whole = read_photographs(places, mode="L", image_size=image_size, bad=bad, nearest=True)
        images, kept, labels = images[whole], kept[whole], (masks[:, 0] > _MIDDLE_GREY).long()
    else:
        labels = question.labels(rows)[kept]
    records = Records(
        images=images,
        labels=labels,
        groups=lesions[kept],
        names=np.asarray([rows[number]["image_id"] for number in kept.tolist()]),
        attributes=_attributes([rows[number] for number in kept.tolist()]),
    )
    train, val, test = (
        records.select(torch.nonzero(torch.isin(kept, part))[:, 0]) for part in (split.train, split.val, split.test)
    )
    if not (len(train) and len(val) and len(test)):
        raise DataFileError(folder, "has a split without a single record whose files can be read")
    return ImageDataset(
        name="ham10000",
        task=question.task,
        class_names=question.class_names,
        train=train,
        val=val,
        test=test,
        group="lesion",
        skipped=tuple(bad.skipped),
        preparation=photograph_preparation("RGB", image_size),
        licence="CC BY-NC 4.0",
    )


def ham10000_files(*, root: Path, task: str, **_: Any) -> Iterator[Path]:
    """The files on which :func:`load_ham10000` depends.

    Raises:
        SettingError: if there is no such task.
        OSError: if a folder cannot be looked into.
    """
    if task not in HAM10000_TASKS:
        raise unknown_choice("data.task", task, HAM10000_TASKS)
    outlines = _OUTLINES if HAM10000_TASKS[task].labels is None else ()
    yield root / "ham10000" / TABLE
    yield from _pictures(root / "ham10000", (_PHOTOGRAPHS, *outlines))


def _read_table(path: Path, bad: BadRecords) -> list[Row]:
    """The table's rows in the order of the photographs' names."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise DataFileError(path, f"has no column {', '.join(missing)}; it should be the table of HAM10000")
            rows: dict[str, Row] = {}
            for row in reader:
                if problem := _problem(row, rows):
                    bad.refuse(path, f"line {reader.line_num} {problem}")
                else:
                    rows[row["image_id"]] = row
    except FileNotFoundError as error:
        raise DataFileError(path, "there is no such file; set HBDP_DATA to the folder that holds ham10000") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(path, f"cannot be read ({error})") from error
    if not rows:
        raise DataFileError(path, "has no row with a known diagnosis")
    return [rows[name] for name in sorted(rows)]


def _problem(row: Mapping[str, str | None], known: Collection[str]) -> str | None:
    """What is wrong with a row of the table; ``known`` are the photographs of the rows before it."""
    # A line that was cut off has no value, not even an empty one, in its last columns.
    empty = [name for name in _COLUMNS if row[name] is None or (name in _IDENTITIES and not row[name])]
    if empty:
        return f"has no {', '.join(empty)}"
    if row["dx"] not in DIAGNOSES:
        return f"has the diagnosis '{row['dx']}', which is none of {', '.join(DIAGNOSES)}"
    if row["image_id"] in known:
        return f"has the photograph {row['image_id']} for a second time"
    return None


def _index(folder: Path, patterns: Sequence[str], ending: str) -> dict[str, Path]:
    """The files of all folders that fit a pattern, by the photograph's name; the archives come in several parts."""
    return {file.stem.removesuffix(ending): file for file in _pictures(folder, patterns)}


def _pictures(folder: Path, patterns: Sequence[str]) -> Iterator[Path]:
    for pattern in patterns:
        for part in sorted(folder.glob(pattern)):
            if part.is_dir():
                yield from (file for file in sorted(part.iterdir()) if file.suffix.lower() in _SUFFIXES)


def _attributes(rows: Sequence[Row]) -> dict[str, Words]:
    """What is known of each record; the table's own word for what is not is ``unknown``."""
    described = [name for name in _COLUMNS if name not in (*_IDENTITIES, "age")]
    return {
        **{name: np.asarray([row[name] or "unknown" for row in rows]) for name in described},
        "age": np.asarray([_age_band(row["age"]) for row in rows]),
    }


def _age_band(age: str) -> str:
    try:
        years = float(age)
    except ValueError:
        return "unknown"
    return next((band for limit, band in _AGE_BANDS if years < limit), "unknown")
