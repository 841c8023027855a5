"""Writes the CSV table of a folder's records, for data=imagefolder, data=nifti and data=dicom."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hbdp_fed.errors import SettingError, UserError, shown
from hbdp_fed.whole_files import write_whole
from scripts.manifest.finding import KINDS, SPLIT_FOLDERS, pattern_word, word_from
from scripts.manifest.table import PATIENTS_IN_SPLITS, REFUSE, Wanted, as_csv, rows_of, summary

DONE, FAILED, BAD_INPUT = 0, 1, 2

_EXAMPLES = f"""examples:
  python -m scripts.manifest imagefolder xrays -o xrays.csv --patient-pattern '(person|IM-)(\\d+)'
  python -m scripts.manifest nifti Task03_Liver --mask-from 'labelsTr/{{name}}'
  python -m scripts.manifest dicom ct --series --mask-from '{{parent}}/Ground' --hospital-from folder:1

A word (label, hospital) comes from:
  parent         the folder that the record is in
  folder:N       the N-th folder of its path below FOLDER, from 1
  pattern:REGEX  the groups of a regular expression that is searched for in its path below FOLDER, joined by hyphens

A folder named {", ".join(SPLIT_FOLDERS)} gives the split.
Where there is none, and for splits that no folder is named after, the data set is divided by patient when it is read
(data.val_fraction, data.test_fraction).

exit codes: 0 done, 1 it could not be written, 2 something given cannot be used
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a table; returns the exit code: 0 done, 1 it could not be written, 2 something given cannot be used."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    try:
        _write(given)
    except UserError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return FAILED
    return DONE


def _write(given: argparse.Namespace) -> None:
    if not given.folder.is_dir():
        raise SettingError("FOLDER", f"there is no folder {given.folder}")
    if given.series and given.kind != "dicom":
        raise SettingError("--series", f"is for dicom; of {given.kind}, a record is a file")
    target = given.output or given.folder / "manifest.csv"
    if target.exists() and not given.force:
        raise SettingError("--output", f"{target} is there already; name another file, or write over it with --force")
    if not target.parent.is_dir():
        raise SettingError("--output", f"there is no folder {target.parent}")
    rows = rows_of(
        Wanted(
            kind=given.kind,
            folder=given.folder,
            series=given.series,
            label=None if given.mask_from else word_from("--label-from", given.label_from),
            mask=given.mask_from,
            patient=pattern_word("--patient-pattern", given.patient_pattern) if given.patient_pattern else None,
            hospital=word_from("--hospital-from", given.hospital_from) if given.hospital_from else None,
            patients_in_splits=given.patients_in_splits,
        )
    )
    try:
        write_whole(target, as_csv(rows))
    except UnicodeEncodeError as error:
        raise SettingError("FOLDER", f"holds a file whose name is no text in UTF-8 ({error.reason})") from error
    print(f"{target}: {summary(rows)}")
    # Paths start from the folder, which the table need not lie in.
    place = "" if target.parent.resolve() == given.folder.resolve() else f" data.folder={_quoted(given.folder)}"
    print(f"hbdp-fed run data={given.kind} data.manifest={_quoted(target)}{place}")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path.resolve()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.manifest",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=sorted(KINDS), help="the data set that will read the records")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where they are, in it and in its folders")
    parser.add_argument("-o", "--output", type=Path, help="the table (default: manifest.csv in FOLDER)")
    parser.add_argument("--force", action="store_true", help="write over a table that is there")
    parser.add_argument("--series", action="store_true", help="dicom: a record is a folder of slices, not a file")
    parser.add_argument("--label-from", default="parent", metavar="WORD", help="the class (default: parent)")
    parser.add_argument(
        "--mask-from",
        metavar="PATH",
        help="instead of a class, a mask: its path from FOLDER, with {parent}, {name} and {stem} of the record",
    )
    parser.add_argument("--patient-pattern", metavar="REGEX", help="the patient: as pattern:REGEX below")
    parser.add_argument("--hospital-from", metavar="WORD", help="the hospital")
    parser.add_argument(
        "--patients-in-splits",
        choices=list(PATIENTS_IN_SPLITS),
        default=REFUSE,
        help="what becomes of patients with files in the folders of two splits: "
        + "; ".join(f"{name}: {text}" for name, text in PATIENTS_IN_SPLITS.items()),
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
