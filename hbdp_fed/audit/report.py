"""The page about one run for people: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hbdp_fed.dpsgd import EFFECTIVELY_GAUSSIAN

_COLOURS = {"auroc": "#1b5e9b", "mcc": "#b26a00"}
_NAMES = {"auroc": "AUROC", "mcc": "MCC"}


def render_report(
    summary: Mapping[str, Any], *, history: Sequence[Mapping[str, Any]] = (), reconstructions: bytes | None = None
) -> str:
    """The page as HTML, with its pictures inside.

    Args:
        summary: A run's summary as it is read from ``summary.json``.
        history: A mapping a round with ``round``, ``mcc`` and ``auroc`` on validation.
        reconstructions: The picture of the best reconstructions, a PNG.
    """
    environment = Environment(
        loader=PackageLoader("hbdp_fed.audit", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"number": show_number, "percent": show_percent}
    attacks = [
        # More than chance: the lower end of the interval lies above what records outside the batch score.
        {**attack, "leaks": _lower(attack) > (attack["control_success_rate"] or 0.0)}
        for entry in summary["risk"].values()
        for attack in entry["attacks"]
    ]
    return environment.get_template("report.html.j2").render(
        title=f"{summary['dataset']} under epsilon {show_number(summary['privacy']['eps'])}",
        summary=summary,
        attacks=attacks,
        hospitals=list(
            zip(
                summary["privacy"]["hospitals"],
                summary["noise_to_resolution"],
                summary["utility_per_hospital"],
                strict=True,
            )
        ),
        # Unknown, where there is no noise, is no reason for a warning.
        coarse=[entry["name"] for entry in summary["noise_to_resolution"] if entry["effectively_gaussian"] is False],
        threshold=EFFECTIVELY_GAUSSIAN,
        reconstructions=None if reconstructions is None else base64.b64encode(reconstructions).decode(),
        training=base64.b64encode(training_figure(history)).decode() if history else None,
    )


def training_figure(history: Sequence[Mapping[str, Any]]) -> bytes:
    """Validation figures by round as a PNG; a round without a figure leaves a gap."""
    figure = Figure(figsize=(8, 2.8), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    rounds = [entry["round"] for entry in history]
    for name, colour in _COLOURS.items():
        values = [math.nan if entry[name] is None else entry[name] for entry in history]
        axes.plot(rounds, values, color=colour, marker="o", markersize=3, linewidth=1.5, label=_NAMES[name])
    axes.set_xlabel("round")
    axes.set_ylabel("validation")
    axes.grid(color="#e5e9ee")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=120, metadata={"Software": None})
    return written.getvalue()


def show_number(value: float | str | None) -> str:
    """Four significant digits; an en dash for what does not exist. ``"inf"`` stays a word."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:.4g}"


def show_percent(value: float | None) -> str:
    """One decimal; an en dash for what does not exist."""
    return "–" if value is None else f"{value:.1%}"


def _lower(attack: Mapping[str, Any]) -> float:
    interval = attack["success_rate_ci95"]
    return float(interval[0]) if interval else 0.0
