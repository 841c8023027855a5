"""How plain figures are written, in one place for the terminal, pages and tables."""

from __future__ import annotations

DASH = "–"
"""What stands for a figure that does not exist."""


def show_number(value: float | str | None) -> str:
    """Four significant digits; an en dash for what does not exist. ``"inf"`` stays a word."""
    if value is None:
        return DASH
    return value if isinstance(value, str) else f"{value:.4g}"


def show_percent(value: float | None) -> str:
    """One decimal; an en dash for what does not exist. Only certainty is written as 100.0%, only never as 0.0%."""
    if value is None:
        return DASH
    text = f"{value:.1%}"
    if text == "100.0%" and value < 1:
        return ">99.9%"
    return "<0.1%" if text == "0.0%" and value > 0 else text


def show_similarity(value: float | str | None) -> str:
    """Three decimals of what is 1 at best; an en dash for what does not exist. Only 1 itself is written as 1.000."""
    if value is None or isinstance(value, str):
        return show_number(value)
    text = f"{value:.3f}"
    return ">0.999" if text == "1.000" and value < 1 else text


def show_count(value: int | None) -> str:
    """All digits, by thousands; an en dash for what nobody counted."""
    return DASH if value is None else f"{value:,}"


def show_duration(seconds: float | None) -> str:
    """``0.42 s``, ``3 min 20 s``, ``5 h 07 min``; an en dash for what nobody counted."""
    if seconds is None:
        return DASH
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    if seconds < 3599.5:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"
