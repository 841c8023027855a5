"""How often the adversary of the worst case was right, beside what theory allows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from hbdp_fed.adversary.worst_case import CandidateMatching, MembershipInference
from hbdp_fed.audit.candidates.game import Played
from hbdp_fed.audit.proportions import Cluster, cluster_counts, wilson_interval, wilson_of_clusters
from hbdp_fed.privacy import best_identification, worst_case
from hbdp_fed.types import Surface, Unit

FALSE_POSITIVE_RATES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5)


@dataclass(frozen=True)
class IdentificationFigures:
    """An entry of a run's summary: records named among candidates.

    Attributes:
        name: The attack.
        surface: What it saw.
        records: How many games were played, one a record, or one a patient where that is the unit.
        candidates: K.
        clusters: Games and successes of each hospital, by which several runs' figures can be pooled.
        success_rate: In which share of them the right candidate was named.
        success_rate_ci95: An interval clustered by hospital: its games share noise and decoys.
        criterion: What counts as a success, in words.
        baseline_success_rate: What a guess scores, 1/K.
        bound: The largest success that theory allows at the least protected hospital (ReRo at prior 1/K).
        bound_prior: 1/K.
        optimal: What the best possible detector scores there if candidates' gradients are orthogonal and of full
            clipping norm: how far the bound lies above what can be attained.
        steps: Steps of DP-SGD that the games were about, of one hospital.
        unit: What candidates are.
    """

    name: str
    surface: Surface
    records: int
    clusters: tuple[Cluster, ...]
    candidates: int
    success_rate: float | None
    success_rate_ci95: tuple[float, float] | None
    criterion: str
    baseline_success_rate: float
    bound: float
    bound_prior: float
    optimal: float
    steps: int
    kind: str = "identification"
    unit: Unit = "record"


@dataclass(frozen=True)
class OperatingPoint:
    """One threshold of a membership test.

    Attributes:
        level: The false positive rate that was asked for.
        false_positive_rate: The one that was reached: of records that were not there, at most ``level`` of them.
        true_positive_rate: Of records that were there.
        true_positive_rate_ci95: Wilson's interval.
        bound: The largest true positive rate that theory allows at ``level``.
        bound_at_limit: The same at the upper end of the false positive rate's own interval, which the measurement is
            held against: both rates are measured.
    """

    level: float
    false_positive_rate: float
    true_positive_rate: float
    true_positive_rate_ci95: tuple[float, float]
    bound: float
    bound_at_limit: float


@dataclass(frozen=True)
class MembershipFigures:
    """An entry of a run's summary: records told from ones that were never there.

    Attributes:
        name: The attack.
        surface: What it saw.
        records: How many records, or patients, were there.
        outsiders: How many were not.
        success_rate: The true positive rate at the first level of at least ``bound_prior``.
        success_rate_ci95: Its interval.
        criterion: What counts as a success, in words.
        baseline_success_rate: What a guess scores: the false positive rate.
        bound: See :class:`OperatingPoint`, ``bound_at_limit``.
        bound_prior: The false positive rate of ``success_rate``.
        auc: Area under the receiver operating characteristic; None where one of the two kinds is missing.
        points: The thresholds, by level.
        steps: Steps of DP-SGD of one hospital.
        unit: What was there or not.
    """

    name: str
    surface: Surface
    records: int
    outsiders: int
    success_rate: float | None
    success_rate_ci95: tuple[float, float] | None
    criterion: str
    baseline_success_rate: float
    bound: float
    bound_prior: float
    auc: float | None
    points: tuple[OperatingPoint, ...]
    steps: int
    kind: str = field(default="membership")
    unit: Unit = "record"


def identification_figures(
    attack: CandidateMatching, surface: Surface, played: Sequence[Played], generator: torch.Generator
) -> IdentificationFigures:
    """Let the attack name every target, and count. ``played`` holds at least one hospital's games."""
    right = torch.cat([attack.identify(one.candidates, generator) == one.truth for one in played])
    hospital = torch.cat([torch.full((len(one.truth),), place) for place, one in enumerate(played)])
    clusters = cluster_counts(right, hospital)
    count = played[0].candidates.projections.shape[-1]
    bounds = [_bound(one, prior=1 / count) for one in played]
    weakest = played[bounds.index(max(bounds))]
    return IdentificationFigures(
        name=attack.name,
        surface=surface,
        records=len(right),
        clusters=clusters,
        candidates=count,
        success_rate=float(right.double().mean()) if len(right) else None,
        success_rate_ci95=wilson_of_clusters(clusters),
        criterion=f"the one of {count} candidates that was trained on is named; all other {weakest.unit}s are known",
        baseline_success_rate=1 / count,
        bound=max(bounds),
        bound_prior=1 / count,
        optimal=best_identification(
            candidates=count,
            noise_multiplier=weakest.noise_multiplier,
            sample_rate=weakest.sample_rate,
            steps=weakest.steps,
        ),
        steps=weakest.steps,
        unit=weakest.unit,
    )


