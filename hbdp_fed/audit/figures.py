"""The picture of a report: the best reconstructions beside the patients' images they were rebuilt from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from hbdp_fed.audit.risk import SSIM_THRESHOLD, ProbeOutcome
from hbdp_fed.types import Reconstruction

_ROWS = ("original", "reconstruction", "nearest\npublic image")
_CELL_INCHES = 1.25
_LEFT_INCHES = 1.1
_TOP_INCHES = 0.66
_BOTTOM_INCHES = 0.12
_HEADER_INCHES = 0.42
_MIN_WIDTH_INCHES = 5.6
_LEAKED = "#b3261e"
_SAFE = "#44546a"


@dataclass(frozen=True)
class Column:
    """One record in the picture.

    Attributes:
        original: float (C, H, W) in [0, 1], C = 1 or 3.
        reconstruction: The same shape.
        nearest: The same shape, the public image that comes closest to the original.
        ssim: Of the reconstruction with the original.
        success: Whether that counts as a success.
        hospital: Whose record.
    """

    original: Tensor
    reconstruction: Tensor
    nearest: Tensor
    ssim: float
    success: bool
    hospital: str


def best_columns(
    probes: Sequence[tuple[ProbeOutcome, Reconstruction, Tensor]], public: Tensor, *, count: int = 8
) -> list[Column]:
    """The ``count`` records that were rebuilt best, the best first: successes, then by SSIM.

    Args:
        probes: Each probe's outcome, with the reconstruction and the originals (N, C, H, W) that it was audited from.
        public: float (P, C, H, W), the public images of the audit.
        count: At most this many.
    """
    columns = [
        Column(
            original=originals[record],
            reconstruction=reconstruction.images[outcome.reconstruction[record]],
            nearest=public[outcome.nearest_public[record]],
            ssim=float(outcome.ssim[record]),
            success=bool(outcome.success[record]),
            hospital=outcome.hospital,
        )
        for outcome, reconstruction, originals in probes
        for record in torch.nonzero(outcome.reconstruction >= 0).flatten().tolist()
    ]
    return sorted(columns, key=lambda column: (not column.success, -column.ssim))[:count]


def reconstruction_figure(columns: Sequence[Column], *, title: str) -> Figure:
    """The picture: rows are original, reconstruction and nearest public image, columns are records.

    Args:
        columns: From :func:`best_columns`; may be empty.
        title: What was attacked, in a few words.
    """
    cells = max(len(columns), 1)
    height = _TOP_INCHES + _HEADER_INCHES + len(_ROWS) * _CELL_INCHES + _BOTTOM_INCHES
    width = max(_LEFT_INCHES + cells * _CELL_INCHES + 0.15, _MIN_WIDTH_INCHES)
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.16 / width, 1 - 0.22 / height, title, va="center", ha="left", size=11, weight="bold", color="#222222")
    verdict, colour = _verdict(columns)
    figure.text(0.16 / width, 1 - 0.50 / height, verdict, va="center", ha="left", size=9, color=colour)
    for row, label in enumerate(_ROWS):
        bottom = _BOTTOM_INCHES + (len(_ROWS) - 1 - row) * _CELL_INCHES
        if columns:
            figure.text(
                (_LEFT_INCHES - 0.1) / width,
                (bottom + _CELL_INCHES / 2) / height,
                label,
                va="center",
                ha="right",
                size=9,
                color="#444444",
            )
        for index, column in enumerate(columns):
            image = (column.original, column.reconstruction, column.nearest)[row]
            left = _LEFT_INCHES + index * _CELL_INCHES
            gap = 0.04
            axes = figure.add_axes(
                (
                    (left + gap) / width,
                    (bottom + gap) / height,
                    (_CELL_INCHES - 2 * gap) / width,
                    (_CELL_INCHES - 2 * gap) / height,
                )
            )
            _show(axes, image)
            if row == 0:
                axes.set_title(
                    f"{column.hospital}\nSSIM {column.ssim:.2f}",
                    size=8,
                    pad=3,
                    color=_LEAKED if column.success else _SAFE,
                )
            if row == 1 and column.success:
                _frame(axes, _LEAKED)
    return figure


def save_figure(figure: Figure, path: Path, *, dpi: int = 150) -> None:
    """Write ``figure`` as a PNG. The file holds no date or version: the same picture is the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=dpi, metadata={"Software": None})


def _verdict(columns: Sequence[Column]) -> tuple[str, str]:
    if not columns:
        return "no reconstruction", _SAFE
    successes = sum(column.success for column in columns)
    if successes == 0:
        best = max((column.ssim for column in columns), default=math.nan)
        return f"no success; the best reconstruction reaches SSIM {best:.2f}", _SAFE
    rule = f"SSIM > {SSIM_THRESHOLD:g} and closer than any public image"
    shown = "the best one shown" if len(columns) == 1 else f"the {len(columns)} best shown"
    return f"{shown}; framed: {successes} rebuilt ({rule})", _LEAKED


def _show(axes: Axes, image: Tensor) -> None:
    pixels = image.detach().float().clamp(0, 1).permute(1, 2, 0).numpy()
    axes.imshow(
        pixels if pixels.shape[2] == 3 else pixels[:, :, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    _frame(axes, "#cccccc", width=0.6)


def _frame(axes: Axes, colour: str, *, width: float = 2.0) -> None:
    for spine in axes.spines.values():
        spine.set_edgecolor(colour)
        spine.set_linewidth(width)
