"""Closed forms: the Gaussian mechanism, and one step of it on a Poisson sample.

``mu`` is the distance between the two outputs in standard deviations: 1/sigma for one step, sqrt(T)/sigma for T steps
without sampling (their sum is a sufficient statistic).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import erfcx, ndtr

_LARGEST_EXPONENT = 700.0
_INVERSE_SQRT_2PI = 1 / math.sqrt(2 * math.pi)


def gaussian_delta(epsilon: float, mu: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The hockey-stick divergence of N(mu, 1) from N(0, 1) at e^epsilon: the smallest delta of the Gaussian mechanism.

    Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu) (Balle and Wang 2018, arXiv 1805.06530, theorem 8): the
    privacy loss is normal with mean mu^2/2 and standard deviation mu.

    Args:
        epsilon: Any finite number.
        mu: Not negative, any shape; 0 stands for equal distributions.

    Returns:
        delta in [0, 1], in the shape of ``mu``.
    """
    mu = np.asarray(mu, dtype=np.float64)
    return delta_of_normal_loss(epsilon, mu * mu / 2, mu)


def delta_of_normal_loss(
    epsilon: float, mean: npt.NDArray[np.float64], std: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """E[(1 - e^(epsilon - L))+] for a normal privacy loss L, without overflow or cancellation at epsilon 1e15.

    With a = (mean - epsilon)/std it is Phi(a) - e^(epsilon - mean + std^2/2) Phi(a - std), and the second term is
    phi(a) times Mills' ratio at std - a.

    Args:
        epsilon: Any finite number.
        mean: float64, any shape.
        std: float64, the same shape, not negative; 0 stands for a constant loss.
    """
    safe = np.where(std > 0, std, 1.0)
    a = (mean - epsilon) / safe
    density = np.exp(-a * a / 2) * _INVERSE_SQRT_2PI
    # Mills' ratio overflows far on the left; there the density times it is the plain product.
    right = safe - a
    with np.errstate(over="ignore"):
        plain = np.exp(np.minimum(epsilon - mean + safe * safe / 2, 0.0)) * ndtr(-right)
    taken = np.where(right > 0, density * _mills_ratio(np.maximum(right, 0.0)), plain)
    # The lower tail by Mills' ratio too, so that its difference from the other term keeps its relative precision.
    tail = np.where(a < 0, density * _mills_ratio(np.maximum(-a, 0.0)), ndtr(a))
    constant = -np.expm1(np.minimum(epsilon - mean, 0.0))
    return np.asarray(np.where(std > 0, np.clip(tail - taken, 0.0, 1.0), constant), dtype=np.float64)


def _mills_ratio(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Phi(-x) / phi(x) for x >= 0."""
    return np.asarray(math.sqrt(math.pi / 2) * erfcx(x / math.sqrt(2)), dtype=np.float64)


def gaussian_epsilon(delta: float, mu: float) -> float:
    """The inverse of :func:`gaussian_delta` in epsilon, at least 0: exact for steps that take every record.

    Args:
        delta: in (0, 1).
        mu: Positive and finite.
    """
    if gaussian_delta(0.0, mu) <= delta:
        return 0.0
    # Solved for z = mu/2 - epsilon/mu, of which delta is a tame function: epsilon = mu^2/2 - mu z.
    largest = mu / 2

    def excess(z: float) -> float:
        return math.log(max(float(gaussian_delta(mu * (mu / 2 - z), mu)), 1e-320)) - math.log(delta)

    lowest = min(largest, 0.0) - 1.0
    while excess(lowest) > 0:
        lowest *= 2
    z = float(brentq(excess, lowest, largest, xtol=1e-15, rtol=1e-15))
    return max(0.0, mu * (mu / 2 - z))


def sampled_delta(epsilon: float, *, noise_multiplier: float, sample_rate: float) -> float:
    """delta of one step on a Poisson sample, exactly, under add and remove of one record.

    Removing a record compares (1-q) N(0) + q N(1) with N(0): q times the Gaussian divergence at the larger epsilon'
    = log(1 + (e^epsilon - 1)/q) (amplification by sampling, Balle, Barthe and Gaboardi 2018, arXiv 1807.01647).
    Adding one compares N(0) with the mixture: (1 - e^epsilon (1-q)) times the Gaussian divergence at the
    t = e^epsilon q / (1 - e^epsilon (1-q)), and 0 where that factor is not positive.

    Args:
        epsilon: At least 0.
        noise_multiplier: sigma, positive.
        sample_rate: q in (0, 1].
    """
    q, mu = sample_rate, 1 / noise_multiplier
    removed = q * float(gaussian_delta(_log1p_expm1_over(epsilon, q), mu))
    return max(removed, _added_delta(epsilon, mu, q))


def sampled_epsilon(delta: float, *, noise_multiplier: float, sample_rate: float) -> float:
    """The inverse of :func:`sampled_delta` in epsilon, at least 0.

    Args:
        delta: in (0, 1).
        noise_multiplier: sigma, positive.
        sample_rate: q in (0, 1].
    """
    q, mu = sample_rate, 1 / noise_multiplier
    removing = 0.0
    if delta < q:
        inner = gaussian_epsilon(delta / q, mu)
        removing = math.log1p(q * math.expm1(inner)) if inner < _LARGEST_EXPONENT else inner + math.log(q)
    if _added_delta(removing, mu, q) <= delta:
        return removing
    most = math.inf if q == 1 else -math.log1p(-q)
    if math.isinf(most):
        return removing  # without sampling both directions are the same Gaussian pair
    return float(brentq(lambda value: _added_delta(value, mu, q) - delta, removing, most, xtol=1e-15, rtol=1e-14))


def _added_delta(epsilon: float, mu: float, q: float) -> float:
    inside = math.expm1(-epsilon) / q
    if inside <= -1:
        return 0.0
    # The factor is e^epsilon q (1 + inside) and t is 1/(1 + inside).
    factor = math.exp(min(epsilon + math.log(q) + math.log1p(inside), 0.0))
    return factor * float(gaussian_delta(-math.log1p(inside), mu))


def _log1p_expm1_over(epsilon: float, q: float) -> float:
    """log(1 + (e^epsilon - 1)/q) without overflow."""
    if epsilon < _LARGEST_EXPONENT:
        return math.log1p(math.expm1(epsilon) / q)
    return epsilon - math.log(q)
