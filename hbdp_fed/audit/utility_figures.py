"""The pictures of what a model is worth: who holds what, which model serves whom, and how its subgroups fare."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from hbdp_fed.audit.participation_figure import participation_figure
from hbdp_fed.audit.sheets import entitle, sheet
from hbdp_fed.audit.wording import (
    Figures,
    by_attribute,
    class_totals,
    counted,
    extent,
    group_word,
    interval,
    label,
    metric,
    metrics_of,
    number,
    worst,
    written,
)

# Tol 2021, Colour Schemes (SRON/EPS/TN/09-002), "muted" and one more: told apart with any colour vision.
_PALETTE = (
    "#332288", "#88ccee", "#cc6677", "#ddcc77", "#117733", "#aa4499", "#44aa99", "#999933", "#882255", "#6699cc",
)  # fmt: skip
_OTHER = "#c3c9d1"
_INK, _SOFT, _LINE, _GRID, _MISSING, _WORST = "#222222", "#5b6776", "#b9c1cb", "#e5e9ee", "#eceff3", "#b3261e"
# The worst cell is the darkest one, so its frame is light.
_FRAME = "#ff5c4d"
_MAX_CLASSES = len(_PALETTE)
_MAX_HOSPITALS = 60
_ROOMY = 12
_UNEVEN = 12
_WIDTH = 8.0
_NARROWEST = 5.2
_LONGEST = 34
_DPI = 120
# Colours must not make a great thing of a small difference.
_LEAST_SPAN = 0.1
# From so many hospitals on, a cell has no room for "0.".
_CROWDED = 16


def as_png(figure: Figure, *, dpi: int = _DPI) -> bytes:
    """The figure as a PNG without date or version: the same picture is the same bytes."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi, metadata={"Software": None})
    return png.getvalue()


def summary_figures(summary: Mapping[str, Any]) -> dict[str, Figure]:
    """Every picture that the summary has the figures for, by name.

    They are ``partition``, ``matrix``, ``subgroups`` and, where a hospital was not used in every round,
    ``participation``.
    """
    metrics = metrics_of(summary)
    partition, matrix = summary.get("partition") or {}, summary.get("utility_matrix") or {}
    subgroups = summary.get("utility_by_subgroup") or []
    figures = {}
    if partition.get("hospitals"):
        figures["partition"] = partition_figure(partition)
    if matrix.get("rows"):
        figures["matrix"] = matrix_figure(matrix)
    if metrics and any(entry.get(metrics[0]) is not None for entry in subgroups):
        figures["subgroups"] = subgroup_figure(
            subgroups, metrics[0], overall=summary["utility"].get(metrics[0]), group=group_word(partition)
        )
    attending = (summary.get("participation") or {}).get("hospitals") or []
    if any(set(hospital["course"]) != {"u"} for hospital in attending):
        figures["participation"] = participation_figure(attending, rounds=summary["rounds"])
    return figures


