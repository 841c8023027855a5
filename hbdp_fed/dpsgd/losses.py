"""The loss of each record, which DP-SGD differentiates."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

RecordLoss = Callable[[Tensor, Tensor], Tensor]
"""Maps outputs (n, ...) and labels (n, ...) to the loss of each row, (n,). It may not mix rows."""


def record_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each row, (n,): of its one label, or the mean over its pixels or voxels.

    Args:
        logits: (n, K) for classification, (n, K, *spatial) for segmentation.
        labels: int64 (n,) or (n, *spatial).
    """
    losses = functional.cross_entropy(logits, labels, reduction="none")
    return losses if losses.dim() == 1 else losses.flatten(start_dim=1).mean(dim=1)
