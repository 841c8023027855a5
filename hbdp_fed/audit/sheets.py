"""What the pictures of a page are drawn on: a white sheet with a title at its left."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK, SOFT = "#222222", "#5b6776"


def sheet(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def entitle(figure: Figure, title: str, subtitle: str) -> None:
    """What the picture shows, and how to read it, above the axes and at their left."""
    lines = 1 + subtitle.count("\n")
    head = 0.36 + 0.17 * lines
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + head)
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, 0, 1, height / (height + head)))
    top = height + head
    figure.text(0.1 / width, 1 - 0.2 / top, title, va="center", ha="left", size=11, weight="bold", color=INK)
    figure.text(0.1 / width, 1 - 0.34 / top, subtitle, va="top", ha="left", size=8.5, color=SOFT)
