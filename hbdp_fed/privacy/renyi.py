"""The accountant by Renyi differential privacy: Opacus' own, with its default orders.

Ziller et al. (2024) calibrated with it, so that a budget means here what it means there. Above about 1e3 the best order
is pinned at the smallest one, 1.1, and the epsilon reported is a valid upper bound that lies far above the truth: two
mechanisms compared under it are compared fairly, but "1e12" is a name, not a measurement.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import numpy.typing as npt
from opacus.accountants import RDPAccountant
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

from hbdp_fed.privacy.history import History

ORDERS: tuple[float, ...] = tuple(float(order) for order in RDPAccountant.DEFAULT_ALPHAS)
"""The Renyi orders over which the bound is minimised: Opacus' default ones, 1.1 to 63."""

Array = npt.NDArray[np.float64]

_ROUNDING = 1e-6


def renyi_divergence(history: History) -> Array:
    """The Renyi divergence of a history at every order of :data:`ORDERS` (Mironov et al. 2019, arXiv 1908.10530).

    Returns:
        float64 (len(ORDERS),); ``inf`` throughout where a step has no noise.
    """
    total = np.zeros(len(ORDERS))
    for segment in history:
        if segment.noise_multiplier == 0:
            return np.full(len(ORDERS), math.inf)
        total += compute_rdp(
            q=segment.sample_rate, noise_multiplier=segment.noise_multiplier, steps=segment.steps, orders=list(ORDERS)
        )
    return total


def epsilon_by_renyi(history: History, *, delta: float) -> float:
    """``epsilon_of_renyi(renyi_divergence(history), delta=delta)``, to the last bit, from about ten of the orders.

    Epsilon is the least over the orders a of D(a) + c(a), with the divergence D, which is what takes the time, and a
    cheap c. D never falls with the order (van Erven and Harremoes 2014, theorem 3, arXiv 1206.2459), so that from one
    order the sum at every higher one has a lower bound. Orders are evaluated, always the middle one of those that are
    left, until what is not evaluated cannot be the least.
    """
    if any(segment.noise_multiplier == 0 for segment in history):
        return math.inf
    orders = np.asarray(ORDERS)
    cheap = np.log((orders - 1) / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    found: dict[int, float] = {}
    floor = np.zeros(len(ORDERS))
    least = math.inf
    left = np.arange(len(ORDERS))
    place = 0
    while True:
        divergence = found[place] = _divergence_at(history, ORDERS[place])
        if not math.isnan(divergence):
            # A little below, for the rounding of series that were cut off.
            np.maximum(floor[place:], divergence * (1 - _ROUNDING), out=floor[place:])
            least = min(least, divergence + cheap[place])
        left = left[(left != place) & ~(floor[left] + cheap[left] > least)]
        if not len(left):
            break
        # In the middle: its divergence rules out what lies far above, and so on down to the neighbours of the best.
        place = int(left[len(left) // 2])
    places = sorted(found)
    return _least_epsilon([ORDERS[place] for place in places], np.array([found[p] for p in places]), delta)


def _divergence_at(history: History, order: float) -> float:
    total = np.float64(0.0)
    for segment in history:
        total += compute_rdp(
            q=segment.sample_rate, noise_multiplier=segment.noise_multiplier, steps=segment.steps, orders=order
        )
    return float(total)


def epsilon_of_renyi(divergence: Array, *, delta: float) -> float:
    """Epsilon from the divergences, minimised over the orders (Balle et al. 2020, arXiv 1905.09982, theorem 21).

    Of no divergence at all it leaves a positive epsilon, the floor below which these orders cannot go.
    """
    return _least_epsilon(list(ORDERS), divergence, delta)


def _least_epsilon(orders: list[float], divergence: Array, delta: float) -> float:
    if np.isinf(divergence).all():
        return math.inf
    with warnings.catch_warnings():
        # Opacus warns that the best order is the first or last one: at these budgets that is always so, and documented.
        warnings.simplefilter("ignore")
        value, _ = get_privacy_spent(orders=orders, rdp=divergence, delta=delta)
    return max(0.0, float(value))


def delta_of_renyi(divergence: Array, *, epsilon: float) -> float:
    """The same theorem solved for delta, at most 1."""
    orders = np.asarray(ORDERS)
    log_delta = (orders - 1) * (divergence - epsilon + np.log1p(-1 / orders)) - np.log(orders)
    return float(math.exp(min(0.0, float(log_delta.min()))))