def partition_figure(partition: Mapping[str, Any]) -> Figure:
    """Who holds what: a bar a hospital, as long as its training records are many, split by class.

    The ten largest classes have a colour of their own and the others share one. Where records have several findings or
    none, bars count findings, and the numbers at their ends still count records. Where the smallest hospital's bar is
    too short to show its classes, a second panel shows every hospital's shares.

    Args:
        partition: The summary's entry; a hospital without ``classes`` gets a plain bar, one whose ``train`` is None,
            because it is not to be told, none.
    """
    hospitals = list(partition["hospitals"])
    shown, word = hospitals[:_MAX_HOSPITALS], group_word(partition)
    totals = class_totals({"hospitals": shown})
    own = list(totals)[:_MAX_CLASSES]
    names = [_short(name) for name in own]
    if len(totals) > len(own):
        names.append(f"other ({counted(len(totals) - len(own), 'class')})")
    columns = _legend_columns(names)
    height = len(shown) * (0.36 if len(shown) <= _ROOMY else 0.2) + 0.75 + 0.22 * math.ceil(len(names) / columns)
    lengths = [_bar_length(hospital) for hospital in shown]
    longest = max((*lengths, 1))
    findings = any(hospital["train"] not in (None, length) for hospital, length in zip(shown, lengths, strict=True))
    figure = sheet(_WIDTH, height)
    uneven = bool(own) and min(lengths) * _UNEVEN < longest
    panels = figure.subplots(1, 1 + uneven, sharey=True, squeeze=False, width_ratios=[3, 1.2] if uneven else [1])[0]
    axes = panels[0]
    _class_bars(axes, [_parts(hospital, own) for hospital in shown])
    for row, (hospital, length) in enumerate(zip(shown, lengths, strict=True)):
        text = _holding(hospital, word, spelled=findings)
        axes.text(length + 0.008 * longest, row, text, va="center", size=8, color=_INK)
    axes.set_yticks(range(len(shown)), [_short(hospital["name"]) for hospital in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    # Room for the numbers at the ends of the bars: they take as much of the panel whatever the bars count.
    letters = max((len(_holding(hospital, word, spelled=findings)) for hospital in shown), default=0)
    axes.set_xlim(0, longest / max(0.4, 1 - 0.07 * letters / (_WIDTH * (0.6 if uneven else 0.85))))
    unit = "findings in the training records" if findings else "training records"
    more = len(hospitals) - len(shown)
    axes.set_xlabel(f"{unit}; {more} more hospitals are not drawn" if more else unit, size=8, color=_SOFT)
    axes.xaxis.set_major_locator(MaxNLocator(4 if uneven else 7, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for panel in panels:
        _bare(panel, grid="x")
    if uneven:
        _class_bars(panels[1], [_shares(_parts(hospital, own)) for hospital in shown])
        panels[1].set_xlim(0, 1)
        panels[1].xaxis.set_major_locator(MaxNLocator(2))
        panels[1].xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        panels[1].set_xlabel("shares", size=8, color=_SOFT)
    entitle(figure, "Who holds what", _dealt(partition))
    if own:
        handles = [Patch(color=colour, label=name) for colour, name in zip((*_PALETTE, _OTHER), names, strict=False)]
        figure.legend(
            handles=handles, loc="outside lower left", ncols=columns, frameon=False, fontsize=8, handlelength=1.0,
            columnspacing=1.4,
        )  # fmt: skip
    return figure


def _legend_columns(names: Sequence[str]) -> int:
    """As many columns as the longest name leaves room for."""
    longest = max((len(name) for name in names), default=1)
    return max(1, min(len(names), int(_WIDTH / (0.075 * longest + 0.42))))


def _parts(hospital: Mapping[str, Any], own: Sequence[str]) -> list[float]:
    """A bar's parts: what has no class, the classes with a colour of their own, the other ones."""
    classes = hospital.get("classes") or {}
    others = sum(count for name, count in classes.items() if name not in own)
    padding = [0] * (_MAX_CLASSES - len(own))
    return [0 if classes else hospital["train"] or 0, *(classes.get(name, 0) for name in own), *padding, others]


def _shares(parts: Sequence[float]) -> list[float]:
    total = sum(parts)
    return [part / total if total else 0.0 for part in parts]


def _class_bars(axes: Axes, bars: Sequence[Sequence[float]]) -> None:
    start = np.zeros(len(bars))
    # White seams would swallow the short bars of a crowd.
    seam = 0.4 if len(bars) <= _ROOMY else 0
    for index, colour in enumerate((_PALETTE[0], *_PALETTE, _OTHER)):
        counts = [bar[index] for bar in bars]
        if any(counts):
            axes.barh(
                range(len(bars)), counts, left=start, height=0.74, color=colour, edgecolor="white", linewidth=seam
            )
            start += counts


def _bar_length(hospital: Mapping[str, Any]) -> int:
    return int(sum(hospital["classes"].values()) if hospital.get("classes") else hospital["train"] or 0)


def _holding(hospital: Mapping[str, Any], word: str | None, *, spelled: bool) -> str:
    groups = hospital.get("groups")
    if hospital["train"] is None:
        return "not shown"
    of = f" ({counted(groups, word)})" if word is not None and groups is not None else ""
    return f"{counted(hospital['train'], 'record') if spelled else format(hospital['train'], ',')}{of}"


def _dealt(partition: Mapping[str, Any]) -> str:
    """How the records came to the hospitals, in a few words."""
    scheme, column = partition.get("scheme"), partition.get("column")
    how = f"{scheme} partition" if scheme else "partition"
    return f"{how} by {column}" if column else how


def matrix_figure(matrix: Mapping[str, Any]) -> Figure:
    """Which model serves whom: a row a model, a column the hospital whose test records judge it.

    The worst cell of all is framed, a hospital's own model at home is underlined, and what cannot be judged is hatched.

    Args:
        matrix: The summary's entry.
    """
    name, hospitals = matrix["metric"], list(matrix["hospitals"])
    models = [row["model"] for row in matrix["rows"]]
    values = np.array([[number(value) for value in row["values"]] for row in matrix["rows"]], dtype=float)
    crowded = len(hospitals) > _CROWDED
    longest = 0.085 * max(len(_short(hospital)) for hospital in hospitals)
    cell_width, cell_height = (0.3, 0.22) if crowded else (max(0.62, min(longest + 0.1, 6 / len(hospitals))), 0.36)
    margin = 0.075 * max(len(_short(model)) for model in models) + 0.3
    tilted = longest > cell_width
    figure, axes = _one(
        len(models) * cell_height + 0.25 + (0.65 * longest if tilted else 0.15),
        width=max(margin + len(hospitals) * cell_width + 0.3, _NARROWEST),
    )
    _cells(axes, values, name, size=5.5 if crowded else 8, short=crowded)
    for row, model in enumerate(models):
        if model in hospitals and not math.isnan(values[row, hospitals.index(model)]):
            column = hospitals.index(model)
            colour = _on(_colour(values, name)(values[row, column]))
            axes.plot([column - 0.22, column + 0.22], [row + 0.34] * 2, color=colour, linewidth=0.9)
    cell = worst(name, [{name: v, "row": r, "column": c} for (r, c), v in np.ndenumerate(values)])
    if cell is not None:
        corner = (cell["column"] - 0.5 + 0.04, cell["row"] - 0.5 + 0.04)
        axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=_FRAME, linewidth=2.0, zorder=5))
    axes.set_xticks(
        range(len(hospitals)), [_short(hospital) for hospital in hospitals], size=6 if crowded else 8,
        rotation=40 if tilted else 0, ha="left" if tilted else "center", rotation_mode="anchor",
    )  # fmt: skip
    named = [_short(model) if model in hospitals else f"{_short(model)} model" for model in models]
    axes.set_yticks(range(len(models)), named, size=6 if crowded else 8)
    axes.xaxis.tick_top()
    # The released model stands apart from the hospitals' own ones.
    if len(models) > 1 and models[0] not in hospitals:
        axes.axhline(0.5, color="white", linewidth=4)
    entitle(
        figure,
        f"Which model serves whom: {label(name)}",
        "rows: models; columns: whose test records\ndarker: worse; framed: the worst; underlined: own model at home",
    )
    return figure


def _colour(values: np.ndarray[Any, Any], name: str) -> Any:
    """The colour of a value: lighter is better."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    spread = max(high - low, _LEAST_SPAN)
    scale, tints = Normalize((low + high - spread) / 2, (low + high + spread) / 2, clip=True), colormaps["cividis"]
    lower_is_better = metric(name).lower_is_better

    def colour(value: float) -> Any:
        place = float(scale(value))
        return tints(1 - place if lower_is_better else place)

    return colour


def _on(colour: Sequence[float]) -> str:
    """Ink that can be read on that colour."""
    return "white" if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 0.5 else _INK


def _cells(axes: Axes, values: np.ndarray[Any, Any], name: str, *, size: float, short: bool) -> None:
    colour = _colour(values, name)
    tints = np.zeros((*values.shape, 4))
    for (row, column), value in np.ndenumerate(values):
        if math.isnan(value):
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=_MISSING, edgecolor=_LINE, linewidth=0, hatch="////"))
            continue
        tints[row, column] = colour(value)
        ink = _on(tints[row, column].tolist())
        text = axes.text(
            column, row, _in_cell(name, value, short=short), ha="center", va="center", size=size, color=ink
        )
        # It stays inside its cell: measuring thousands of them for the layout would take seconds.
        text.set_in_layout(False)
    rows, columns = values.shape
    axes.pcolormesh(np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5, tints, edgecolors="white", linewidth=0.5)
    axes.set_xlim(-0.5, values.shape[1] - 0.5)
    axes.set_ylim(values.shape[0] - 0.5, -0.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=_INK)


def _in_cell(name: str, value: float, *, short: bool) -> str:
    if not metric(name).share or not math.isfinite(value):
        return written(name, value)
    text = f"{value:.2f}"
    return text.replace("0.", ".", 1) if short and abs(value) < 1 else text


def subgroup_figure(
    subgroups: Sequence[Figures], name: str, *, overall: float | None = None, group: str | None = None
) -> Figure:
    """How subgroups fare: a dot with its 95% interval a subgroup, under a heading an attribute.

    Args:
        subgroups: The summary's ``utility_by_subgroup``.
        name: The metric to draw.
        overall: The figure of all test records, drawn as a line to compare with.
        group: What a group of records is (``patient``); left out, groups are not counted.
    """
    lines: list[tuple[str, Figures | None]] = []
    for attribute, entries in by_attribute(subgroups).items():
        lines.append((attribute.replace("_", " "), None))
        lines += [(str(entry["value"]), entry) for entry in entries]
    figure, axes = _one(len(lines) * 0.24 + 1.15)
    lowest = {id(worst(name, entries)) for entries in by_attribute(subgroups).values() if len(entries) > 1}
    for row, (_, entry) in enumerate(lines):
        if entry is not None:
            _dot(axes, row, entry, name, colour=_WORST if id(entry) in lowest else _PALETTE[0])
    if overall is not None and math.isfinite(number(overall)):
        axes.axvline(number(overall), color=_SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.set_yticks(range(len(lines)), [_short(text) for text, _ in lines], size=8)
    for tick, (_, entry) in zip(axes.get_yticklabels(), lines, strict=True):
        tick.set_fontweight("bold" if entry is None else "normal")
    axes.set_ylim(len(lines) - 0.4, -0.6)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(lines)), ["" if e is None else extent(e, group) for _, e in lines], size=7.5)
    right.tick_params(length=0, colors=_SOFT)
    right.spines["right"].set_visible(False)
    axes.set_xlabel(label(name), size=8, color=_SOFT)
    _bare(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    line = "" if overall is None else "; dashed: all test records"
    entitle(figure, f"How subgroups fare: {label(name)}", f"dot and 95% interval; red: an attribute's worst{line}")
    return figure


def _dot(axes: Axes, row: int, entry: Figures, name: str, *, colour: str) -> None:
    value = number(entry.get(name))
    if not math.isfinite(value):
        axes.annotate(
            "cannot be judged" if math.isnan(value) else written(name, value), (0.01, row),
            xycoords=axes.get_yaxis_transform(), va="center", size=7.5, style="italic", color=_SOFT,
        )  # fmt: skip
        return
    if interval(name, entry):
        low, high = (number(end) for end in entry["ci95"][name])
        axes.plot([low, high], [row, row], color=colour, linewidth=1.6, solid_capstyle="butt", alpha=0.75)
    axes.plot([value], [row], marker="o", markersize=5.5, color=colour)


def training_figure(
    history: Sequence[Mapping[str, Any]], metrics: Sequence[str], *, chosen: int | None = None
) -> Figure:
    """Validation figures by round; a round without a figure leaves a gap.

    Metrics of which more is better share one panel, those of which less is better the other.

    Args:
        history: A mapping a round with ``round`` and a value a metric.
        metrics: What to draw, as far as ``history`` has it.
        chosen: The round that was released, marked.
    """
    drawn = [name for name in metrics if any(name in entry for entry in history)]
    panels = [
        names
        for names in (
            [name for name in drawn if not metric(name).lower_is_better],
            [name for name in drawn if metric(name).lower_is_better],
        )
        if names
    ]
    figure = sheet(_WIDTH, 2.9)
    rounds = [entry["round"] for entry in history]
    ratios = [2, 1] if len(panels) == 2 and len(panels[0]) > 1 else [1] * len(panels)
    grid = figure.subplots(1, max(len(panels), 1), squeeze=False, width_ratios=ratios or [1])[0]
    for axes, names in zip(grid, panels, strict=False):
        for name in names:
            values = [number(entry.get(name)) for entry in history]
            values = [value if math.isfinite(value) else math.nan for value in values]
            colour = _PALETTE[drawn.index(name) % len(_PALETTE)]
            axes.plot(rounds, values, color=colour, marker="o", markersize=3, linewidth=1.5, label=label(name))
        if chosen is not None:
            axes.axvline(chosen, color=_SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axes.set_xlabel("round", size=8, color=_SOFT)
        axes.set_ylabel("validation", size=8, color=_SOFT)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _bare(axes, grid="both")
        axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(names))
    return figure


def _one(height: float, *, width: float = _WIDTH) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; ``height`` inches of them and their labels, and the title above."""
    figure = sheet(width, height)
    return figure, figure.subplots()


def _bare(axes: Axes, *, grid: Literal["both", "x"]) -> None:
    """No more ink than the figures need."""
    axes.grid(axis=grid, color=_GRID)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.spines["bottom"].set_visible(True)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(colors=_INK, labelsize=8, length=0)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
