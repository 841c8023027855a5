"""Which runs were judged on the same records, and what is compared where they were not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hbdp_fed.audit.comparison import judgement_of, read_predictions
from hbdp_fed.audit.comparison.judged import obstacle, utility_apart
from hbdp_fed.errors import DataFileError

LABELS, GROUPS = np.arange(12) % 2, np.arange(12) // 3
NAMES = np.array([f"image-{number}" for number in range(12)])
SUMMARY = {"task": "binary", "dataset": "ham10000", "class_names": ["benign", "needs attention"]}

Arrays = Mapping[str, np.ndarray]


def arrays() -> dict[str, np.ndarray]:
    return {"labels": LABELS, "scores": np.linspace(0, 1, 12), "names": NAMES, "groups": GROUPS}


def between(own: Arrays, more: Mapping[str, Any]) -> str | None:
    judgements = [judgement_of(found, {"threshold": 0.5}) for found in (arrays(), arrays(), own)]
    return obstacle([SUMMARY, SUMMARY, {**SUMMARY, **more}], judgements)


@pytest.mark.parametrize(
    ("change", "more", "reason"),
    [
        (lambda run: run, {}, None),
        (lambda run: {**run, "scores": run["scores"][::-1]}, {}, None),
        (lambda run: run, {"dataset": "phantom"}, "their data sets differ"),
        (lambda run: run, {"task": "multilabel"}, "their tasks differ"),
        (lambda run: run, {"class_names": ["no", "yes"]}, "their classes differ"),
        (lambda run: {**run, "labels": 1 - LABELS}, {}, "their test records' labels differ"),
        (lambda run: {**run, "names": NAMES[::-1]}, {}, "their test records' names differ"),
        (lambda run: {**run, "groups": GROUPS[::-1]}, {}, "their test records' groups differ"),
        (lambda run: {n: v for n, v in run.items() if n != "groups"}, {}, "their test records' groups differ"),
        (lambda run: {n: v[:6] for n, v in run.items()}, {}, "their numbers of test records differ"),
    ],
)
def test_runs_are_paired_only_on_the_same_records(
    change: Callable[[dict[str, np.ndarray]], Arrays], more: dict[str, Any], reason: str | None
) -> None:
    assert between(change(arrays()), more) == reason


def test_outlines_of_other_records_are_known_by_the_classes_that_they_lack() -> None:
    judgements = []
    for missing in (0, 1):
        dice = np.full((3, 1), 0.5)
        dice[missing] = np.nan
        judgements.append(judgement_of({"dice": dice}, {}))
    assert obstacle([SUMMARY, SUMMARY], judgements) == "their test records' classes differ"
    assert obstacle([SUMMARY, SUMMARY], [judgements[0], judgements[0]]) is None


def test_apart_the_figures_are_those_of_the_summaries() -> None:
    one = {**SUMMARY, "metrics": ["mcc"], "utility": {"mcc": 0.5, "ci95": {"mcc": [0.4, 0.6]}}}
    other = {
        "task": "segmentation", "dataset": "msd", "class_names": ["background", "organ"], "metrics": ["dice"],
        "utility": {"dice": 0.75, "dice_1": None},
    }  # fmt: skip
    mcc, dice, of_class = utility_apart([one], [other, other])
    assert (mcc.first, mcc.first_ci95, mcc.second, mcc.second_ci95) == ((0.5,), (0.4, 0.6), (None, None), None)
    assert (dice.label, dice.first, dice.second) == ("Dice", (None,), (0.75, 0.75))
    assert (of_class.label, of_class.second) == ("Dice, organ", (None, None))
    assert mcc.difference is dice.difference is None


def _cut_off(path: Path) -> None:
    np.savez_compressed(path, **arrays())  # type: ignore[arg-type]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: None, "there is no such file"),
        (_cut_off, "cannot be read"),
        (lambda path: np.savez(path, labels=np.array([{"a": 1}], dtype=object)), "cannot be read"),
        (lambda path: np.savez(path, names=NAMES), "holds nothing that is known about test records"),
    ],
)
def test_predictions_that_cannot_be_read_are_named(
    write: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "predictions.npz"
    write(path)
    with pytest.raises(DataFileError, match=reason) as caught:
        read_predictions(path)
    assert caught.value.path == path
