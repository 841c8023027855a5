"""The closed forms against the same formulas at sixty digits, and against numerical integration of the densities."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from hbdp_fed.privacy.gaussian import gaussian_delta, gaussian_epsilon, sampled_delta, sampled_epsilon

DISTANCES = [1e-3, 0.03, 0.5, 1.0, 4.0, 30.0, 1e3, 1e5, 4e7]


def reference_delta(epsilon: mpmath.mpf, mu: mpmath.mpf) -> mpmath.mpf:
    """Balle and Wang 2018, theorem 8."""
    return mpmath.ncdf(mu / 2 - epsilon / mu) - mpmath.exp(epsilon) * mpmath.ncdf(-mu / 2 - epsilon / mu)


def reference_epsilon(delta: float, mu: float) -> float:
    """By bisection at sixty digits; 0 where any epsilon will do."""
    with mpmath.workdps(60):
        distance = mpmath.mpf(mu)
        low, high = mpmath.mpf(0), distance**2 / 2 + 60 * distance
        if reference_delta(low, distance) <= delta:
            return 0.0
        for _ in range(120):
            middle = (low + high) / 2
            low, high = (middle, high) if reference_delta(middle, distance) > delta else (low, middle)
        return float(low)


@pytest.mark.parametrize("mu", DISTANCES)
@pytest.mark.parametrize("delta", [0.1, 1e-5, 8e-7, 1e-12])
def test_epsilon_of_the_gaussian_mechanism_is_exact_to_nine_digits(mu: float, delta: float) -> None:
    assert gaussian_epsilon(delta, mu) == pytest.approx(reference_epsilon(delta, mu), rel=1e-9)


@pytest.mark.parametrize("mu", DISTANCES)
def test_delta_of_the_gaussian_mechanism_is_exact_where_epsilon_is_well_conditioned(mu: float) -> None:
    for deviations in (-6.0, -3.0, 0.0, 3.0, 6.0):
        epsilon = max(0.0, mu * (mu / 2 + deviations))
        with mpmath.workdps(60):
            expected = float(reference_delta(mpmath.mpf(epsilon), mpmath.mpf(mu)))
        # A relative rounding error of the argument moves delta by as much as the argument is large.
        rel = 1e-9 + 1e-15 * mu * 10
        assert float(gaussian_delta(epsilon, mu)) == pytest.approx(expected, rel=rel, abs=1e-30)


def test_equal_distributions_are_not_told_apart() -> None:
    assert np.array_equal(gaussian_delta(0.0, [0.0, 0.0]), [0.0, 0.0])


def integrated_delta(epsilon: float, *, sigma: float, q: float, adding: bool) -> float:
    """The hockey-stick divergence of one step by quadrature of the densities over where their ratio is larger."""

    def with_record(y: float) -> float:
        return (1 - q) * norm.pdf(y, 0, sigma) + q * norm.pdf(y, 1, sigma)

    def without(y: float) -> float:
        return float(norm.pdf(y, 0, sigma))

    def log_ratio(y: float) -> float:
        return float(np.logaddexp(math.log1p(-q), math.log(q) + (y - 0.5) / sigma**2))

    def excess(y: float) -> float:
        return (
            without(y) - math.exp(epsilon) * with_record(y)
            if adding
            else with_record(y) - math.exp(epsilon) * without(y)
        )

    low, high = -14 * sigma, 1 + 14 * sigma
    at = -epsilon if adding else epsilon
    if log_ratio(low) >= at:
        crossing = low
    elif log_ratio(high) <= at:
        crossing = high
    else:
        crossing = brentq(lambda y: log_ratio(y) - at, low, high, xtol=1e-15)
    ends = (low, crossing) if adding else (crossing, high)
    cuts = [y for y in (0.0, 1.0) if ends[0] < y < ends[1]]
    value, _ = quad(excess, *ends, points=cuts or None, limit=400, epsabs=1e-15, epsrel=1e-11)
    return max(0.0, float(value))


SINGLE_STEPS = [
    (sigma, q, epsilon)
    for sigma in (0.4, 1.0, 3.0)
    for q in (0.01, 0.25, 0.9)
    for epsilon in (0.0, 0.005, 0.1, 1.0, 3.0)
]


@pytest.mark.parametrize(("sigma", "q", "epsilon"), SINGLE_STEPS)
def test_delta_of_one_sampled_step_is_the_larger_of_both_integrals(sigma: float, q: float, epsilon: float) -> None:
    both = [integrated_delta(epsilon, sigma=sigma, q=q, adding=adding) for adding in (False, True)]
    found = sampled_delta(epsilon, noise_multiplier=sigma, sample_rate=q)
    assert found == pytest.approx(max(both), rel=1e-8, abs=1e-13)


@pytest.mark.parametrize("sigma", [1e-4, 0.05, 0.4, 1.0, 3.0, 50.0])
@pytest.mark.parametrize("q", [0.001, 0.25, 0.9, 1.0])
@pytest.mark.parametrize("delta", [1e-2, 1e-5, 8e-7])
def test_epsilon_of_one_sampled_step_inverts_its_delta(sigma: float, q: float, delta: float) -> None:
    epsilon = sampled_epsilon(delta, noise_multiplier=sigma, sample_rate=q)
    at_zero = sampled_delta(0.0, noise_multiplier=sigma, sample_rate=q)
    if epsilon == 0:
        assert at_zero <= delta * (1 + 1e-9)
    else:
        near = [sampled_delta(epsilon * f, noise_multiplier=sigma, sample_rate=q) for f in (1 + 1e-9, 1 - 1e-9)]
        assert near[0] <= delta <= near[1]
