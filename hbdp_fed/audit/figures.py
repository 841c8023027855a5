"""The pictures of the attacks: the best reconstructions beside the patients' images they were rebuilt from."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import BboxImage
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox, TransformedBbox
from numpy.typing import NDArray
from torch import Tensor

from hbdp_fed.audit.columns import Column, best_first
from hbdp_fed.audit.criterion import DEFAULT_CRITERION, Criterion

_ROWS = ("original", "reconstruction", "nearest\npublic image")
_MARGIN = 0.16
_CELL = 1.25
_LEFT = 1.1
_TOP = 0.66
_BOTTOM = 0.12
_HEADER = 0.42
_MIN_WIDTH = 5.6
"""Inches, as all of these."""

_PAIR_CELL = 0.8
_PAIR_GAP = 0.12
_LABEL = 1.44
_PAIR_TOP = 0.98
_PAIR_HEADER = 0.22
_LABEL_LETTERS = 21
"""How many letters of its label fit beside a row of pairs."""

_HOW_TO_READ = "at each budget the best first; framed: counts as rebuilt; empty: no further reconstruction"

_LEAKED = "#b3261e"
_SAFE = "#44546a"
_INK = "#222222"
_SOFT = "#5b6776"
_LINE = "#cccccc"
_EMPTY = "#f3f5f7"
_THIN, _THICK = 0.6, 2.0
"""Frames, in points."""


def reconstruction_figure(columns: Sequence[Column], *, title: str, criterion: Criterion = DEFAULT_CRITERION) -> Figure:
    """One attack's picture: rows are original, reconstruction and nearest public image, columns are records.

    Of a volume the middle slice of the last axis is shown.

    Args:
        columns: From :func:`hbdp_fed.audit.columns.best_columns`; may be empty.
        title: What was attacked, and by which attack, in a few words.
        criterion: By which the columns' successes were judged.
    """
    cells = max(len(columns), 1)
    height = _TOP + _HEADER + len(_ROWS) * _CELL + _BOTTOM
    verdict, colour = _verdict(columns, criterion)
    verdict += _slices(columns)
    figure = _sheet(max(_LEFT + cells * _CELL + 0.15, _MIN_WIDTH, _long(title, 11), _long(verdict, 9)), height)
    _write(figure, title, _MARGIN, height - 0.22, size=11, weight="bold")
    _write(figure, verdict, _MARGIN, height - 0.50, size=9, color=colour)
    for row, label in enumerate(_ROWS if columns else ()):
        bottom = _BOTTOM + (len(_ROWS) - 1 - row) * _CELL
        _write(figure, label, _LEFT - 0.1, bottom + _CELL / 2, ha="right", size=9, color=_SOFT)
        for index, column in enumerate(columns):
            image = (column.original, column.reconstruction, column.nearest)[row]
            left = _LEFT + index * _CELL
            _image(figure, image, left + 0.04, bottom + 0.04, _CELL - 0.08, leaked=row == 1 and column.success)
            if row == 0:
                _write(
                    figure,
                    f"{column.hospital}\nSSIM {column.ssim:.2f}",
                    left + _CELL / 2,
                    bottom + _CELL,
                    ha="center",
                    va="bottom",
                    size=8,
                    color=_LEAKED if column.success else _SAFE,
                )
    return figure


def budget_figure(rows: Sequence[tuple[str, Sequence[Column]]], *, title: str, count: int = 5) -> Figure:
    """What a privacy budget does to the best reconstructions: a row a budget, a pair of pictures a record.

    Each pair has its SSIM above it, and a success is framed. A row with fewer than ``count`` ends in empty cells.
    With five pairs, at the usual 150 dots per inch, it is 1500 pixels wide. Of a volume the middle slice of the last
    axis is shown.

    Args:
        rows: For each budget, from the smallest to infinity, what stands at its left and its columns, of which the
            ``count`` best are shown. The label's first line is the budget; more lines may say what became of it.
        title: What was attacked, and by which attack, in a few words.
        count: Pairs in a row.
    """
    pair, step = 2 * _PAIR_CELL + _PAIR_GAP, _PAIR_HEADER + _PAIR_CELL + _PAIR_GAP
    height = _PAIR_TOP + len(rows) * step + _BOTTOM
    reading = _HOW_TO_READ + _slices([column for _, columns in rows for column in columns])
    figure = _sheet(max(_LABEL + count * pair - _PAIR_GAP + 0.08, _long(title, 12), _long(reading, 9)), height)
    _write(figure, title, _MARGIN, height - 0.24, size=12, weight="bold")
    _write(figure, reading, _MARGIN, height - 0.52, size=9, color=_SOFT)
    for place in range(count if rows else 0):
        for side, word in enumerate(("original", "rebuilt")):
            middle = _LABEL + place * pair + (side + 0.5) * _PAIR_CELL
            _write(figure, word, middle, height - _PAIR_TOP + 0.1, ha="center", size=8, color=_SOFT)
    for row, (label, columns) in enumerate(rows):
        bottom = height - _PAIR_TOP - row * step - _PAIR_HEADER - _PAIR_CELL
        _label(figure, label, bottom + _PAIR_CELL)
        shown = best_first(columns)[:count]
        for place in range(count):
            _pair(figure, shown[place] if place < len(shown) else None, _LABEL + place * pair, bottom)
    return figure


def save_figure(figure: Figure, path: Path, *, dpi: int = 150) -> None:
    """Write ``figure`` as a PNG. The file holds no date or version: the same picture is the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=dpi, metadata={"Software": None})


