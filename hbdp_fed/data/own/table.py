"""The manifest: a CSV table with a row a record, and what the table alone says is wrong."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from hbdp_fed.data.defects import DUPLICATE, INCOMPLETE, OUTSIDE, Defect, Found
from hbdp_fed.errors import DataFileError, SettingError

PATH, LABEL, MASK, ID, HOSPITAL, PATIENT, SPLIT = "path", "label", "mask", "id", "hospital", "patient", "split"
SPLITS = ("train", "val", "test")
UNKNOWN = "unknown"
"""An attribute that a row leaves empty."""

_NO_ATTRIBUTE = {PATH, LABEL, MASK, ID, PATIENT, SPLIT}
_MOST_NAMED = 5


@dataclass(frozen=True)
class Row:
    """A record.

    Attributes:
        line: Where it stands in the table; the header is line 1.
        path: Its image: a file, or the folder of a DICOM series.
        name: Its id or, without one, the path as it is written.
        label: The word or number of its class; None where the table has masks.
        mask: Its mask, a file or a folder; None where the table has labels.
        patient: Whose it is; None where the table does not say.
        split: One of :data:`SPLITS`; None where the table does not say.
        attributes: The further columns, and the hospital.
    """

    line: int
    path: Path
    name: str
    label: str | None
    mask: Path | None
    patient: str | None
    split: str | None
    attributes: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A manifest.

    Attributes:
        path: The CSV file.
        folder: What its paths start from, and no record may lie outside of.
        rows: In the table's order; those that the table alone shows to be unusable are left out.
        found: What is wrong with those.
    """

    path: Path
    folder: Path
    rows: tuple[Row, ...]
    found: tuple[Found, ...]

    @property
    def total(self) -> int:
        """How many records it lists."""
        return len(self.rows) + len(self.found)

    @property
    def has_masks(self) -> bool:
        """Whether it asks for a segmentation."""
        return self.rows[0].mask is not None


def read_table(*, root: Path, manifest: str | None, folder: str | None) -> Table:
    """Read a manifest.

    Args:
        root: What relative paths of the two settings start from.
        manifest: The CSV file: UTF-8, a header, commas. Columns: ``path`` and either ``label`` or ``mask``; ``id``,
            ``hospital``, ``patient`` and ``split`` may be left out; all others are attributes.
        folder: What the paths in it start from; None is the manifest's own folder.

    Raises:
        SettingError: if there is no manifest or folder of that name.
        DataFileError: if the file is no such table, or a patient has two splits.
    """
    if not manifest:
        raise SettingError("data.manifest", "must name the CSV table of the records: python -m scripts.manifest --help")
    path = root / Path(manifest).expanduser()
    if not path.is_file():
        raise SettingError("data.manifest", f"there is no file {path}; relative paths start from HBDP_DATA ({root})")
    base = path.parent if folder is None else root / Path(folder).expanduser()
    if not base.is_dir():
        raise SettingError("data.folder", f"there is no folder {base}; relative paths start from HBDP_DATA ({root})")
    columns, lines = _read(path)
    rows: list[Row] = []
    found: list[Found] = []
    # What each record stands for, by the place that its files really have.
    ids: dict[str, int] = {}
    places: dict[Path, int] = {}
    for number, cells in lines:
        try:
            row = _row(number, cells, columns, base)
            _check_new(row, ids, places)
            rows.append(row)
        except Defect as defect:
            found.append(defect.of(base / cells[PATH] if cells[PATH] else path))
    if not rows:
        raise DataFileError(path, f"lists no record that can be used{f': {found[0]}' if found else ''}")
    _check_splits(path, rows)
    return Table(path, base, tuple(rows), tuple(found))


def inside(folder: Path, path: Path) -> bool:
    """Whether the file that ``path`` leads to, through whatever links, lies in the folder."""
    return path.resolve().is_relative_to(folder.resolve())


