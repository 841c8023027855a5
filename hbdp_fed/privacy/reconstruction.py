"""How likely an adversary is to reconstruct a record: bounds for the worst case and for the relaxed threat model.

Reconstruction robustness (Balle, Cherubin and Hayes 2022, arXiv 2201.04845): an adversary who would name the right
record with probability ``prior`` without having seen anything released succeeds, having seen it, at most with the power
at level ``prior`` of the most powerful test between the two worlds, with the record and without (Hayes, Mahloujifar
and Balle 2023, arXiv 2302.07225, corollary 3; Kaissis et al. 2023, arXiv 2307.03928). What is tested is:

===================== ============================================ ==============================================
bound                 the adversary                                the two worlds
===================== ============================================ ==============================================
``worst_case``        knows every candidate, and so the direction  T steps of N(0, s^2) against (1-q) N(0, s^2) +
                      in which the record moves a gradient         q N(1, s^2)
``relaxed_coherent``  does not know the direction, which is the    the same, against an even mixture of that and
                      same in all steps                            its mirror image: one sign for all T steps
``relaxed_paper``     forgets the direction at every step, as in   T steps of chi^2(1) against a mixture of it with
                      Ziller et al. 2024                           a noncentral chi^2(1)
===================== ============================================ ==============================================

``relaxed_paper`` is a reference, not a bound: an adversary who keeps one unknown direction over all steps does better.

Every function tends to ``prior`` as noise grows, and to 1 - (1-q)^T (1 - prior) as it vanishes: a record that was never
drawn stays hidden. Every function is monotone in sigma up to a relative 5e-4, ``relaxed_coherent`` with sampling up to
its distance from the truth, which :func:`relaxed_coherent_interval` states.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from hbdp_fed.privacy.discretised import Bounds, PowerBounds, power_bounds, tail_bound
from hbdp_fed.privacy.history import History, Segment, check_mechanism, merged, probability_of_inclusion
from hbdp_fed.privacy.steps import Pair

TOLERANCE = 5e-4
"""How far apart, relatively, the bounds of a power may be before a finer grid is tried."""

_LEAST_NOISE = 1e-150


def worst_case(*, prior: float, noise_multiplier: float, sample_rate: float, steps: int) -> float:
    """The largest probability of reconstruction by an adversary who holds a set of candidates with the record in it.

    Args:
        prior: kappa in (0, 1), the probability of naming the record without the release: 1/K for K equally likely ones.
        noise_multiplier: sigma, at least 0.
        sample_rate: q in (0, 1].
        steps: T, at least 1.

    Returns:
        An upper bound in [prior, 1], exact for q = 1 and within a relative 5e-4 of a lower bound otherwise.

    Raises:
        ValueError: naming the argument that is out of its range.
    """
    return _power(Pair.REMOVE, prior, noise_multiplier, sample_rate, steps).upper


def history_worst_case(history: Iterable[Segment], *, prior: float) -> float:
    """As :func:`worst_case`, of a history of segments: of a record that two hospitals hold, for what both release.

    Args:
        history: Any exposure.
        prior: As there.

    Returns:
        An upper bound in [prior, 1].

    Raises:
        ValueError: if ``prior`` is out of its range.
    """
    _check_prior(prior)
    exposure = merged(history)
    noisy = tuple(segment for segment in exposure if segment.noise_multiplier >= _LEAST_NOISE)
    seen = probability_of_inclusion(tuple(segment for segment in exposure if segment not in noisy))
    # Whoever saw the record without noise knows; whoever did not has what the others say.
    return seen + (1 - seen) * (_power_of(Pair.REMOVE, prior, noisy).upper if noisy else prior)


def relaxed_paper(*, prior: float, noise_multiplier: float, sample_rate: float, steps: int) -> float:
    """The formula of Ziller et al. (2024) for an adversary without candidates: a reference, not a bound for T > 1.

    Args and errors are those of :func:`worst_case`.
    """
    return _power(Pair.FOLDED, prior, noise_multiplier, sample_rate, steps).upper


def relaxed_coherent(*, prior: float, noise_multiplier: float, sample_rate: float, steps: int) -> float:
    """The largest probability of reconstruction by an adversary who does not know the record's direction.

    For q = 1 the best test rejects for a large |sum of the observations|, and the bound is its power, exactly. With
    sampling that test is no longer the best: single steps stand out before the sum does. The best one rejects for a
    large (e^A + e^B)/2, where A and B are the privacy losses of either sign. Its power at level kappa is the least over
    gamma of gamma kappa + E_Q[((e^A + e^B)/2 - gamma)+], and since (x + y - 2 gamma)+ <= (x - 2 gamma)+ +
    (y - 2 gamma)+ + min(x, y) 1{x + y > 2 gamma}, it is at most

        the power of the test that knows the sign, at level kappa/2, plus P(B > log gamma | the sign is A's):

    half the level for either sign, and the chance of being right about the record with the sign wrong. The last term
    is computed like the others. Knowing the sign can only help, and so can leaving out the sampling: the bound is the
    least of the three.

    Args and errors are those of :func:`worst_case`.
    """
    return relaxed_coherent_interval(
        prior=prior, noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps
    )[1]


def worst_case_interval(*, prior: float, noise_multiplier: float, sample_rate: float, steps: int) -> Bounds:
    """:func:`worst_case`, and below it the power of a test that an adversary can carry out."""
    found = _power(Pair.REMOVE, prior, noise_multiplier, sample_rate, steps)
    return found.lower, found.upper


@lru_cache(maxsize=1024)
def relaxed_coherent_interval(*, prior: float, noise_multiplier: float, sample_rate: float, steps: int) -> Bounds:
    """:func:`relaxed_coherent`, and below it the best of two tests that such an adversary can carry out.

    They are the test on |sum of the observations|, and the one that knows the sign, at level prior/2, done twice.
    """
    _check(prior, noise_multiplier, sample_rate, steps)
    segment = Segment(noise_multiplier, sample_rate, steps)
    if noise_multiplier < _LEAST_NOISE:
        return (_without_noise(prior, segment),) * 2
    of_sum = _power_of_sum(prior, segment)
    if sample_rate == 1:
        return of_sum, of_sum
    known = _power(Pair.REMOVE, prior, noise_multiplier, sample_rate, steps)
    halved = _power(Pair.REMOVE, prior / 2, noise_multiplier, sample_rate, steps)
    # A step without sampling becomes one with it by replacing its output with noise now and then: it shows no less.
    unsampled = _power_of_sum(prior, Segment(noise_multiplier, 1.0, steps))
    upper = max(prior, min(known.upper, unsampled, halved.upper + _wrong_sign(segment, halved.threshold)))
    return min(max(of_sum, halved.lower, prior), upper), upper


@lru_cache(maxsize=4096)
def _power(pair: Pair, prior: float, noise_multiplier: float, sample_rate: float, steps: int) -> PowerBounds:
    _check(prior, noise_multiplier, sample_rate, steps)
    segment = Segment(noise_multiplier, sample_rate, steps)
    if noise_multiplier < _LEAST_NOISE:
        most = _without_noise(prior, segment)
        return PowerBounds(most, most, -math.inf)
    return _power_of(pair, prior, (segment,))


def _power_of(pair: Pair, prior: float, history: History) -> PowerBounds:
    """Of a history with noise in all of its segments, at least one."""
    # Only a record that was drawn can be told from one that was not.
    most = _without_noise(prior, *history)
    if pair is Pair.REMOVE and all(segment.sample_rate == 1 for segment in history):
        # One Gaussian mechanism, whose 1/sigma^2 is the sum of those of all steps.
        shift = math.hypot(*(math.sqrt(segment.steps) / segment.noise_multiplier for segment in history))
        value = float(ndtr(shift + ndtri(prior)))
        return PowerBounds(value, value, -math.inf)
    nearly = prior + _largest_gain(prior, history, pair)
    if nearly <= prior * (1 + TOLERANCE):
        return PowerBounds(prior, min(nearly, most), -math.inf)
    found = power_bounds(history, pair, level=prior, tolerance=TOLERANCE)
    upper = min(found.upper, nearly, most)
    # The threshold belongs to the bound that was found with it, and to no smaller one.
    return PowerBounds(min(found.lower, most), upper, found.threshold if upper == found.upper else -math.inf)


def _largest_gain(prior: float, history: History, pair: Pair) -> float:
    """sqrt(chi^2(P || Q) prior (1 - prior)), a bound on P(S) - Q(S) for Q(S) = prior; close where noise is large.

    It is the Cauchy-Schwarz inequality for E_Q[(dP/dQ - 1)(1_S - prior)]. One step has chi^2 = q^2 (e^(1/sigma^2) - 1),
    or q^2 (cosh(1/sigma^2) - 1) for the folded pair, and 1 + chi^2 multiplies over steps.
    """
    log_total = 0.0
    for segment in history:
        exponent = segment.noise_multiplier**-2
        if exponent > 1:
            return 1.0
        one = math.expm1(exponent) if pair is Pair.REMOVE else 2 * math.sinh(exponent / 2) ** 2
        log_total += segment.steps * math.log1p(segment.sample_rate**2 * one)
    return math.sqrt(math.expm1(min(log_total, 1.0)) * prior * (1 - prior)) if log_total < 1 else 1.0


def _without_noise(prior: float, *history: Segment) -> float:
    included = probability_of_inclusion(history)
    return included + (1 - included) * prior


def _power_of_sum(prior: float, segment: Segment) -> float:
    """The power of the test that rejects for a large |sum|, averaged over K ~ Binomial(T, q) participations."""
    scale = math.sqrt(segment.steps)
    count = binom(segment.steps, segment.sample_rate)
    k = np.arange(int(count.ppf(1e-14)), int(count.isf(1e-14)) + 1)
    shift = k / (segment.noise_multiplier * scale)
    threshold = -ndtri(prior / 2)
    power = ndtr(shift - threshold) + ndtr(-shift - threshold)
    return float(np.clip(count.pmf(k) @ power, prior, 1.0))


def _wrong_sign(segment: Segment, threshold: float) -> float:
    """A bound on P(B > log gamma), B the privacy loss of the wrong sign.

    The two terms of :func:`relaxed_coherent` add up to a bound at every gamma. The first one is the power of the test
    that knows the sign where 2 gamma is the likelihood ratio at that test's threshold.
    """
    if not math.isfinite(threshold):
        return 1.0
    return tail_bound((segment,), Pair.MIRRORED, loss=threshold - math.log(2))


def _check(prior: float, noise_multiplier: float, sample_rate: float, steps: int) -> None:
    _check_prior(prior)
    check_mechanism(noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps)


def _check_prior(prior: float) -> None:
    if not 0 < prior < 1:
        raise ValueError(f"prior must lie strictly between 0 and 1, got {prior}")
