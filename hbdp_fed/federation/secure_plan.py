"""What a secure sum announces before anybody trains: the grid, and what the grid leaves of the noise."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hbdp_fed.federation.secure_sum import FixedPoint
from hbdp_fed.types import HospitalPlan

FEWEST = 3
"""Of the sum of two, each hospital could take its own update and would know the other's."""


def grid_for(norms: Mapping[str, float], shares: Mapping[str, float]) -> FixedPoint:
    """The grid of one round. It depends on nothing that is private.

    Args:
        norms: By hospital that is asked, how long its update can be; finite.
        shares: Its weight in the mean.

    Raises:
        ValueError: if an update can be of any length.
    """
    return FixedPoint(bound=max(norms[name] * shares[name] for name in norms), summands=len(norms))


def noise_in_steps(grid: FixedPoint, plan: HospitalPlan, *, share: float, learning_rate: float) -> float:
    """A hospital's noise in a coordinate of its weighted update, in steps of the grid; NaN without noise.

    The noise is that of one step of plain SGD. An update of several steps has more, and the Adam family has no such
    figure: it stretches the noise where the gradient is small and shrinks it where it is large.

    Args:
        grid: What the weighted update is rounded to.
        plan: The hospital's.
        share: Its weight in the mean.
        learning_rate: The smallest one in force.
    """
    mechanism = plan.mechanism
    if mechanism.noise_multiplier == 0:
        return math.nan
    std = learning_rate * mechanism.noise_multiplier * mechanism.max_grad_norm / plan.expected_batch
    return grid.noise_to_step(share * std)
