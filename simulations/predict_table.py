"""What a model says of images, as a table for people, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hbdp_fed.inference import Answer
from hbdp_fed.strict_json import dumps

_ROWS = 50
_PROBABILITY_COLUMNS = 6
_NOTHING = "none"


def show_answers(console: Console, answers: Sequence[Answer], *, title: str, most: int | None = _ROWS) -> None:
    """A line an image; of many classes, the probability of the decision alone; sizes are in pixels or voxels.

    Args:
        console: Where to.
        answers: At least one.
        title: Above the table.
        most: How many lines are shown; None for all.
    """
    console.print(title, style="bold", markup=False, soft_wrap=True)
    table = Table()
    table.add_column("image", overflow="fold")
    table.add_column("decision")
    numbers = _number_columns(answers[0])
    for name in numbers:
        table.add_column(escape(name), justify="right")
    if answers[0].mask is not None:
        table.add_column("mask", overflow="fold")
    for answer in answers[:most]:
        mask = [] if answer.mask is None else [escape(Path(answer.mask).name)]
        table.add_row(escape(answer.image), escape(_decision(answer, ", ")), *_numbers(answer, numbers), *mask)
    console.print(table)
    if most is not None and len(answers) > most:
        console.print(f"and {len(answers) - most} more: output=answers.csv has all of them", markup=False)


def _number_columns(answer: Answer) -> list[str]:
    if answer.sizes:
        return [f"size, {name}" for name in answer.sizes]
    if len(answer.probabilities) > _PROBABILITY_COLUMNS:
        return ["probability"]
    return list(answer.probabilities)


def _numbers(answer: Answer, columns: Sequence[str]) -> list[str]:
    if answer.sizes:
        return [f"{size:,}" for size in answer.sizes.values()]
    if columns == ["probability"]:
        return [", ".join(f"{answer.probabilities[name]:.3f}" for name in answer.decision) or "-"]
    return [f"{probability:.3f}" for probability in answer.probabilities.values()]


def _decision(answer: Answer, between: str) -> str:
    return between.join(answer.decision) or _NOTHING


def as_csv(answers: Sequence[Answer]) -> str:
    """A line an image with all digits; several findings have semicolons between them, sizes are in pixels or voxels."""
    page = io.StringIO()
    first = answers[0]
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(
        [
            "image",
            "decision",
            *(f"probability of {name}" for name in first.probabilities),
            *(f"size of {name}" for name in first.sizes),
            *([] if first.mask is None else ["mask"]),
        ]
    )
    for answer in answers:
        mask = [] if answer.mask is None else [answer.mask]
        numbers = [*answer.probabilities.values(), *answer.sizes.values()]
        writer.writerow([answer.image, ";".join(answer.decision), *numbers, *mask])
    return page.getvalue()


def as_json(answers: Sequence[Answer], *, model: Mapping[str, Any], skipped: Sequence[str]) -> str:
    """Everything, for other programs.

    Args:
        answers: Of the images that could be read.
        model: Who was asked, and how.
        skipped: A line for each file that could not be read.
    """
    content = {"schema": 1, "kind": "predictions", **model, "predictions": answers, "skipped": skipped}
    return dumps(content, indent=2) + "\n"
