"""How a server makes one update of the hospitals' updates: their weighted mean, or a rule that outvotes liars.

The mean takes the hospitals' weights, is added up one update at a time, and can be summed securely. The robust rules
give every hospital one vote, as their papers define them: how many records a hospital holds is its own claim, and a
liar would claim a million. They have to see all updates at once, each for itself. Whatever the rule, it works on what
was released with noise and costs no budget; but the noise of a median, or of one hospital that Krum picked, is larger
than that of the mean.

Flower has the same rules as strategies. They take their input out of messages, the mean's weights from what each
message claims, and Krum's distances from a copy of all updates by a formula that loses digits. So they are rewritten
here for float64 and bounded memory, and the tests hold them against Flower's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.errors import SettingError, unknown_choice
from hbdp_fed.types import ModelUpdate, Weights

Weighting = Callable[[int], float]

WEIGHTINGS: Mapping[str, Weighting] = {
    "records": float,
    "equal": lambda _: 1.0,
}
"""From a hospital's number of records to its weight in the mean, before normalisation."""

_BLOCK = 2**21
"""How many numbers of all hospitals together a robust rule copies at a time: 16 MiB of float64."""


@dataclass(frozen=True)
class AggregationSettings:
    """Which rule, and what it needs to know.

    Attributes:
        name: A key of :data:`AGGREGATIONS`.
        trim: For ``trimmed_mean``: the share of the hospitals that is cut off at each end, rounded down to whole
            hospitals; in (0, 0.5).
        byzantine: For ``krum`` and ``multi_krum``: how many hospitals may lie, f; at least 0.
    """

    name: str = "mean"
    trim: float = 0.2
    byzantine: int = 1


Combine = Callable[[Iterable[ModelUpdate], AggregationSettings, Mapping[str, float]], Weights]
"""From the updates, the settings and the hospitals' shares to one update in float64 (see :func:`combine`)."""


@dataclass(frozen=True)
class Aggregation:
    """One rule.

    Attributes:
        combine: What :func:`combine` does.
        check: Raises :class:`SettingError` if the rule is not defined, or without effect, for that many hospitals.
        linear: Whether it is a sum with weights that are known beforehand. Only such a rule heeds the weighting, can
            be streamed (:class:`RunningMean`), and can be computed from a sum of masked updates.
    """

    combine: Combine
    check: Callable[[AggregationSettings, int], None]
    linear: bool = False


# The mean.


def mean_shares(records: Sequence[int], weighting: str) -> tuple[float, ...]:
    """Each hospital's weight in the mean, adding up to 1.

    Args:
        records: How many each of them holds.
        weighting: A key of :data:`WEIGHTINGS`.
    """
    weights = [WEIGHTINGS[weighting](count) for count in records]
    return tuple(weight / sum(weights) for weight in weights)


class RunningMean:
    """The weighted mean of updates that come one at a time, so that none has to be kept.

    Floating-point addition is not associative: the caller adds them in a fixed order, or reruns would differ.

    Args:
        shares: The weight of each hospital that may answer, adding up to 1; see :func:`mean_shares`.
    """

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._left = dict(shares)
        self._added = 0.0
        self._sums: dict[str, Tensor] = {}

    def add(self, update: ModelUpdate) -> None:
        """Add a hospital's update, which is not kept.

        Raises:
            KeyError: if the hospital has no share, or was added before.
        """
        share = self._left.pop(update.hospital)
        self._added += share
        for name, value in update.delta.items():
            # Multiplied and then added, each rounded on its own: a fused operation would give other bits.
            summand = value.double() * share
            self._sums[name] = self._sums[name].add_(summand) if name in self._sums else summand

    def result(self) -> Weights:
        """The mean of those that were added, float64: the weights of those that were not are left out.

        Raises:
            ValueError: if nothing was added.
        """
        if not self._sums:
            raise ValueError("the mean of no hospital's update is not defined")
        if not self._left:
            return dict(self._sums)
        return {name: value / self._added for name, value in self._sums.items()}


def average(updates: Sequence[ModelUpdate], weighting: str) -> Weights:
    """The weighted mean of the deltas (McMahan et al. 2017, arXiv 1602.05629), float64, summed in the order given.

    Args:
        updates: One a hospital.
        weighting: A key of :data:`WEIGHTINGS`.
    """
    shares = mean_shares([update.num_records for update in updates], weighting)
    mean = RunningMean({update.hospital: share for update, share in zip(updates, shares, strict=True)})
    for update in updates:
        mean.add(update)
    return mean.result()


