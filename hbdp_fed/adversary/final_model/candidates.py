"""Many candidates for few records: those that show the same become one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def merged(images: Tensor, multipliers: Tensor, *, alike: float) -> tuple[Tensor, Tensor]:
    """Candidates without repetitions, the largest multiplier first.

    As Haim et al. 2022 do, candidates of the same record are averaged, here by their multipliers: a record may be
    explained by several images with its own multiplier shared among them.

    Args:
        images: float (M, C, *spatial), M at least 1.
        multipliers: float (M,), positive.
        alike: From which correlation on, of their deviations from the mean candidate, two show the same record.

    Returns:
        The means (m, C, *spatial) with m at most M, and the sums of their multipliers (m,), descending.
    """
    flat = images.flatten(start_dim=1)
    directions = functional.normalize(flat - flat.mean(dim=0), dim=1)
    same = directions @ directions.T >= alike
    free = torch.ones(len(images), dtype=torch.bool)
    means, sums = [], []
    for index in multipliers.argsort(descending=True).tolist():
        if not free[index]:
            continue
        members = same[index] & free
        members[index] = True  # a candidate at the mean has no direction, and is still itself
        free &= ~members
        share = multipliers[members]
        means.append((share @ flat[members] / share.sum()).reshape(images.shape[1:]))
        sums.append(share.sum())
    order = torch.stack(sums).argsort(descending=True)
    return torch.stack(means)[order], torch.stack(sums)[order]
