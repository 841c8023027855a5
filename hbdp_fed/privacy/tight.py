"""The tight accountant: of several valid upper bounds the smallest, and the largest of the lower ones beside it.

Which bounds there are, from the exact to the general:

- steps without sampling: their sum is one Gaussian mechanism, in closed form (:mod:`~hbdp_fed.privacy.gaussian`);
- one step with sampling: closed form too;
- little noise: conditioned on how often the record took part (:mod:`~hbdp_fed.privacy.mixture`);
- everything: the privacy loss distribution on two grids that enclose it (:mod:`~hbdp_fed.privacy.discretised`).

Adding and removing a record are accounted for separately, and the worse counts: for compositions of subsampled
mechanisms neither is known to dominate the other (Lebeda, Regehr, Kamath and Steinke 2024, arXiv 2405.20769).
"""

from __future__ import annotations

import math

from hbdp_fed.privacy.discretised import Bounds, delta_bounds, epsilon_bounds
from hbdp_fed.privacy.gaussian import gaussian_delta, gaussian_epsilon, sampled_delta, sampled_epsilon
from hbdp_fed.privacy.history import History, Segment, log_probability_never_included, merged, probability_of_inclusion
from hbdp_fed.privacy.mixture import ParticipationMixture
from hbdp_fed.privacy.steps import Pair

TOLERANCE = 3e-4
"""How far apart, relatively, the bounds of epsilon may be before a finer grid is tried."""

_LEAST_DELTA = 1e-30
"""The mixture over participations is resolved for deltas down to this."""

_LEAST_NOISE = 1e-150
"""Below this a step's loss, 1/(2 sigma^2), leaves float64; such noise counts as none."""


def epsilon_interval(history: History, *, delta: float) -> Bounds:
    """A lower and an upper bound of a history's epsilon under adding or removing one record.

    Args:
        history: Any exposure.
        delta: in (0, 1).

    Returns:
        The bounds, at least 0; both ``inf`` where a record is seen without noise with more than probability delta.
    """
    noisy, seen = _split(history)
    if seen > 0:
        if seen >= delta:
            return math.inf, math.inf
        # Being seen costs its probability of delta at most; forgetting those steps altogether costs nothing.
        return epsilon_interval(noisy, delta=delta)[0], epsilon_interval(noisy, delta=delta - seen)[1]
    if not noisy or _largest_distance(noisy) <= delta:
        return 0.0, 0.0
    if (mu := _gaussian(noisy)) is not None:
        value = gaussian_epsilon(delta, mu)
        return value, value
    if (only := _single_step(noisy)) is not None:
        value = sampled_epsilon(delta, noise_multiplier=only.noise_multiplier, sample_rate=only.sample_rate)
        return value, value
    lower, upper = _removing(noisy, delta)
    # A record's absence is never proved: the loss of adding one is at most that of never having been drawn.
    most = -log_probability_never_included(noisy)
    if most > lower:
        added = epsilon_bounds(noisy, Pair.ADD, delta=delta, tolerance=TOLERANCE, enough=lower)
        lower, upper = max(lower, added[0]), max(upper, min(added[1], most))
    return lower, upper


def delta_interval(history: History, *, epsilon: float) -> Bounds:
    """A lower and an upper bound of a history's delta at an epsilon.

    Args:
        history: Any exposure.
        epsilon: At least 0; ``inf`` asks for the probability of being seen without noise.
    """
    noisy, seen = _split(history)
    if seen > 0 or math.isinf(epsilon):
        rest = (0.0, 0.0) if math.isinf(epsilon) else delta_interval(noisy, epsilon=epsilon)
        return max(seen, rest[0]), min(1.0, seen + rest[1])
    if not noisy:
        return 0.0, 0.0
    if (mu := _gaussian(noisy)) is not None:
        value = float(gaussian_delta(epsilon, mu))
        return value, value
    if (only := _single_step(noisy)) is not None:
        value = sampled_delta(epsilon, noise_multiplier=only.noise_multiplier, sample_rate=only.sample_rate)
        return value, value
    lower, upper = 0.0, 1.0
    if len(noisy) == 1 and noisy[0].sample_rate < 1:
        mixture = ParticipationMixture.of(noisy[0], scale=_LEAST_DELTA)
        lower, upper = mixture.lower_delta(epsilon), mixture.upper_delta(epsilon)
    if not (upper > _LEAST_DELTA and upper - lower <= TOLERANCE * upper):
        found = delta_bounds(noisy, Pair.REMOVE, epsilon=epsilon, tolerance=TOLERANCE)
        lower, upper = max(lower, found[0]), min(upper, found[1])
    if -log_probability_never_included(noisy) > epsilon:
        added = delta_bounds(noisy, Pair.ADD, epsilon=epsilon, tolerance=TOLERANCE, enough=lower)
        lower, upper = max(lower, added[0]), max(upper, added[1])
    return lower, min(upper, probability_of_inclusion(noisy))


def _removing(history: History, delta: float) -> Bounds:
    lower, upper = 0.0, math.inf
    if len(history) == 1 and history[0].sample_rate < 1:
        lower, upper = ParticipationMixture.of(history[0], scale=delta).epsilon_bounds(delta)
    if upper - lower <= TOLERANCE * upper < math.inf:
        return lower, upper
    found = epsilon_bounds(history, Pair.REMOVE, delta=delta, tolerance=TOLERANCE)
    return max(lower, found[0]), min(upper, found[1])


def _split(history: History) -> tuple[History, float]:
    """The steps with noise, and the probability of taking part in one without."""
    clear = tuple(segment for segment in history if segment.noise_multiplier < _LEAST_NOISE)
    noisy = merged(segment for segment in history if segment.noise_multiplier >= _LEAST_NOISE)
    return noisy, probability_of_inclusion(merged(clear))


def _largest_distance(history: History) -> float:
    """An upper bound of the total variation distance, which is delta at epsilon 0.

    It adds up over steps; a step's is q times that of its Gaussian pair; and nothing is told of a record never drawn.
    """
    added = sum(s.steps * s.sample_rate * math.erf(1 / (s.noise_multiplier * math.sqrt(8))) for s in history)
    return min(added, probability_of_inclusion(history))


def _gaussian(history: History) -> float | None:
    """mu of the one Gaussian mechanism that steps without sampling amount to; None with sampling."""
    if any(segment.sample_rate < 1 for segment in history):
        return None
    return math.sqrt(sum(segment.steps / segment.noise_multiplier**2 for segment in history))


def _single_step(history: History) -> Segment | None:
    return history[0] if len(history) == 1 and history[0].steps == 1 else None
