"""Reads HAM10000: photographs of pigmented skin lesions from four sources, with a diagnosis and an outline each.

Tschandl et al., "The HAM10000 dataset, a large collection of multi-source dermatoscopic images of common pigmented skin
lesions", Scientific Data 5, 180161 (2018). The outlines are from Tschandl et al., Nature Medicine 26, 1229 (2020).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hbdp_fed.data.bad_records import BadRecords
from hbdp_fed.data.checks import check_integer
from hbdp_fed.data.contract import ImageDataset, Records
from hbdp_fed.data.photographs import read_photographs
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
_PHOTOGRAPHS = "HAM10000_images*"
_OUTLINES = ("masks*", "*segmentation*")
_AGE_BANDS = ((40, "below 40"), (60, "40 to 59"), (np.inf, "60 and above"))
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
    on_bad_record: str = "error",
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
        on_bad_record: ``error`` or ``skip``: what becomes of a row with an unknown diagnosis or without its files.

    Returns:
        RGB images, uint8. Groups are lesions; the attributes are the table's columns ``dataset``, ``sex``,
        ``localization``, ``dx`` and ``dx_type``, and ``age`` in three bands.

    Raises:
        SettingError: if an option cannot be used.
        DataFileError: if the table is missing or not HAM10000's, or a record is bad under ``error``.
    """
    if task not in HAM10000_TASKS:
        raise unknown_choice("data.task", task, HAM10000_TASKS)
    check_integer("data.image_size", image_size, minimum=16)
    settings = SplitSettings(val_fraction=val_fraction, test_fraction=test_fraction, seed=split_seed)
    bad = BadRecords(on_bad_record)
    folder = root / "ham10000"
    rows = _read_table(folder / TABLE, bad)
    photographs = _index(folder, (_PHOTOGRAPHS,), "")
    rows, images = _with_pictures(rows, photographs, folder / "HAM10000_images", ".jpg", "RGB", image_size, bad)
    question = HAM10000_TASKS[task]
    if question.labels is None:
        outlines = _index(folder, _OUTLINES, "_segmentation")
        place = folder / "masks"
        kept, masks = _with_pictures(rows, outlines, place, "_segmentation.png", "L", image_size, bad, nearest=True)
        present = {row["image_id"] for row in kept}
        images = images[torch.tensor([row["image_id"] in present for row in rows])]
        rows, labels = kept, (masks[:, 0] > _MIDDLE_GREY).long()
    else:
        labels = question.labels(rows)
    records = Records(
        images=images,
        labels=labels,
        groups=numbered([row["lesion_id"] for row in rows]),
        names=np.asarray([row["image_id"] for row in rows]),
        attributes={
            **{name: np.asarray([row[name] for row in rows]) for name in _COLUMNS if name not in _IDENTITIES},
            "age": np.asarray([_age_band(row["age"]) for row in rows]),
        },
    )
    strata = numbered([f"{row['dataset']} {row['dx']}" for row in rows])
    split = split_by_group(records.groups, strata, settings)  # type: ignore[arg-type]
    return ImageDataset(
        name="ham10000",
        task=question.task,
        class_names=question.class_names,
        train=records.select(split.train),
        val=records.select(split.val),
        test=records.select(split.test),
        group="lesion",
        skipped=tuple(bad.skipped),
    )


_IDENTITIES = ("lesion_id", "image_id", "age")


def _read_table(path: Path, bad: BadRecords) -> list[Row]:
    """The table's rows in the order of the photographs' names."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise DataFileError(path, f"has no column {', '.join(missing)}; it should be the table of HAM10000")
            rows = []
            for row in reader:
                if row["dx"] in DIAGNOSES:
                    rows.append(row)
                else:
                    known = ", ".join(DIAGNOSES)
                    bad.refuse(
                        path, f"line {reader.line_num} has the diagnosis '{row['dx']}', which is none of {known}"
                    )
    except FileNotFoundError as error:
        raise DataFileError(path, "there is no such file; set HBDP_DATA to the folder that holds ham10000") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(path, f"cannot be read ({error})") from error
    if not rows:
        raise DataFileError(path, "has no row with a known diagnosis")
    return sorted(rows, key=lambda row: row["image_id"])


def _index(folder: Path, patterns: Sequence[str], ending: str) -> dict[str, Path]:
    """The files of all folders that fit a pattern, by the photograph's name; the archives come in several parts."""
    return {
        file.stem.removesuffix(ending): file
        for pattern in patterns
        for part in sorted(folder.glob(pattern))
        if part.is_dir()
        for file in part.iterdir()
        if file.suffix.lower() in {".jpg", ".jpeg", ".png"}
    }


def _with_pictures(
    rows: Sequence[Row],
    files: Mapping[str, Path],
    place: Path,
    ending: str,
    mode: str,
    image_size: int,
    bad: BadRecords,
    *,
    nearest: bool = False,
) -> tuple[list[Row], Tensor]:
    """The rows whose picture can be read, and the pictures; ``place`` and ``ending`` say where one would be."""
    paths = [files.get(row["image_id"], place / f"{row['image_id']}{ending}") for row in rows]
    images, kept = read_photographs(paths, mode=mode, image_size=image_size, bad=bad, nearest=nearest)
    return [rows[number] for number in kept.tolist()], images


def _age_band(age: str) -> str:
    try:
        years = float(age)
    except ValueError:
        return "unknown"
    return next((band for limit, band in _AGE_BANDS if years < limit), "unknown")
