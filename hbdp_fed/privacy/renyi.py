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


def epsilon_of_renyi(divergence: Array, *, delta: float) -> float:
    """Epsilon from the divergences, minimised over the orders (Balle et al. 2020, arXiv 1905.09982, theorem 21).

    Of no divergence at all it leaves a positive epsilon, the floor below which these orders cannot go.
    """
    if np.isinf(divergence).all():
        return math.inf
    with warnings.catch_warnings():
        # Opacus warns that the best order is the first or last one: at these budgets that is always so, and documented.
        warnings.simplefilter("ignore")
        value, _ = get_privacy_spent(orders=list(ORDERS), rdp=divergence, delta=delta)
    return max(0.0, float(value))


def delta_of_renyi(divergence: Array, *, epsilon: float) -> float:
    """The same theorem solved for delta, at most 1."""
    orders = np.asarray(ORDERS)
    log_delta = (orders - 1) * (divergence - epsilon + np.log1p(-1 / orders)) - np.log(orders)
    return float(math.exp(min(0.0, float(log_delta.min()))))
