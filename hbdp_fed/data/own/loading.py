"""From a manifest and whoever reads its kind of file to a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hbdp_fed.data.bad_records import BadRecords
from hbdp_fed.data.contract import ImageDataset, Preparation, Records
from hbdp_fed.data.defects import Defect, Found, settle
from hbdp_fed.data.own.classes import TWO_CLASSES, check_class_names, class_of, names_of
from hbdp_fed.data.own.reading import Readings, RecordReader, inspect_all, read_all
from hbdp_fed.data.own.table import HOSPITAL, SPLITS, Row, Table, read_table
from hbdp_fed.data.splits import SplitSettings, numbered, split_by_group, split_train_val
from hbdp_fed.errors import DataFileError


@dataclass(frozen=True)
class Question:
    """What is asked of the records.

    Attributes:
        task: The contract's word for it.
        class_names: As in the contract.
        rows: The records that can be asked it, in the table's order.
        labels: The class of each; None where masks are the labels.
        found: The records with a class that there is none of.
    """

    task: str
    class_names: tuple[str, ...]
    rows: tuple[Row, ...]
    labels: tuple[int, ...] | None
    found: tuple[Found, ...]


def question_of(table: Table, names: tuple[str, ...] | None) -> Question:
    """What a table asks.

    Args:
        table: With labels or masks.
        names: The classes; None takes the labels that occur, or background and foreground.

    Raises:
        DataFileError: if there are fewer than two classes.
    """
    if table.has_masks:
        return Question("segmentation", names or TWO_CLASSES, table.rows, None, ())
    names = names or names_of([row.label or "" for row in table.rows])
    if len(names) < 2:
        raise DataFileError(table.path, f"has the label '{names[0]}' alone; there must be two classes at least")
    rows: list[Row] = []
    labels: list[int] = []
    found: list[Found] = []
    for row in table.rows:
        try:
            labels.append(class_of(row.label or "", names))
            rows.append(row)
        except Defect as defect:
            found.append(defect.of(row.path))
    return Question("binary" if len(names) == 2 else "multiclass", names, tuple(rows), tuple(labels), tuple(found))


@dataclass(frozen=True)
class Listing:
    """A manifest with what becomes of its records, whatever files it lists.

    Attributes:
        table: The manifest.
        question: What it asks.
        settings: The shares of splits that the table does not name.
        bad: What becomes of bad records.
    """

    table: Table
    question: Question
    settings: SplitSettings
    bad: BadRecords


def open_listing(
    *,
    root: Path,
    manifest: str | None,
    folder: str | None,
    class_names: Sequence[str] | None,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
    on_bad_record: str,
) -> Listing:
    """Check the options that all kinds of files share, and read the table.

    Raises:
        SettingError: if an option cannot be used.
        DataFileError: if the manifest is none, or has fewer than two classes.
    """
    settings = SplitSettings(val_fraction=val_fraction, test_fraction=test_fraction, seed=split_seed)
    names, bad = check_class_names(class_names), BadRecords(on_bad_record)
    table = read_table(root=root, manifest=manifest, folder=folder)
    return Listing(table, question_of(table, names), settings, bad)


def load_listed(
    name: str, listing: Listing, *, reader: RecordReader, preparation: Preparation, record: str
) -> ImageDataset:
    """Look at every record's header, then read them all, and divide them.

    Nothing is read before all headers have been looked at. The division is by patient and follows the table alone:
    which files can be read moves nobody to another split.

    Args:
        name: The registry's name.
        listing: The manifest.
        reader: Who reads its kind of file.
        preparation: What the reader does to an image.
        record: What stands for itself where the table names no patients.

    Raises:
        SettingError: if there are too few patients for the shares.
        DataFileError: if records are bad under ``stop``, or ``skip`` leaves a split without a record.
    """
    table, question, bad = listing.table, listing.question, listing.bad
    rows = question.rows
    by_table = [*table.found, *question.found]
    if not rows:
        settle(by_table, manifest=table.path, total=table.total, bad=bad)
        raise DataFileError(table.path, "lists no record that can be used")
    split_of = _split_of(rows, question, listing.settings, table)
    headers, by_header = inspect_all(reader, rows)
    settle([*by_table, *by_header], manifest=table.path, total=table.total, bad=bad)
    whole = sorted(headers)
    is_deep = any(header.dtype == torch.float32 for header in headers.values())
    dtype = torch.float32 if is_deep else torch.uint8
    read = read_all(reader, [rows[position] for position in whole], dtype=dtype)
    settle(read.found, manifest=table.path, total=table.total, bad=bad)
    positions = torch.tensor([whole[number] for number in read.kept], dtype=torch.int64)
    parts = [torch.nonzero(split_of[positions] == number)[:, 0] for number in range(len(SPLITS))]
    for split, part in zip(SPLITS, parts, strict=True):
        if not len(part):
            raise DataFileError(table.path, f"leaves no record for the split {split}")
    records = _records(question, positions, read)
    train, val, test = (records.select(part) for part in parts)
    sizes = set(read.spacings)
    return ImageDataset(
        name=name,
        task=question.task,
        class_names=question.class_names,
        train=train,
        val=val,
        test=test,
        group=record if records.groups is None else "patient",
        skipped=tuple(bad.skipped),
        spacing=sizes.pop() if len(sizes) == 1 else None,
        preparation=preparation,
    )


def _records(question: Question, positions: Tensor, read: Readings) -> Records:
    """The records at these positions, with the images that were read of them."""
    rows = [question.rows[position] for position in positions.tolist()]
    labels = read.masks if question.labels is None else torch.tensor(question.labels)[positions]
    assert labels is not None  # what has no label has a mask
    # One numbering for all splits: a group is the same patient in each.
    has_patients = rows[0].patient is not None
    return Records(
        images=read.images,
        labels=labels,
        groups=numbered([row.patient or "" for row in rows]) if has_patients else None,
        names=np.asarray([row.name for row in rows]),
        attributes={name: np.asarray([row.attributes[name] for row in rows]) for name in rows[0].attributes},
    )


def _split_of(rows: Sequence[Row], question: Question, settings: SplitSettings, table: Table) -> Tensor:
    """The split of each record, int64 places in :data:`SPLITS`: the table's word, and of what it does not say, a draw.

    Splits that the table names nobody for are drawn from those that it gives to training.

    Raises:
        SettingError: if there are so few patients that a split would be empty.
        DataFileError: if the table names nobody to train on.
    """
    everyone = torch.arange(len(rows))
    groups = everyone if rows[0].patient is None else numbered([row.patient or "" for row in rows])
    classes = question.labels or [0] * len(rows)
    # So that every hospital has records of every class in every split, as far as there are any.
    strata = numbered([f"{row.attributes.get(HOSPITAL, '')} {own}" for row, own in zip(rows, classes, strict=True)])
    if rows[0].split is None:
        drawn = split_by_group(groups, strata, settings)
        split_of = torch.empty_like(everyone)
        for number, part in enumerate((drawn.train, drawn.val, drawn.test)):
            split_of[part] = number
        return split_of
    split_of = torch.tensor([SPLITS.index(row.split or "") for row in rows])
    named = {SPLITS[number] for number in split_of.tolist()}
    if "train" not in named:
        raise DataFileError(table.path, "gives no record to the split train")
    shares = {"val": settings.val_fraction, "test": settings.test_fraction}
    for split, share in shares.items():
        training = torch.nonzero(split_of == 0)[:, 0]
        if split not in named:
            # The second share is of what the first one leaves.
            taken = settings.val_fraction if split == "test" and "val" not in named else 0.0
            _, out = split_train_val(
                groups[training],
                strata[training],
                val_fraction=share / (1 - taken),
                seed=settings.seed,
                key=f"data.{split}_fraction",
            )
            split_of[training[out]] = SPLITS.index(split)
    return split_of
