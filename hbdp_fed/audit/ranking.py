"""How sure an area under the receiver operating characteristic is."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score
from torch import Tensor

_ENDS = 1e-9


def auc_with_interval(scores: Tensor, positive: Tensor) -> tuple[float, tuple[float, float]]:
    """The area under the curve and a 95% interval.

    The area is Mann's and Whitney's: the probability that a positive scores higher than a negative, ties counting half.
    The interval is Newcombe's (Statistics in Medicine 25, 559-573, 2006, method 5): the areas A whose distance from the
    one that was found is at most 1.96 standard deviations under A itself, with the variance of Hanley and McNeil
    (Radiology 143, 29-36, 1982) for two equally large groups,

        A (1 - A) (1 + (N - 1) ((1 - A) / (2 - A) + A / (1 + A))) / (n_1 n_0),   N = (n_1 + n_0) / 2.

    As Wilson's interval for a proportion it has a width at 0 and 1, too.

    Args:
        scores: float (N,), finite.
        positive: bool (N,), of which at least one is, and one is not.

    Raises:
        ValueError: if one of the two kinds is missing.
    """
    many, few = int(positive.sum()), int((~positive).sum())
    if not many or not few:
        raise ValueError("an area under the curve needs positives and negatives")
    area = float(roc_auc_score(positive.numpy(), scores.double().numpy()))
    z = NormalDist().inv_cdf(0.975)

    def beyond(other: float) -> float:
        return abs(area - other) - z * float(np.sqrt(_variance(other, many, few)))

    # Under an area of 0 or 1 there is no variance, so that these two are roots themselves; the other end is wanted.
    inside = min(max(area, _ENDS), 1 - _ENDS)
    low = 0.0 if area == 0 else float(brentq(beyond, 0.0, inside))
    high = 1.0 if area == 1 else float(brentq(beyond, inside, 1.0))
    return area, (low, high)


def _variance(area: float, many: int, few: int) -> float:
    pairs = (many + few) / 2 - 1
    spread = 1 + pairs * ((1 - area) / (2 - area) + area / (1 + area))
    return area * (1 - area) * spread / (many * few)
