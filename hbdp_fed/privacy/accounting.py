"""Epsilon of the Poisson-subsampled Gaussian mechanism by Renyi differential privacy, and its inverse.

The accountant is Opacus' own with its default orders, so that a budget means here what it means in Ziller et al.
(2024). Above about 1e3 the best order is pinned at the smallest one, 1.1, and the epsilon reported is a valid upper
bound that lies far above the truth: two mechanisms compared under it are compared fairly, but "1e12" is a name, not a
measurement.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from opacus.accountants import RDPAccountant
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent
from scipy.optimize import brentq

ORDERS: tuple[float, ...] = tuple(float(order) for order in RDPAccountant.DEFAULT_ALPHAS)
"""The Renyi orders over which the bound is minimised: Opacus' default ones, 1.1 to 63."""

LARGEST_NOISE_MULTIPLIER = 1e6
"""Where calibration stops looking: by then the bound has reached its floor, which the orders' end sets."""


def _rdp_of_one_step(noise_multiplier: float, sample_rate: float) -> npt.NDArray[np.float64]:
    rdp = compute_rdp(q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=list(ORDERS))
    return np.asarray(rdp, dtype=np.float64)


def _epsilon_from_rdp(rdp: npt.NDArray[np.float64], delta: float) -> float:
    with warnings.catch_warnings():
        # Opacus warns that the best order is the first or last one: at these budgets that is always so, and documented.
        warnings.simplefilter("ignore")
        value, _ = get_privacy_spent(orders=list(ORDERS), rdp=rdp, delta=delta)
    return float(value)


def epsilon_schedule(*, noise_multiplier: float, sample_rate: float, delta: float) -> Callable[[int], float]:
    """Epsilon as a function of the steps taken, for one mechanism: what a ledger needs after every round.

    Args:
        noise_multiplier: sigma, at least 0; 0 gives ``inf`` for every positive number of steps.
        sample_rate: q in (0, 1].
        delta: in (0, 1).

    Returns:
        A function from steps (at least 0) to epsilon; 0 steps spend 0.
    """
    _check(noise_multiplier=noise_multiplier, sample_rate=sample_rate, delta=delta)
    rdp = _rdp_of_one_step(noise_multiplier, sample_rate) if noise_multiplier > 0 else None

    def spent(steps: int) -> float:
        if steps < 0:
            raise ValueError(f"steps must not be negative, got {steps}")
        if steps == 0:
            return 0.0
        return math.inf if rdp is None else _epsilon_from_rdp(rdp * steps, delta)

    return spent


def epsilon(*, noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    """Epsilon of ``steps`` compositions of the Poisson-subsampled Gaussian mechanism under add/remove of one record.

    Renyi divergence by Mironov et al. 2019 (arXiv 1908.10530), conversion by Balle et al. 2020 (arXiv 1905.09982,
    theorem 21), minimised over :data:`ORDERS`.

    Args:
        noise_multiplier: sigma, at least 0; 0 gives ``inf``.
        sample_rate: q in (0, 1].
        steps: T, at least 0.
        delta: in (0, 1).

    Raises:
        ValueError: naming the argument that is out of its range.
    """
    return epsilon_schedule(noise_multiplier=noise_multiplier, sample_rate=sample_rate, delta=delta)(steps)


@lru_cache(maxsize=1024)
def calibrate(*, eps: float, delta: float, sample_rate: float, steps: int) -> float:
    """The smallest noise multiplier whose epsilon is at most ``eps`` (to within one part in 1e5 of epsilon).

    Args:
        eps: The budget, positive; ``inf`` gives 0.
        delta: in (0, 1).
        sample_rate: q in (0, 1].
        steps: T, at least 1.

    Returns:
        sigma, with ``0.999 * eps <= epsilon(sigma) <= eps``.

    Raises:
        ValueError: naming the argument out of its range, or stating the floor below which this accountant cannot go.
    """
    if not eps > 0:
        raise ValueError(f"eps must be positive (or inf), got {eps}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    _check(noise_multiplier=0.0, sample_rate=sample_rate, delta=delta)
    if math.isinf(eps):
        return 0.0

    def log_excess(log_sigma: float) -> float:
        sigma = math.exp(log_sigma)
        return math.log(epsilon(noise_multiplier=sigma, sample_rate=sample_rate, steps=steps, delta=delta) / eps)

    floor = epsilon(noise_multiplier=LARGEST_NOISE_MULTIPLIER, sample_rate=sample_rate, steps=steps, delta=delta)
    if eps <= floor:
        raise ValueError(
            f"eps={eps:g} is out of this accountant's reach: at delta={delta:g} its epsilon never falls below "
            f"{floor:.4g}, however large the noise is (the orders end at {ORDERS[-1]:g})"
        )
    # At huge budgets epsilon is T * order / (2 sigma^2) at the smallest order; from that guess a bracket is near, and
    # near brackets matter: an evaluation between sigma 0.5 and 5 takes a hundred times one elsewhere.
    low = high = 0.5 * math.log(steps * ORDERS[0] / (2 * eps))
    while log_excess(low) < 0:
        low -= 1.0
    while log_excess(high) > 0:
        high += 1.0
    log_sigma = low if low == high else float(brentq(log_excess, low, high, xtol=1e-7))
    # The root is found from either side: step to the side that keeps the promise.
    while log_excess(log_sigma) > 0:
        log_sigma += 1e-7
    return math.exp(log_sigma)


def _check(*, noise_multiplier: float, sample_rate: float, delta: float) -> None:
    if not (noise_multiplier >= 0 and math.isfinite(noise_multiplier)):
        raise ValueError(f"noise_multiplier must be finite and not negative, got {noise_multiplier}")
    if not 0 < sample_rate <= 1:
        raise ValueError(f"sample_rate must lie in (0, 1], got {sample_rate}")
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie strictly between 0 and 1, got {delta}")