def membership_figures(
    attack: MembershipInference, surface: Surface, played: Sequence[Played], *, level: float
) -> MembershipFigures:
    """Let the attack score every record, those that were there and those that were not.

    Args:
        attack: The attack.
        surface: What it saw.
        played: At least one hospital's games.
        level: The false positive rate whose true positive rate stands for the attack, in (0, 1).
    """
    scores = torch.cat([attack.score(one.members)[:, 0] for one in played])
    there = torch.cat([one.was_there for one in played])
    levels = sorted({level, *FALSE_POSITIVE_RATES})
    points = tuple(_operating_point(scores, there, played, asked) for asked in levels)
    chosen = points[levels.index(level)]
    both = bool(there.any()) and not bool(there.all())
    # Ranks: likelihood ratios of a control without noise reach magnitudes whose differences are no numbers.
    ranks = torch.unique(scores, return_inverse=True)[1]
    return MembershipFigures(
        name=attack.name,
        surface=surface,
        records=int(there.sum()),
        outsiders=int((~there).sum()),
        success_rate=chosen.true_positive_rate,
        success_rate_ci95=chosen.true_positive_rate_ci95,
        criterion=f"a {played[0].unit} that was trained on is told from others, of whom {level:.0%} are mistaken for "
        "one",
        baseline_success_rate=level,
        bound=chosen.bound_at_limit,
        bound_prior=level,
        auc=float(roc_auc_score(there.numpy(), ranks.numpy())) if both else None,
        points=points,
        steps=max(one.steps for one in played),
        unit=played[0].unit,
    )


def _operating_point(scores: Tensor, there: Tensor, played: Sequence[Played], level: float) -> OperatingPoint:
    outside = scores[~there].sort(descending=True).values
    allowed = int(level * len(outside))
    # Above the first outsider that must not be let through.
    threshold = float(outside[allowed]) if allowed < len(outside) else -float("inf")
    passed = scores > threshold
    hits, alarms = int(passed[there].sum()), int(passed[~there].sum())
    hit_ci, alarm_ci = wilson_interval(hits, int(there.sum())), wilson_interval(alarms, len(outside))
    if hit_ci is None or alarm_ci is None:
        raise ValueError("a membership test needs records that were there and records that were not")
    limit = min(max(alarm_ci[1], level), 1 - 1e-12)
    return OperatingPoint(
        level=level,
        false_positive_rate=alarms / len(outside),
        true_positive_rate=hits / int(there.sum()),
        true_positive_rate_ci95=hit_ci,
        bound=max(_bound(one, prior=level) for one in played),
        bound_at_limit=max(_bound(one, prior=limit) for one in played),
    )


def _bound(played: Played, *, prior: float) -> float:
    return worst_case(
        prior=prior,
        noise_multiplier=played.noise_multiplier,
        sample_rate=played.sample_rate,
        steps=played.steps,
    )
