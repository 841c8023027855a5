"""How many bits of patients counting queries gave away, beside what the more common bit alone scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hbdp_fed.audit.proportions import Cluster, wilson_of_clusters
from hbdp_fed.audit.queries.game import BUDGET, PlayedQueries
from hbdp_fed.types import Unit

SURFACE = "queries"
"""What the adversary sees: answers, and nothing of the training."""


@dataclass(frozen=True)
class QueryPoint:
    """The same queries with one noise.

    Attributes:
        noise: See :mod:`hbdp_fed.audit.queries.game`.
        noise_std: The mean over hospitals of its standard deviation on a count.
        success_rate: The share of the bits that were told rightly.
        success_rate_ci95: An interval clustered by hospital.
        best_possible: What nobody exceeds who knows all other bits, on average over the bits.
    """

    noise: str
    noise_std: float
    success_rate: float
    success_rate_ci95: tuple[float, float]
    best_possible: float


@dataclass(frozen=True)
class QueryFigures:
    """An entry of a run's summary: bits of patients told from answers to counting queries.

    Attributes:
        name: The attack.
        surface: :data:`SURFACE`.
        records: Of how many patients, over all hospitals.
        clusters: Bits and successes of each hospital, by which several runs' figures can be pooled.
        queries: How many queries there were, over all hospitals.
        success_rate: The share told rightly where answers have the noise of the run's own budget.
        success_rate_ci95: Its interval.
        criterion: What counts as a success, in words.
        baseline_success_rate: What the more common bit of each hospital scores.
        property: Which bit.
        points: All noises.
        unit: Whose bits.
    """

    name: str
    surface: str
    records: int
    clusters: tuple[Cluster, ...]
    queries: int
    success_rate: float
    success_rate_ci95: tuple[float, float]
    criterion: str
    baseline_success_rate: float
    property: str
    points: tuple[QueryPoint, ...]
    kind: str = "queries"
    unit: Unit = "record"


def query_figures(name: str, played: Sequence[PlayedQueries], *, property: str, unit: Unit) -> QueryFigures:
    """The figures of at least one hospital's game; every bit counts the same.

    Args:
        name: The attack.
        played: The games.
        property: Which bit, in words.
        unit: Whose bits.
    """
    records = sum(one.bits for one in played)
    points = tuple(_point(played, place, records) for place in range(len(played[0].answered)))
    own = next(point for point in points if point.noise == BUDGET)
    place = points.index(own)
    return QueryFigures(
        name=name,
        surface=SURFACE,
        records=records,
        clusters=_clusters(played, place),
        queries=sum(one.queries for one in played),
        success_rate=own.success_rate,
        success_rate_ci95=own.success_rate_ci95,
        criterion=f"whether a {unit} has the property {property} is told rightly, from answers to counting queries "
        "about random halves that together cost the run's own budget",
        baseline_success_rate=sum(max(one.ones, one.bits - one.ones) for one in played) / records,
        property=property,
        points=points,
        unit=unit,
    )


def _clusters(played: Sequence[PlayedQueries], place: int) -> tuple[Cluster, ...]:
    return tuple((one.bits, one.answered[place].right) for one in played)


def _point(played: Sequence[PlayedQueries], place: int, records: int) -> QueryPoint:
    clusters = _clusters(played, place)
    interval = wilson_of_clusters(clusters)
    if interval is None:
        raise ValueError("counting queries need a patient to ask about")
    answered = [one.answered[place] for one in played]
    return QueryPoint(
        noise=answered[0].noise,
        noise_std=sum(one.noise_std for one in answered) / len(answered),
        success_rate=sum(one.right for one in answered) / records,
        success_rate_ci95=interval,
        best_possible=sum(one.best_possible * game.bits for one, game in zip(answered, played, strict=True)) / records,
    )
