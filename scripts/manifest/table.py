"""From the records of a folder to the rows of their table."""

from __future__ import annotations

import csv
import io
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hbdp_fed.errors import DataFileError, SettingError
from scripts.manifest.finding import SPLIT_FOLDERS, Word, find_records, mask_path, split_of

REFUSE, OWN, DIVIDE = "refuse", "own", "divide"
PATIENTS_IN_SPLITS: Mapping[str, str] = {
    REFUSE: "nothing is written",
    OWN: "numbers start anew in every split: the split becomes a part of the patient",
    DIVIDE: "they are the same people: no split is written, and the data set is divided by patient",
}
"""What becomes of patients whose files lie in the folders of more than one split."""

_LOGGER = logging.getLogger(__name__)

_MOST_NAMED = 5


@dataclass(frozen=True)
class Wanted:
    """What is to be written.

    Attributes:
        kind: The data set that will read it.
        folder: Where the records are.
        series: For DICOM: whether a record is a folder of slices.
        label: Where its class comes from; None where it has a mask.
        mask: The template of its mask's path.
        patient: Where its patient comes from, if anything says.
        hospital: The same of its hospital.
        patients_in_splits: A key of :data:`PATIENTS_IN_SPLITS`.
    """

    kind: str
    folder: Path
    series: bool
    label: Word | None
    mask: str | None
    patient: Word | None
    hospital: Word | None
    patients_in_splits: str


def rows_of(wanted: Wanted) -> list[dict[str, str]]:
    """A row a record.

    Raises:
        SettingError: if an option does not fit the files.
        DataFileError: if the folder holds no such record.
    """
    records = find_records(wanted.kind, wanted.folder, series=wanted.series)
    masks = {} if wanted.mask is None else {record: mask_path(wanted.mask, record) for record in records}
    # Masks of the same kind of file were found, too.
    others = set(masks.values())
    records = [record for record in records if record not in others]
    if not records:
        raise DataFileError(wanted.folder, f"holds no record of the kind {wanted.kind}")
    columns: dict[str, list[str]] = {"path": [record.as_posix() for record in records]}
    if wanted.mask is not None:
        columns["mask"] = _masks(wanted.folder, [(record, masks[record]) for record in records])
    for name, option, word in (
        ("label", "--label-from", wanted.label),
        ("hospital", "--hospital-from", wanted.hospital),
        ("patient", "--patient-pattern", wanted.patient),
    ):
        if word is not None:
            columns[name] = _words(option, word, records)
    splits = _splits(wanted.folder, records)
    if splits is not None:
        columns["split"] = splits
        if "patient" in columns:
            _settle_patients(columns, wanted.patients_in_splits)
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def as_csv(rows: Sequence[Mapping[str, str]]) -> str:
    """The table as text."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _words(option: str, word: Word, records: Sequence[PurePosixPath]) -> list[str]:
    found = [(record, word(record)) for record in records]
    silent = [str(record) for record, told in found if not told]
    if silent:
        raise SettingError(option, f"finds nothing in {len(silent)} of {len(records)} paths: {_some(silent)}")
    return [told or "" for _, told in found]


def _masks(folder: Path, pairs: Sequence[tuple[PurePosixPath, PurePosixPath]]) -> list[str]:
    missing = [f"{record} ({mask})" for record, mask in pairs if not (folder / mask).exists()]
    if len(missing) == len(pairs):
        raise SettingError("--mask-from", f"no record has a mask there: {_some(missing)}")
    if missing:
        # Whoever reads the table will name them as bad records, or leave them out.
        _LOGGER.warning("%d of %d records have no mask there: %s", len(missing), len(pairs), _some(missing))
    return [mask.as_posix() for _, mask in pairs]


def _splits(folder: Path, records: Sequence[PurePosixPath]) -> list[str] | None:
    splits = [split_of(record) for record in records]
    if not any(splits):
        return None
    outside = [str(record) for record, split in zip(records, splits, strict=True) if split is None]
    if outside:
        raise DataFileError(
            folder, f"has folders of splits ({', '.join(SPLIT_FOLDERS)}), but {len(outside)} records lie in none of "
            f"them: {_some(outside)}"
        )  # fmt: skip
    return [split or "" for split in splits]


def _settle_patients(columns: dict[str, list[str]], choice: str) -> None:
    """See to it that no patient is in two splits."""
    splits: dict[str, set[str]] = defaultdict(set)
    for patient, split in zip(columns["patient"], columns["split"], strict=True):
        splits[patient].add(split)
    divided = [f"{patient} ({', '.join(sorted(own))})" for patient, own in splits.items() if len(own) > 1]
    if not divided:
        return
    if choice == OWN:
        pairs = zip(columns["split"], columns["patient"], strict=True)
        columns["patient"] = [f"{split}/{patient}" for split, patient in pairs]
    elif choice == DIVIDE:
        del columns["split"]
    else:
        raise SettingError(
            "--patients-in-splits",
            f"{len(divided)} of {len(splits)} patients are in more than one split by their files' names: "
            f"{_some(divided)}; say what that means: {OWN} ({PATIENTS_IN_SPLITS[OWN]}), or {DIVIDE} "
            f"({PATIENTS_IN_SPLITS[DIVIDE]})",
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")


def summary(rows: Sequence[Mapping[str, str]]) -> str:
    """What a table holds, in a line."""
    parts = [f"{len(rows)} records"]
    for column, name in (("label", "classes"), ("hospital", "hospitals"), ("split", "splits")):
        if column in rows[0]:
            counts = Counter(row[column] for row in rows)
            told = ", ".join(f"{word} {count}" for word, count in sorted(counts.items())[:_MOST_NAMED])
            parts.append(f"{len(counts)} {name} ({told}{', ...' if len(counts) > _MOST_NAMED else ''})")
    if "patient" in rows[0]:
        parts.append(f"{len({row['patient'] for row in rows})} patients")
    return ", ".join(parts)