def _read(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header, and each line's number with its cells; a line that was cut off has empty ones."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            _check_columns(path, columns)
            lines = []
            for cells in reader:
                if len(cells) > len(columns):
                    raise DataFileError(
                        path, f"line {reader.line_num} has {len(cells)} cells, but the header {len(columns)}"
                    )
                if any(cell.strip() for cell in cells):
                    padded = [*(cell.strip() for cell in cells), *[""] * (len(columns) - len(cells))]
                    lines.append((reader.line_num, dict(zip(columns, padded, strict=True))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(path, f"cannot be read as a CSV table in UTF-8 ({error})") from error
    return columns, lines


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataFileError(path, f"has the column {twice[0] or '(without a name)'} twice")
    if PATH not in columns:
        raise DataFileError(path, f"has no column '{PATH}'; its first line must name the columns, separated by commas")
    if (LABEL in columns) == (MASK in columns):
        raise DataFileError(path, f"must have one of the columns '{LABEL}' (a class) and '{MASK}' (a file), not both")


def _row(line: int, cells: Mapping[str, str], columns: Sequence[str], folder: Path) -> Row:
    target = MASK if MASK in columns else LABEL
    needed = [PATH, target, *(name for name in (PATIENT, SPLIT) if name in columns)]
    empty = [name for name in needed if not cells[name]]
    if empty:
        raise Defect(INCOMPLETE, f"line {line} has no {', '.join(empty)}")
    if SPLIT in columns and cells[SPLIT] not in SPLITS:
        raise Defect(INCOMPLETE, f"line {line} has the split '{cells[SPLIT]}', which is none of {', '.join(SPLITS)}")
    return Row(
        line=line,
        path=_inside(folder, cells[PATH]),
        name=cells.get(ID) or cells[PATH],
        label=cells.get(LABEL),
        mask=_inside(folder, cells[MASK]) if MASK in columns else None,
        patient=cells.get(PATIENT),
        split=cells.get(SPLIT),
        attributes={name: cells[name] or UNKNOWN for name in columns if name not in _NO_ATTRIBUTE},
    )


def _inside(folder: Path, text: str) -> Path:
    """The path that a cell names.

    Raises:
        Defect: if it could lead out of the folder.
    """
    parts = PurePosixPath(text)
    if parts.is_absolute() or PureWindowsPath(text).drive:
        raise Defect(OUTSIDE, f"is absolute; paths start from {folder}", folder / text)
    if ".." in parts.parts:
        raise Defect(OUTSIDE, "goes up with '..'", folder / text)
    try:
        is_inside = inside(folder, folder / text)
    except (OSError, RuntimeError, ValueError) as error:
        raise Defect(OUTSIDE, f"is no path ({error})", folder / text) from error
    if not is_inside:
        raise Defect(OUTSIDE, f"is a link that leaves {folder}", folder / text)
    return folder / text


def _check_new(row: Row, ids: dict[str, int], places: dict[Path, int]) -> None:
    place = row.path.resolve()
    if place in places:
        raise Defect(DUPLICATE, f"line {row.line} lists what line {places[place]} does")
    if row.name in ids:
        raise Defect(DUPLICATE, f"line {row.line} has the id '{row.name}' of line {ids[row.name]}")
    ids[row.name] = places[place] = row.line


def _check_splits(path: Path, rows: Sequence[Row]) -> None:
    """That no patient is in two splits, whatever becomes of bad records: nobody can say which is the right one."""
    divided = list(_divided(rows))
    if divided:
        named = ", ".join(divided[:_MOST_NAMED])
        raise DataFileError(
            path, f"has {len(divided)} patients in more than one split: {named}"
            f"{', ...' if len(divided) > _MOST_NAMED else ''}; put each patient into one, or leave the column "
            f"'{SPLIT}' out and let data.val_fraction and data.test_fraction divide by patient"
        )  # fmt: skip


def _divided(rows: Sequence[Row]) -> Iterator[str]:
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.patient is not None and row.split is not None:
            splits[row.patient].add(row.split)
    for patient, own in splits.items():
        if len(own) > 1:
            yield f"{patient} ({', '.join(sorted(own))})"
