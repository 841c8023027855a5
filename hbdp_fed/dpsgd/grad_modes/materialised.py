"""Clipping where every record's gradient lies in memory: the textbook way, and the memory of batch x weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hbdp_fed.dpsgd.clipping import PartSum, clip_factors


@torch.no_grad()
def clip_and_sum(gradients: Mapping[str, Tensor], *, max_grad_norm: float, multiplicity: int, loss: Tensor) -> PartSum:
    """Sum per-row gradients (u * R, *shape) by parameter name, clipped unit by unit.

    Args:
        gradients: Of the loss as it was divided by R, so that a unit's gradient is the sum over its rows.
        max_grad_norm: C.
        multiplicity: R, the rows of a unit: the views of a record, or of all records of a patient.
        loss: Scalar, passed on.
    """
    by_record = {
        name: g if multiplicity == 1 else g.unflatten(0, (-1, multiplicity)).sum(dim=1) for name, g in gradients.items()
    }
    norms = torch.stack([g.flatten(start_dim=1).norm(dim=1) for g in by_record.values()]).norm(dim=0)
    factors = clip_factors(norms, max_grad_norm)
    # 0 times inf is nan: a record whose gradient overflowed has to be emptied, not only weighted with zero.
    if not bool(torch.isfinite(norms).all()):
        by_record = {name: g.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for name, g in by_record.items()}
    sums = {name: torch.einsum("n,n...->...", factors, g) for name, g in by_record.items()}
    return PartSum(sums=sums, norms=norms, loss=loss)
