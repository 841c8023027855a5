"""The check: limits that a hospital found on honest models, and the verdict on a model that it received."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from hbdp_fed.screening.honest import Effort, Training, honest_models
from hbdp_fed.screening.looking import Look, References, look_at
from hbdp_fed.screening.measures import MEASURES, Measure
from hbdp_fed.screening.structure import structural_problems
from hbdp_fed.types import ModelSpec, Weights

STRUCTURE = "structure"
"""The name of the measure that needs no calibration."""


@dataclass(frozen=True)
class Range:
    """Which figures pass.

    Attributes:
        lowest: A smaller one is suspicious; 0 where none is.
        highest: A larger one is; inf where none is.
    """

    lowest: float
    highest: float

    def holds(self, figure: float) -> bool:
        """Whether a figure passes."""
        return self.lowest <= figure <= self.highest

    def distance(self, figure: float) -> float:
        """By what factor a figure is off, below 1 where it passes."""
        return max(self.lowest / figure, figure / self.highest)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a model.

    Attributes:
        measure: What found it.
        words: The same for people, with place, figure and limit.
        figure: The figure; None for the structure.
        limit: What it is beyond; None for the structure.
    """

    measure: str
    words: str
    figure: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What a check says of a model.

    Attributes:
        findings: What is wrong: of each measure the worst place alone, by the measures' order.
        figures: By measure, the factor by which its worst place is off its limit; below 1 it passes.
    """

    findings: tuple[Finding, ...]
    figures: Mapping[str, float]

    @property
    def flagged(self) -> bool:
        """Whether the model is to be refused."""
        return bool(self.findings)

    @property
    def measures(self) -> tuple[str, ...]:
        """Which measures flag it."""
        return tuple(finding.measure for finding in self.findings)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why, in words."""
        return tuple(finding.words for finding in self.findings)


@dataclass(frozen=True)
class Screen:
    """A hospital's check, calibrated on honest models of one architecture.

    Attributes:
        architecture: The one that the ranges are for.
        agreed: The one that was agreed to; None where nothing was.
        references: What models are tried on.
        ranges: By measure and place, which figures pass. A place that no honest model had a figure for has the widest
            range of the measure, under the name "".
        seed: Of the labels that reference images are given.
    """

    architecture: ModelSpec
    agreed: ModelSpec | None
    references: References
    ranges: Mapping[str, Mapping[str, Range]]
    seed: int

    @classmethod
    def calibrated(
        cls,
        architecture: ModelSpec,
        training: Training,
        references: References,
        *,
        seed: int,
        agreed: ModelSpec | None,
        effort: Effort | None = None,
        initial: Sequence[Weights] = (),
    ) -> Self:
        """Find the ranges on honest models, before any training.

        Args:
            architecture: Of the models to be judged: what was agreed to, or what came where nothing was.
            training: How the hospital trains.
            references: Its reference images; never its patients'.
            seed: Its own, kept to itself.
            agreed: What was agreed to; None where nothing was.
            effort: How many honest models are tried.
            initial: Initial weights that were agreed to.
        """
        models = honest_models(
            architecture,
            training,
            references,
            effort=effort or Effort(),
            generator=torch.Generator().manual_seed(seed),
            initial=initial,
        )
        looks = (look_at(architecture, weights, references, seed=seed) for weights in models)
        return cls(architecture, agreed, references, ranges_of(looks), seed)

    def examine(self, architecture: ModelSpec, weights: Weights) -> Verdict:
        """The verdict on a model. One of another architecture than the ranges are for is judged by its structure alone.

        Args:
            architecture: What came.
            weights: Its weights.
        """
        problems = list(structural_problems(architecture, weights, self.references.images, agreed=self.agreed))
        findings = [Finding(STRUCTURE, "; ".join(problems))] if problems else []
        figures = {STRUCTURE: math.inf if problems else 0.0}
        if architecture == self.architecture and all(bool(torch.isfinite(one).all()) for one in weights.values()):
            look = look_at(architecture, weights, self.references, seed=self.seed)
            for name, measure in MEASURES.items():
                worst = _worst(measure.of(look), self.ranges[name])
                if worst is not None:
                    figures[name] = worst[3]
                    findings += [_finding(name, measure, *worst[:3])] if worst[3] > 1 else []
        return Verdict(tuple(findings), figures)


def ranges_of(looks: Iterable[Look]) -> dict[str, dict[str, Range]]:
    """By measure and place, the ranges that honest models leave: theirs, widened by each measure's factors."""
    seen: dict[str, dict[str, list[float]]] = {name: {} for name in MEASURES}
    for look in looks:
        for name, measure in MEASURES.items():
            for place, figure in measure.of(look).items():
                seen[name].setdefault(place, []).append(figure)
    return {name: dict(_widened(MEASURES[name], places)) for name, places in seen.items()}


def _widened(measure: Measure, places: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, Range]]:
    for place, figures in {**places, "": [figure for found in places.values() for figure in found]}.items():
        lowest = min(figures) / measure.below if figures and measure.below is not None else 0.0
        highest = max(figures) * measure.above if figures and measure.above is not None else math.inf
        yield place, Range(lowest if figures else measure.unseen, highest)


def _worst(figures: Mapping[str, float], ranges: Mapping[str, Range]) -> tuple[str, float, Range, float] | None:
    """Place, figure, range and distance of the figure that is furthest off; None without figures."""
    found = [(place, figure, ranges.get(place, ranges[""])) for place, figure in figures.items()]
    return max(((*one, one[2].distance(one[1])) for one in found), key=lambda one: one[3], default=None)


def _finding(name: str, measure: Measure, place: str, figure: float, passing: Range) -> Finding:
    low = figure < passing.lowest
    limit = passing.lowest if low else passing.highest
    side = "at least" if low else "at most"
    return Finding(name, f"{place}: {measure.words} is {figure:.3g}; {side} {limit:.3g} passes", figure, limit)