def _verdict(columns: Sequence[Column], criterion: Criterion) -> tuple[str, str]:
    if not columns:
        return "no reconstruction", _SAFE
    successes = sum(column.success for column in columns)
    if successes == 0:
        best = max(column.ssim for column in columns)
        return f"no success; the best reconstruction reaches SSIM {best:.2f}", _SAFE
    rule = f"SSIM > {criterion.ssim:g} and closer than public and other patients' images"
    shown = "the best one shown" if len(columns) == 1 else f"the {len(columns)} best shown"
    return f"{shown}; framed: {successes} rebuilt ({rule})", _LEAKED


def _slices(columns: Sequence[Column]) -> str:
    return "; volumes: middle slice" if any(column.original.dim() == 4 for column in columns) else ""


def _label(figure: Figure, label: str, top: float) -> None:
    """A row's label beside its pictures, the budget in bold."""
    budget, *more = label.split("\n")
    lines = [part for line in more for part in textwrap.wrap(line, _LABEL_LETTERS)]
    _write(figure, budget, _MARGIN, top - 0.02, va="top", size=10.5, weight="bold")
    _write(figure, "\n".join(lines), _MARGIN, top - 0.24, va="top", size=8.5, color=_SOFT)


def _pair(figure: Figure, column: Column | None, left: float, bottom: float) -> None:
    """An original and its reconstruction side by side, under their SSIM; two empty cells where there is none."""
    if column is None:
        for cell in (left, left + _PAIR_CELL):
            _image(figure, None, cell, bottom, _PAIR_CELL - 0.03)
        return
    _image(figure, column.original, left, bottom, _PAIR_CELL - 0.03)
    _image(figure, column.reconstruction, left + _PAIR_CELL, bottom, _PAIR_CELL - 0.03, leaked=column.success)
    _write(
        figure,
        f"SSIM {column.ssim:.2f}",
        left + _PAIR_CELL - 0.015,
        bottom + _PAIR_CELL + 0.06,
        ha="center",
        size=8.5,
        weight="bold" if column.success else "normal",
        color=_LEAKED if column.success else _SAFE,
    )


def _sheet(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _long(text: str, size: float) -> float:
    """How wide a sheet must be for a line of text, in inches: a letter takes two thirds of its size in points."""
    return 2 * _MARGIN + len(text) * size / 72 * 2 / 3


def _write(figure: Figure, text: str, left: float, bottom: float, **style: Any) -> None:
    """Text at a place in inches."""
    width, height = figure.get_size_inches()
    figure.text(left / width, bottom / height, text, **{"va": "center", "color": _INK, **style})


def _image(
    figure: Figure, image: Tensor | None, left: float, bottom: float, size: float, *, leaked: bool = False
) -> None:
    """A framed picture, or an empty cell, in the middle of a square whose lower left corner is given, in inches.

    Nothing but the picture and its frame: axes for each of dozens of cells take most of a figure's time.
    """
    pixels = None if image is None else _pixels(image)
    tall, wide = (1, 1) if pixels is None else pixels.shape[:2]
    across, up = size * min(1.0, wide / tall), size * min(1.0, tall / wide)
    width, height = figure.get_size_inches()
    box = Bbox.from_bounds(
        (left + (size - across) / 2) / width, (bottom + (size - up) / 2) / height, across / width, up / height
    )
    if pixels is not None:
        shown = BboxImage(
            TransformedBbox(box, figure.transFigure), cmap="gray", norm=Normalize(0, 1), interpolation="nearest"
        )
        shown.set_data(pixels)
        figure.add_artist(shown)
    figure.add_artist(
        Rectangle(
            (box.x0, box.y0),
            box.width,
            box.height,
            transform=figure.transFigure,
            facecolor=_EMPTY,
            fill=pixels is None,
            edgecolor=_LEAKED if leaked else _LINE,
            linewidth=_THICK if leaked else _THIN,
        )
    )


def _pixels(image: Tensor) -> NDArray[np.float32]:
    """(H, W) or (H, W, 3): the colours, or else the first channel; of a volume its middle slice."""
    if image.dim() == 4:
        image = image[..., image.shape[-1] // 2]
    image = image.detach().float().clamp(0, 1)
    pixels: NDArray[np.float32] = (image.permute(1, 2, 0) if len(image) == 3 else image[0]).numpy()
    return pixels
