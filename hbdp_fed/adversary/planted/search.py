"""Looking for the best design: one setting after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Design = TypeVar("Design")

_TIE = 1e-3
"""Designs whose similarity differs by less are equally good; the earlier one is taken."""


def search(
    start: Design, settings: Sequence[Callable[[Design], Sequence[Design]]], score: Callable[[Design], float]
) -> Design:
    """The design that changing one setting after the other leads to. They hardly interact; a full grid takes longer.

    Args:
        start: Where to begin.
        settings: Each makes of the best design so far those that differ from it in one setting, the less conspicuous
            ones first.
        score: Higher is better; asked once for a design if the caller remembers.
    """
    best = start
    for alternatives in settings:
        best = best_of(alternatives(best), score)
    return best


def best_of(designs: Sequence[Design], score: Callable[[Design], float]) -> Design:
    """The design with the highest score; the earlier one of two that are equally good."""
    best, best_score = designs[0], score(designs[0])
    for design in designs[1:]:
        if score(design) > best_score + _TIE:
            best, best_score = design, score(design)
    return best
