"""Compare the released models of two sets of runs, record by record, and print one table of how far they differ.

    python scripts/compare_runs.py --first runs/a_seed-0 runs/a_seed-1 --second runs/b_seed-0 runs/b_seed-1

Reads summary.json and predictions.npz of every run; all must have been judged on the same records. A side has one
run or several, as a rule one a seed: its figure is their mean, shown with the standard deviation over runs.

The interval is of the difference of the two means under a paired bootstrap over patients (lesions, or records that
stand for themselves): both sides are computed on the same resamples, so that what makes a resample hard for both
cancels. It says how sure the difference is for these models on other patients, not for other training runs, which the
deviation over runs shows.
"""

from __future__ import annotations

import argparse
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbdp_fed.audit import wording
from hbdp_fed.errors import DataFileError, UserError
from hbdp_fed.seeding import generator
from hbdp_fed.training.bootstrap import Difference, Interval, Judged, paired_difference
from hbdp_fed.training.tasks import Evidence, Point, figures, task_called
from simulations.run_folder import RunFolder, read_summary

NEEDED = ("task", "dataset", "class_names", "utility")
ABOUT_RECORDS = ("names", "groups")
COLUMNS = ("metric", "first", "second", "difference (second - first)", "95% interval")


@dataclass(frozen=True)
class Run:
    """What a finished run left about its released model.

    Attributes:
        folder: The run's folder.
        summary: Its summary.
        evidence: What is known about each test record.
        records: Who the test records are: their names and groups, as far as the data set has them.
        point: The operating point.
    """

    folder: Path
    summary: Mapping[str, Any]
    evidence: Evidence
    records: Mapping[str, NDArray[Any]]
    point: Point

    @property
    def judged(self) -> Judged:
        """What the bootstrap takes."""
        return self.evidence, self.point

    def figures(self) -> Mapping[str, float | None]:
        """The released model's figures on all test records."""
        return figures(task_called(self.summary["task"]), self.evidence, self.point)

    def identity(self) -> Mapping[str, Any]:
        """What has to be equal, by what to call it, for runs to be compared."""
        return {
            "tasks": self.summary["task"],
            "data sets": self.summary["dataset"],
            "classes": self.summary["class_names"],
            "numbers of test records": {len(values) for values in self.evidence.values()},
            **{f"test records' {name}": self.records.get(name) for name in ABOUT_RECORDS},
            "test records' labels": self.evidence.get("labels"),
            # Of outlines, there are no labels; but an overlap exists only where the truth has the class.
            "test records' classes": {name: np.isnan(values) for name, values in self.evidence.items()},
        }


def read_run(folder: Path) -> Run:
    """Read what a run left.

    Raises:
        DataFileError: if it is not a finished run's folder.
    """
    paths = RunFolder(folder)
    try:
        summary = read_summary(folder)
        missing = [name for name in NEEDED if name not in summary]
        point = summary["utility"]["point"]
    except FileNotFoundError as error:
        raise DataFileError(paths.summary_file, "there is no such file; is it the folder of a finished run?") from error
    except (OSError, ValueError) as error:
        raise DataFileError(paths.summary_file, f"cannot be read ({error})") from error
    except (KeyError, TypeError):
        missing = ["utility.point"]
    if missing:
        raise DataFileError(paths.summary_file, f"has no {', '.join(missing)}; it should be a run's summary")
    arrays = _read_arrays(paths.predictions_file)
    return Run(
        folder=folder,
        summary=summary,
        evidence={name: values for name, values in arrays.items() if name not in ABOUT_RECORDS},
        records={name: values for name, values in arrays.items() if name in ABOUT_RECORDS},
        point=point,
    )


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # Never unpickle: a data file must not be able to run code.
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise DataFileError(path, "there is no such file") from error
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataFileError(path, f"cannot be read ({error})") from error
    if not set(arrays) - set(ABOUT_RECORDS):
        raise DataFileError(path, "holds nothing that is known about test records")
    return arrays


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs that were not all judged on the same records.

    Raises:
        DataFileError: naming the first run that differs from the first of all, and in what.
    """
    wanted = runs[0].identity()
    for run in runs[1:]:
        for what, value in run.identity().items():
            if not _equal(value, wanted[what]):
                raise DataFileError(run.folder, f"cannot be compared with {runs[0].folder}: their {what} differ")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return bool(np.array_equal(one, other))
    return bool(one == other)


def signed(metric: str, value: float | None) -> str:
    """A difference, with its sign."""
    text = wording.written(metric, value)
    return f"+{text}" if value is not None and value > 0 else text


def row_label(name: str, summary: Mapping[str, Any]) -> str:
    """What people read for a metric, with its unit, or for one class's."""
    units, classes = summary.get("units") or {}, dict(wording.classes_of(summary))
    metric, _, index = name.rpartition("_")
    if name not in wording.METRICS and index.isdigit() and int(index) in classes:
        return f"{wording.label(metric, units)}, {classes[int(index)]}"
    return wording.label(name, units)


def title(first: Sequence[Run], second: Sequence[Run], groups: NDArray[np.int64] | None) -> str:
    """How many runs are compared, and on how many records of how many patients."""
    records = wording.counted(len(next(iter(first[0].evidence.values()))), "record")
    sides = f"{wording.counted(len(first), 'run')} against {wording.counted(len(second), 'run')}"
    word = wording.group_word(first[0].summary.get("partition")) or "group"
    of = "" if groups is None else f" of {wording.counted(len(np.unique(groups)), word)}"
    return f"{first[0].summary['dataset']}: {sides} on {records}{of}"


def table(first: Sequence[Run], second: Sequence[Run], differences: Mapping[str, Difference]) -> Iterator[str]:
    """The lines of the Markdown table, a line a figure."""
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|" + "---|" * len(COLUMNS)
    sides = [[run.figures() for run in side] for side in (first, second)]
    for name, difference in differences.items():
        ends: Interval | None = (
            None if difference.low is None or difference.high is None else (difference.low, difference.high)
        )
        cells = [
            row_label(name, first[0].summary),
            *(wording.over_runs(name, [found[name] for found in side]) for side in sides),
            signed(name, difference.value),
            "-" if ends is None else f"{signed(name, ends[0])} to {signed(name, ends[1])}",
        ]
        yield f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for side in ("first", "second"):
        parser.add_argument(f"--{side}", nargs="+", type=Path, required=True, metavar="FOLDER", help="folders of runs")
    parser.add_argument("--replicates", type=int, default=2000, help="resamples of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="the bootstrap's own")
    given = parser.parse_args(arguments)
    if given.replicates < 1:
        parser.error(f"--replicates: must be at least 1, got {given.replicates}")
    if given.seed < 0:
        parser.error(f"--seed: must be at least 0, got {given.seed}")
    try:
        first, second = ([read_run(folder) for folder in folders] for folders in (given.first, given.second))
        check_comparable([*first, *second])
    except UserError as error:
        parser.error(str(error))
    groups = first[0].records.get("groups")
    differences = paired_difference(
        task_called(first[0].summary["task"]),
        [run.judged for run in first],
        [run.judged for run in second],
        groups,
        replicates=given.replicates,
        generator=generator(given.seed, "compare"),
    )
    print(title(first, second, groups))
    print()
    print("\n".join(table(first, second, differences)))


if __name__ == "__main__":
    main()
