"""Secure aggregation in a run: what it refuses beforehand, and what it came to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hbdp_fed.dpsgd import EFFECTIVELY_GAUSSIAN
from hbdp_fed.errors import SettingError
from hbdp_fed.federation.aggregation import AGGREGATIONS, mean_shares
from hbdp_fed.federation.lengths import longest_updates
from hbdp_fed.federation.revealed import RevealedSum
from hbdp_fed.federation.secure_plan import FEWEST, grid_for, noise_in_steps
from hbdp_fed.federation.secure_sum import FixedPoint
from hbdp_fed.training import NO_CORRECTION, LocalSettings, smallest_learning_rate
from hbdp_fed.types import HospitalPlan, Weights

_KEY = "federation.secure_aggregation"

_SEEDED = "drawn from the run's seed: repeatable, and so no protection by themselves"
_SECURE = "drawn by the operating system, which nobody can repeat"

_PLAIN_STEPS = "sgd"
"""The optimiser whose noise is known before training."""


def check_secure(aggregation: str, correction: str, *, asked: int) -> None:
    """What can be checked without data.

    Args:
        aggregation: The rule.
        correction: Of local steps.
        asked: How many hospitals a round asks.

    Raises:
        SettingError: naming the key and what it accepts.
    """
    if not AGGREGATIONS[aggregation].linear:
        raise SettingError(
            "federation.aggregation",
            f"must be mean under {_KEY}, which shows nobody a single update; got {aggregation}",
        )
    if correction != NO_CORRECTION:
        # c moves in the open from round to round, and with it the bound that the grid is announced by.
        raise SettingError("training.correction", f"must be {NO_CORRECTION} under {_KEY}, got {correction}")
    if asked < FEWEST:
        raise SettingError(
            _KEY,
            f"needs at least {FEWEST} hospitals in every round, and a round asks {asked}: of the sum of two, "
            "each takes its own update and knows the other's",
        )


def check_secure_plan(
    plans: Sequence[HospitalPlan],
    local: LocalSettings,
    *,
    weighting: str,
    initial: Weights,
    steps: int,
    all_steps: int,
    asked: Iterable[Sequence[str]],
) -> None:
    """Whether every round has a grid, and the grid leaves the noise.

    It depends on what is announced alone. Where weights decay, later rounds have a slightly longer bound.

    Args:
        plans: The hospitals'.
        local: How they train.
        weighting: By what the mean weighs them.
        initial: The weights that training starts from.
        steps: Of a round.
        all_steps: Of all rounds.
        asked: By round, whom it asks.

    Raises:
        SettingError: naming the key and what it accepts.
    """
    norms = longest_updates(plans, local, weights=initial, steps=steps)
    if not all(math.isfinite(norm) for norm in norms.values()):
        raise SettingError(
            _KEY,
            "needs a bound on every update, and there is none without clipping: set training.clip_without_noise=true",
        )
    by_name = {plan.name: plan for plan in plans}
    for names in {tuple(names) for names in asked}:
        weights = mean_shares([by_name[name].num_records for name in names], weighting)
        shares = dict(zip(names, weights, strict=True))
        grid = grid_for({name: norms[name] for name in names}, shares)
        least = least_noise(grid, [by_name[name] for name in names], shares, local, all_steps=all_steps)
        if least is not None and least < EFFECTIVELY_GAUSSIAN:
            raise SettingError(
                _KEY,
                f"rounds updates to steps of {grid.step:.3g}, and a hospital's noise is {least:.3g} of them: below "
                f"{EFFECTIVELY_GAUSSIAN:g} it is not effectively Gaussian any more; take a smaller eps",
            )


def least_noise(
    grid: FixedPoint,
    plans: Iterable[HospitalPlan],
    shares: Mapping[str, float],
    local: LocalSettings,
    *,
    all_steps: int,
) -> float | None:
    """The smallest noise of any hospital in a coordinate of what it masks, in steps of the grid.

    Args:
        grid: Of the round.
        plans: The hospitals in it.
        shares: What each one's update is multiplied by.
        local: How they train.
        all_steps: Of all training rounds.

    Returns:
        None without noise, and for optimisers that stretch it by what they see.
    """
    if local.optimizer.name != _PLAIN_STEPS:
        return None
    rate = smallest_learning_rate(local, all_steps)
    ratios = [noise_in_steps(grid, plan, share=shares[plan.name], learning_rate=rate) for plan in plans]
    return min((ratio for ratio in ratios if not math.isnan(ratio)), default=None)


@dataclass
class SumFigures:
    """What the sums of a run came to.

    Attributes:
        thresholds: By how many hospitals were asked, how many had to give their shares.
        bits: Of the numbers that were summed.
        largest_error: What rounding can have changed a coordinate of any mean by, at most.
        least_noise: The smallest noise in steps of the grid; None without noise.
    """

    thresholds: dict[int, int] = field(default_factory=dict)
    bits: int = 0
    largest_error: float = 0.0
    least_noise: float | None = None

    def add(self, revealed: RevealedSum, noise: float | None) -> None:
        """Count one more sum."""
        self.thresholds[revealed.asked] = revealed.threshold
        self.bits = revealed.grid.bits
        self.largest_error = max(self.largest_error, revealed.largest_error)
        known = [value for value in (self.least_noise, noise) if value is not None]
        self.least_noise = min(known, default=None)

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> SumFigures:
        """The inverse of ``vars``, by way of JSON."""
        thresholds = {int(asked): needed for asked, needed in value.get("thresholds", {}).items()}
        return cls(**{**value, "thresholds": thresholds})

    def summary(self, *, seeded: bool) -> dict[str, Any] | None:
        """The ``secure_aggregation`` entry of the summary; None where no sum was taken.

        Args:
            seeded: Whether the hospitals' secrets came from the run's seed.
        """
        if not self.thresholds:
            return None
        return {
            "thresholds": [{"asked": asked, "needed": needed} for asked, needed in sorted(self.thresholds.items())],
            "bits": self.bits,
            "largest_error": self.largest_error,
            "least_noise_to_step": self.least_noise,
            "secrets": _SEEDED if seeded else _SECURE,
            "effectively_gaussian": None if self.least_noise is None else self.least_noise >= EFFECTIVELY_GAUSSIAN,
        }