def _mean(updates: Iterable[ModelUpdate], settings: AggregationSettings, shares: Mapping[str, float]) -> Weights:
    """The weighted mean, of which no update is kept."""
    mean = RunningMean(shares)
    for update in updates:
        mean.add(update)
    return mean.result()


# One coordinate at a time.


def _by_coordinate(updates: Sequence[ModelUpdate], reduce: Callable[[Tensor], Tensor]) -> Weights:
    """What ``reduce`` makes of every coordinate.

    Args:
        updates: H of them.
        reduce: From (H, n) to (n,), float64; gets the hospitals' values in rising order.
    """
    result = {}
    for name, first in updates[0].delta.items():
        rows = [update.delta[name].reshape(-1) for update in updates]
        reduced = torch.empty_like(rows[0], dtype=torch.float64)
        width = max(1, _BLOCK // len(rows))
        for start in range(0, len(reduced), width):
            block = torch.stack([row[start : start + width].double() for row in rows])
            reduced[start : start + width] = reduce(block.sort(dim=0).values)
        result[name] = reduced.reshape(first.shape)
    return result


def _median(updates: Sequence[ModelUpdate], settings: AggregationSettings) -> Weights:
    """The coordinate-wise median; of an even number, the mean of the middle two (definition 1 of Yin et al.)."""
    low, high = (len(updates) - 1) // 2, len(updates) // 2
    # Halved before they are added, so that no two large values overflow. Halving is exact.
    return _by_coordinate(updates, lambda ordered: ordered[low] / 2 + ordered[high] / 2)


def _cut(trim: float, num_hospitals: int) -> int:
    """How many hospitals are cut off at each end."""
    # Rounded first: 0.29 * 100 is 28.999999999999996.
    return math.floor(round(trim * num_hospitals, 9))


def _trimmed_mean(updates: Sequence[ModelUpdate], settings: AggregationSettings) -> Weights:
    """The coordinate-wise mean of what is left between the ends (definition 2 of Yin et al.)."""
    cut = _cut(settings.trim, len(updates))
    return _by_coordinate(updates, lambda ordered: ordered[cut : len(updates) - cut].mean(dim=0))


# One hospital at a time.


def squared_distances(updates: Sequence[ModelUpdate]) -> Tensor:
    """The squared l2 distances between all pairs of H updates, float64 (H, H).

    Summed over squared differences. The usual way over inner products, |x|^2 + |y|^2 - 2 x.y, is faster but loses the
    distance of two updates that have much in common.
    """
    total = torch.zeros(len(updates), len(updates), dtype=torch.float64)
    for name in updates[0].delta:
        rows = [update.delta[name].reshape(-1) for update in updates]
        width = max(1, _BLOCK // len(rows))
        for start in range(0, len(rows[0]), width):
            block = torch.stack([row[start : start + width].double() for row in rows])
            total += torch.cdist(block, block, compute_mode="donot_use_mm_for_euclid_dist").square_().cpu()
    return total


def krum_order(updates: Sequence[ModelUpdate], *, byzantine: int) -> list[int]:
    """The positions of the updates from the most to the least trusted (Blanchard et al. 2017, section 4).

    An update's score is the sum of its squared distances to the n - f - 2 others that are nearest to it; the lowest is
    trusted most. Updates of equal score stand in the order of their hospitals' names, whatever order they came in.

    Args:
        updates: n of them.
        byzantine: f, with n > 2f + 2.
    """
    neighbours = len(updates) - byzantine - 2
    distances = squared_distances(updates)
    # Not its own neighbour. Left out by position: another update may be at distance 0, too.
    distances.fill_diagonal_(math.inf)
    scores = distances.sort(dim=1).values[:, :neighbours].sum(dim=1).tolist()
    return sorted(range(len(updates)), key=lambda index: (scores[index], updates[index].hospital))


def _krum(updates: Sequence[ModelUpdate], settings: AggregationSettings) -> Weights:
    """The update that is trusted most, as it is."""
    chosen = updates[krum_order(updates, byzantine=settings.byzantine)[0]]
    return {name: value.double().clone() for name, value in chosen.delta.items()}


def _multi_krum(updates: Sequence[ModelUpdate], settings: AggregationSettings) -> Weights:
    """The plain mean of the n - f updates that are trusted most, in the order given."""
    best = krum_order(updates, byzantine=settings.byzantine)[: len(updates) - settings.byzantine]
    return average([updates[index] for index in sorted(best)], "equal")


# What can be asked for.


def _vote(rule: Callable[[Sequence[ModelUpdate], AggregationSettings], Weights]) -> Combine:
    """A rule that sees all updates at once, every hospital counting the same."""

    def counted(updates: Iterable[ModelUpdate], settings: AggregationSettings, shares: Mapping[str, float]) -> Weights:
        kept = list(updates)
        check(settings, len(kept))
        return rule(kept, settings)

    return counted


def _needs_anybody(settings: AggregationSettings, num_hospitals: int) -> None:
    if num_hospitals < 1:
        raise SettingError("federation.aggregation", f"'{settings.name}' needs at least 1 hospital, there is none")


def _needs_three(settings: AggregationSettings, num_hospitals: int) -> None:
    if num_hospitals < 3:
        raise SettingError(
            "federation.aggregation",
            f"'{settings.name}' needs at least 3 hospitals to outvote one, there are {num_hospitals}; use 'mean'",
        )


def _needs_trim(settings: AggregationSettings, num_hospitals: int) -> None:
    _needs_three(settings, num_hospitals)
    if not 0 < settings.trim < 0.5:
        raise SettingError("federation.trim", f"must lie strictly between 0 and 0.5, got {settings.trim}")
    if _cut(settings.trim, num_hospitals) < 1:
        least = math.ceil(1e4 / num_hospitals) / 1e4
        raise SettingError(
            "federation.trim",
            f"{settings.trim} of {num_hospitals} hospitals is less than one, which cuts off nobody; "
            f"choose at least {least:g} and below 0.5",
        )


def _needs_krum(settings: AggregationSettings, num_hospitals: int) -> None:
    _needs_three(settings, num_hospitals)
    most = (num_hospitals - 3) // 2
    if not 0 <= settings.byzantine <= most:
        raise SettingError(
            "federation.byzantine",
            f"'{settings.name}' needs more than 2f + 2 hospitals to outvote f; with {num_hospitals} hospitals "
            f"choose from 0 to {most}, got {settings.byzantine}",
        )


AGGREGATIONS: Mapping[str, Aggregation] = {
    "mean": Aggregation(combine=_mean, check=_needs_anybody, linear=True),
    "median": Aggregation(combine=_vote(_median), check=_needs_three),
    "trimmed_mean": Aggregation(combine=_vote(_trimmed_mean), check=_needs_trim),
    "krum": Aggregation(combine=_vote(_krum), check=_needs_krum),
    "multi_krum": Aggregation(combine=_vote(_multi_krum), check=_needs_krum),
}
"""The rules by name.

``mean`` is federated averaging (McMahan et al. 2017, arXiv 1602.05629); ``median`` and ``trimmed_mean`` work on every
coordinate for itself (Yin et al. 2018, arXiv 1803.01498); ``krum`` takes the one update that is closest to most others,
``multi_krum`` the plain mean of the n - f best ones (Blanchard et al. 2017, arXiv 1703.02757).
"""


def check(settings: AggregationSettings, num_hospitals: int) -> None:
    """Refuse a rule that is not defined for that many hospitals, or that would not outvote anybody.

    Args:
        settings: The rule.
        num_hospitals: How many updates it will get.

    Raises:
        SettingError: with what is accepted.
    """
    if settings.name not in AGGREGATIONS:
        raise unknown_choice("federation.aggregation", settings.name, AGGREGATIONS)
    AGGREGATIONS[settings.name].check(settings, num_hospitals)


def combine(updates: Iterable[ModelUpdate], settings: AggregationSettings, shares: Mapping[str, float]) -> Weights:
    """One update of many, float64, by the same names and shapes.

    Args:
        updates: One a hospital, finite, in the hospitals' fixed order. The mean holds one at a time; the robust rules
            keep all of them.
        settings: The rule.
        shares: The weight of each hospital that may answer, adding up to 1, which only the mean heeds.

    Raises:
        SettingError: as :func:`check` for the number of updates that came.
        ValueError: from the mean, if none came.
    """
    return AGGREGATIONS[settings.name].combine(updates, settings, shares)
