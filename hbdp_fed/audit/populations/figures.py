"""How well a hospital with few of something was told from one with many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hbdp_fed.adversary.property_inference import SHARES
from hbdp_fed.audit.populations.game import PlayedPopulations
from hbdp_fed.audit.proportions import Cluster, cluster_counts, wilson_of_clusters
from hbdp_fed.audit.ranking import auc_with_interval
from hbdp_fed.types import Surface


@dataclass(frozen=True)
class PopulationFigures:
    """An entry of a run's summary: hospitals told apart by how common a property is among their patients.

    Attributes:
        name: The attack.
        surface: What it saw.
        records: How many populations there were; they stand where other attacks have records.
        clusters: Populations and successes of each hospital, by which several runs' figures can be pooled.
        success_rate: Which share of them was put on the right side.
        success_rate_ci95: An interval clustered by hospital: its populations have records in common.
        criterion: What counts as a success, in words.
        baseline_success_rate: What a guess scores.
        auc: The probability that a population with the large share scores higher than one with the small share, of the
            same hospital or another one.
        auc_ci95: Its interval, for populations that are drawn anew from these hospitals' records.
        property: Which property, in words.
        shares: The two shares.
        population: Records of each population, of the hospital with the smallest ones.
        shadows: How many shadow hospitals the adversary trained for each hospital.
        steps: Steps of DP-SGD in what was seen of each.
        unit: What was told apart.
    """

    name: str
    surface: Surface
    records: int
    clusters: tuple[Cluster, ...]
    success_rate: float
    success_rate_ci95: tuple[float, float] | None
    criterion: str
    baseline_success_rate: float
    auc: float
    auc_ci95: tuple[float, float]
    property: str
    shares: tuple[float, float]
    population: int
    shadows: int
    steps: int
    kind: str = "property"
    unit: str = "population"


def population_figures(
    name: str,
    surface: Surface,
    played: Sequence[PlayedPopulations],
    *,
    property: str,
    shadows: int,
    steps: int,
) -> PopulationFigures:
    """The figures of at least one hospital's game.

    Args:
        name: The attack.
        surface: What it saw.
        played: The games.
        property: In words.
        shadows: The attack's own.
        steps: Of a round.
    """
    scores = torch.cat([one.scores for one in played])
    large = torch.cat([one.large for one in played])
    hospital = torch.cat([torch.full((len(one.large),), place) for place, one in enumerate(played)])
    right = (scores > 0) == large
    clusters = cluster_counts(right, hospital)
    area, interval = auc_with_interval(scores, large)
    few, many = (f"{share:.0%}" for share in SHARES)
    return PopulationFigures(
        name=name,
        surface=surface,
        records=len(scores),
        clusters=clusters,
        success_rate=float(right.double().mean()),
        success_rate_ci95=wilson_of_clusters(clusters),
        criterion=f"a hospital of which {many} have the property {property} is told from one of which {few} have it, "
        "by one round of training on its records",
        baseline_success_rate=0.5,
        auc=area,
        auc_ci95=interval,
        property=property,
        shares=SHARES,
        population=min(one.size for one in played),
        shadows=shadows,
        steps=steps,
    )
