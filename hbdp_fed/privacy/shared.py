"""What protects whom several hospitals know: of all combinations of hospitals that share somebody, the worst.

Hospitals draw batches and noise independently of each other, so whoever is known to several has the guarantee of one
adaptive composition of all their steps: of their joined histories.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hbdp_fed.privacy.accounting import history_epsilon_interval
from hbdp_fed.privacy.history import History, Segment, check_delta, merged
from hbdp_fed.privacy.reconstruction import history_worst_case
from hbdp_fed.privacy.renyi import Array, epsilon_of_renyi, renyi_divergence

_AT_MOST = 6
"""Combinations whose tight epsilon and bound are computed, which take seconds each."""

_NEAR = 0.01
"""How far apart, relatively, mechanisms are that are first taken for one where there are more combinations."""


@dataclass(frozen=True)
class SharedGuarantee:
    """Of whoever is known to several hospitals, for everything that they release together: upper bounds.

    Attributes:
        hospitals: The combination with the largest epsilon by RDP, as places.
        eps_rdp: Its epsilon by Opacus' RDP accountant.
        eps_tight: The smallest upper bound of epsilon, the largest of all combinations'.
        worst_case: The largest probability of reconstruction by an adversary who holds candidates, likewise.
        exact: Whether every combination was computed by itself. If not, mechanisms that are nearly alike were taken for
            one that is weaker than each, and the last two figures are a little too large.
    """

    hospitals: tuple[int, ...]
    eps_rdp: float
    eps_tight: float
    worst_case: float
    exact: bool


def shared_guarantee(
    histories: Sequence[Iterable[Segment]], known_to: Iterable[Sequence[int]], *, delta: float, prior: float
) -> SharedGuarantee:
    """The guarantee of the least protected of those who are known to several hospitals.

    Args:
        histories: By hospital, what a record of its own is exposed to there.
        known_to: The combinations of hospitals that share somebody, at least one, as places in ``histories``.
        delta: in (0, 1), of the whole: one delta, not one for each hospital.
        prior: in (0, 1): how likely the adversary names the record without any release.

    Raises:
        ValueError: naming the argument that cannot be used.
    """
    check_delta(delta)
    exposures = [merged(history) for history in histories]
    combinations = sorted({tuple(sorted(places)) for places in known_to})
    if not combinations:
        raise ValueError("known_to must hold at least one combination of hospitals")
    by_rdp = _rdp(exposures, combinations, delta)
    weakest = max(combinations, key=lambda places: by_rdp[places])
    distinct, exact = _joined(exposures, combinations), True
    near = _NEAR
    while len(distinct) > _AT_MOST:
        distinct, exact = _joined(_rounded(exposures, near), combinations), False
        near *= 2
    return SharedGuarantee(
        hospitals=weakest,
        eps_rdp=by_rdp[weakest],
        eps_tight=max(_tight(history, delta) for history in distinct),
        worst_case=max(_bound(history, prior) for history in distinct),
        exact=exact,
    )


def _rdp(
    exposures: Sequence[History], combinations: Sequence[tuple[int, ...]], delta: float
) -> dict[tuple[int, ...], float]:
    """Epsilon of every combination. Divergences add up over hospitals: each is evaluated once."""
    involved = {place for places in combinations for place in places}
    known: dict[History, Array] = {}
    for place in involved:
        if exposures[place] not in known:
            known[exposures[place]] = renyi_divergence(exposures[place])
    return {
        places: epsilon_of_renyi(np.sum([known[exposures[place]] for place in places], axis=0), delta=delta)
        for places in combinations
    }


@lru_cache(maxsize=256)
def _tight(history: History, delta: float) -> float:
    return history_epsilon_interval(history, delta=delta)[1]


@lru_cache(maxsize=256)
def _bound(history: History, prior: float) -> float:
    return history_worst_case(history, prior=prior)


def _joined(exposures: Sequence[History], combinations: Sequence[tuple[int, ...]]) -> set[History]:
    return {merged(segment for place in places for segment in exposures[place]) for places in combinations}


def _rounded(exposures: Sequence[History], near: float) -> list[History]:
    """Every mechanism with the least noise and the largest sample rate of all that are nearly like it.

    Such a mechanism is weaker than each of them: more noise is post-processing, and so is a smaller sample rate, where
    an output is exchanged now and then for one without the record.
    """

    def cell(segment: Segment) -> tuple[int, int]:
        width = math.log1p(near)
        noise = math.floor(math.log(segment.noise_multiplier) / width) if segment.noise_multiplier > 0 else 0
        return noise, math.floor(math.log(segment.sample_rate) / width)

    least: dict[tuple[int, int], tuple[float, float]] = {}
    for segment in {segment for history in exposures for segment in history}:
        noise, rate = least.get(cell(segment), (math.inf, 0.0))
        least[cell(segment)] = min(noise, segment.noise_multiplier), max(rate, segment.sample_rate)
    return [merged(Segment(*least[cell(segment)], segment.steps) for segment in history) for history in exposures]
