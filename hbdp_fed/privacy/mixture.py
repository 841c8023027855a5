"""Bounds for little noise, in microseconds: condition on how often the record was drawn.

Where the two worlds of a step lie many standard deviations apart, it is plain from its output whether the record took
part. Given K ~ Binomial(T, q) participations, the total privacy loss is then nearly normal: every participation adds
log q + N(1/(2 sigma^2), 1/sigma^2), every other step log(1 - q).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import binom

from hbdp_fed.privacy.gaussian import delta_of_normal_loss
from hbdp_fed.privacy.history import Segment

_NEGLIGIBLE = 1e-12
_CLEARLY = 40.0
"""The logarithm of the odds from which a step's two explanations count as told apart: e^-40 is below rounding."""


@dataclass(frozen=True)
class ParticipationMixture:
    """delta of removing a record, bounded from both sides, for one segment with sampling (q < 1).

    A step's loss is log((1-q) + q e^z) with z = (y - 1/2)/sigma^2. It is at least log q + z and at least log(1-q).
    Taking the first where the record took part and the second elsewhere, the loss is nowhere overestimated, and its law
    given K is exactly normal: a **lower** bound of delta. The loss is underestimated by more than e^-40 only if the
    output lies on the wrong side of the point where both terms are equal, or within 40 sigma^2 of it. Shifting every
    loss by e^-40 and adding the probability of such an output, T times that of one step, gives an **upper** bound.

    Attributes:
        weight: float64 (M,), probabilities of the values of K that are worth telling apart, ascending; lower ones are
            lumped with the first, to the side of caution.
        mean: float64 (M,), of the loss given K.
        std: float64 (M,), the same.
        above: Probability of larger K.
        unclear: Probability that some step's output leaves its explanation open.
        slack: T e^-40.
    """

    weight: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    above: float
    unclear: float
    slack: float

    @classmethod
    def of(cls, segment: Segment, *, scale: float) -> ParticipationMixture:
        """The mixture of a segment, resolved down to a 1e-12th of the probability ``scale``."""
        sigma, q, steps = segment.noise_multiplier, segment.sample_rate, segment.steps
        count = binom(steps, q)
        lowest, highest = int(count.ppf(1e-15)), int(count.isf(scale * _NEGLIGIBLE))
        k = np.arange(lowest, highest + 1, dtype=np.float64)
        weight = count.pmf(k)
        weight[0] = count.cdf(lowest)
        # log q + z = log(1 - q) at the output in the middle.
        middle, width = 0.5 - sigma**2 * math.log(q / (1 - q)), _CLEARLY * sigma**2
        wrong = q * ndtr((middle + width - 1) / sigma) + (1 - q) * ndtr(-(middle - width) / sigma)
        return cls(
            weight=weight,
            mean=k * (1 / (2 * sigma**2) + math.log(q)) + (steps - k) * math.log1p(-q),
            std=np.sqrt(k) / sigma,
            above=float(count.sf(highest)),
            unclear=min(1.0, float(steps * wrong)),
            slack=steps * math.exp(-_CLEARLY),
        )

    def lower_delta(self, epsilon: float) -> float:
        """Never above the truth."""
        given = delta_of_normal_loss(epsilon, self.mean, self.std)
        # The lumped values of K have smaller losses than the first one: leave them out.
        return max(0.0, float(self.weight[1:] @ given[1:]))

    def upper_delta(self, epsilon: float) -> float:
        """Never below the truth."""
        given = delta_of_normal_loss(epsilon - self.slack, self.mean, self.std)
        return min(1.0, float(self.weight @ given) + self.above + self.unclear)

    def epsilon_bounds(self, delta: float) -> tuple[float, float]:
        """The same for epsilon at a delta; ``(0, inf)`` where this mixture has nothing to say."""
        ends = max(0.0, float(self.mean[0] - 40 * self.std[0])), float(self.mean[-1] + 40 * self.std[-1])
        if self.above + self.unclear >= delta / 2 or ends[1] <= ends[0]:
            return 0.0, math.inf
        return _last_above(self.lower_delta, delta, *ends), _last_above(self.upper_delta, delta, *ends)


def _last_above(falling: Callable[[float], float], value: float, low: float, high: float) -> float:
    """Where a falling function passes a value, on the side of the larger argument; 0 if it is never above it."""
    if falling(low) <= value:
        return 0.0
    return float(brentq(lambda x: falling(x) - value, low, high, xtol=1e-13 * high, rtol=1e-12))
