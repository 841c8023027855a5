"""Which reconstruction is of which record."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


@dataclass(frozen=True)
class Matching:
    """K = min(M, N) pairs, in the order of the records.

    Attributes:
        reconstructions: int64 (K,), rows of the similarity.
        records: int64 (K,), columns of the similarity, ascending.
    """

    reconstructions: Tensor
    records: Tensor


def match(similarity: Tensor) -> Matching:
    """The one-to-one matching with the largest total similarity (Kuhn 1955).

    One-to-one, so that a single image cannot be counted as the reconstruction of several patients.

    Args:
        similarity: (M, N) of M reconstructions with N records, finite; either may be 0.
    """
    rows, columns = linear_sum_assignment(similarity.double().numpy(), maximize=True)
    order = columns.argsort()
    return Matching(
        reconstructions=torch.as_tensor(rows[order], dtype=torch.int64),
        records=torch.as_tensor(columns[order], dtype=torch.int64),
    )
