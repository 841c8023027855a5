"""The picture of who took part when: a row a hospital, a column a round."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from hbdp_fed.audit.sheets import INK, SOFT, entitle, sheet

STATUSES: Mapping[str, tuple[str, str]] = {
    "u": ("used", "#6fb7aa"),
    ".": ("not asked", "#eef1f4"),
    "o": ("offline", "#3d4a5c"),
    "l": ("late", "#e8a33d"),
    "f": ("failed", "#b3261e"),
}
"""By the letter in a hospital's course: what it means, and its colour; they differ in lightness, too."""

_MOST = 50
_ROOMY = 12
_LONGEST = 34
_WIDTH = 8.0
# Narrower cells are no cells any more, but stripes.
_CELLS = 80
_STRIPES = 400


def participation_figure(hospitals: Sequence[Mapping[str, Any]], *, rounds: int) -> Figure:
    """Who was used, not asked, offline, late or failed in which round; at the right, in how many of all it was used.

    Where there are more rounds than the picture has room for, colours of neighbours mix.

    Args:
        hospitals: The summary's entries of ``participation``: ``name``, ``used`` and ``course``, one letter of
            :data:`STATUSES` a round or probe. The first 50 are drawn.
        rounds: Training rounds; the letters behind them are probes.
    """
    shown = hospitals[:_MOST]
    courses = [str(hospital["course"]) for hospital in shown]
    last = len(courses[0])
    row = 0.3 if len(shown) <= _ROOMY else 0.19
    figure = sheet(_WIDTH, len(shown) * row + 0.95)
    axes = figure.subplots()
    _cells(axes, courses)
    if last > rounds:
        axes.axvline(rounds + 0.5, color=INK, linewidth=1.2)
    size = 8 if len(shown) <= _ROOMY else 7
    axes.set_yticks(range(len(shown)), [_short(str(hospital["name"])) for hospital in shown], size=size)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(shown)), [f"{hospital['used']} of {last}" for hospital in shown], size=size)
    for part in (axes, right):
        part.tick_params(length=0, colors=INK)
        part.spines[:].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
    axes.tick_params(axis="x", labelsize=8)
    more = len(hospitals) - len(shown)
    axes.set_xlabel(f"round; {more} more hospitals are not drawn" if more else "round", size=8, color=SOFT)
    found = {letter for course in courses for letter in course}
    handles = [Patch(facecolor=colour, label=name) for key, (name, colour) in STATUSES.items() if key in found]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False, fontsize=8)
    probes = "; behind the line: probes" if last > rounds else ""
    entitle(figure, "Who took part", f"at the right: how often a hospital's answer was used{probes}")
    return figure


def _cells(axes: Axes, courses: Sequence[str]) -> None:
    """The coloured cells, with white lines between them where there is room."""
    rows, columns = len(courses), len(courses[0])
    tints = np.array([[to_rgb(STATUSES[letter][1]) for letter in course] for course in courses])
    starts = np.arange(0, columns, math.ceil(columns / _STRIPES))
    edges = np.append(starts, columns)
    mixed = np.add.reduceat(tints, starts, axis=1) / np.diff(edges)[:, None]
    axes.pcolormesh(edges + 0.5, np.arange(rows + 1) - 0.5, mixed)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.hlines(np.arange(rows - 1) + 0.5, 0.5, columns + 0.5, color="white", linewidth=1.5)
    if columns <= _CELLS:
        axes.vlines(np.arange(columns - 1) + 1.5, -0.5, rows - 0.5, color="white", linewidth=0.8)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
