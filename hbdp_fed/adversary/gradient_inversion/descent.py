"""Ways down: from a start, to where the cost is lower."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

Cost = Callable[[Tensor], Tensor]
"""Maps coordinates, float64 (r, D), to a scalar that is to become small, differentiable."""

_DECAY_AT = (0.375, 0.625, 0.875)
"""After which shares of the iterations Adam's steps become ten times shorter, as in the code of Geiping et al. 2020."""

_HISTORY = 50
"""Steps by which L-BFGS knows the curvature."""


@dataclass(frozen=True)
class Pace:
    """How far to go.

    Attributes:
        iterations: At most so many steps, at least 1.
        learning_rate: Length of Adam's first steps, in the coordinates' units. L-BFGS has no use for it.
    """

    iterations: int
    learning_rate: float


Descent = Callable[[Cost, Tensor, Pace], Tensor]
"""Maps a cost, a start (float64) and a pace to where the descent ended. Never NaN: it stops before."""


def adam(cost: Cost, start: Tensor, pace: Pace, *, signed: bool = False) -> Tensor:
    """Adam (Kingma and Ba 2015); the best point on the way, for the last one may be just beyond a jump.

    Args:
        cost: What to lower.
        start: Where to begin.
        pace: How far to go.
        signed: Whether only the sign of the gradient counts, as Geiping et al. 2020 have it.
    """
    values = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([values], lr=pace.learning_rate)
    decay = torch.optim.lr_scheduler.MultiStepLR(
        optimizer, milestones=[math.ceil(share * pace.iterations) for share in _DECAY_AT], gamma=0.1
    )
    best, least = start.clone(), math.inf
    for _ in range(pace.iterations):
        value, slope = _value_and_slope(cost, values)
        if not _finite(value, slope):
            break
        if value < least:
            best, least = values.detach().clone(), value
        values.grad = slope.sign() if signed else slope
        optimizer.step()
        decay.step()
    return best


def signed_adam(cost: Cost, start: Tensor, pace: Pace) -> Tensor:
    """:func:`adam` by the signs of the gradient."""
    return adam(cost, start, pace, signed=True)


def lbfgs(cost: Cost, start: Tensor, pace: Pace) -> Tensor:
    """L-BFGS (Liu and Nocedal 1989), SciPy's; the best point on the way."""
    best, least = start.clone(), math.inf

    def value_and_slope(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        nonlocal best, least
        values = torch.from_numpy(flat).view(start.shape).to(start.device).requires_grad_()
        value, slope = _value_and_slope(cost, values)
        if not _finite(value, slope):
            # A wall, which the line search turns back from.
            return least if math.isfinite(least) else 0.0, np.zeros_like(flat)
        if value < least:
            best, least = values.detach().clone(), value
        return value, slope.flatten().cpu().numpy()

    minimize(
        value_and_slope,
        start.flatten().cpu().numpy(),
        jac=True,
        method="L-BFGS-B",
        # It ends where it gets no further and not where it gets further slowly.
        options={
            "maxiter": pace.iterations,
            "maxfun": 2 * pace.iterations,
            "maxcor": _HISTORY,
            "ftol": 0.0,
            "gtol": 0.0,
        },
    )
    return best


DESCENTS: Mapping[str, Descent] = {"signed_adam": signed_adam, "adam": adam, "lbfgs": lbfgs}
"""The optimisers by name."""


def _value_and_slope(cost: Cost, values: Tensor) -> tuple[float, Tensor]:
    value = cost(values)
    [slope] = torch.autograd.grad(value, [values])
    return float(value.detach()), slope


def _finite(value: float, slope: Tensor) -> bool:
    return math.isfinite(value) and bool(slope.isfinite().all())
