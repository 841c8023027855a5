"""The loss of each record, which DP-SGD differentiates, by name.

Every loss takes outputs and labels of n rows and gives n numbers, each from its own row and public constants alone.
Whatever is usual beyond that (dividing by the weights of the batch's labels, the overlap of a whole batch) would let a
record into another's gradient, past its clipping.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from hbdp_fed.errors import SettingError, unknown_choice

RecordLoss = Callable[[Tensor, Tensor], Tensor]
"""Maps outputs (n, ...) and labels (n, ...) to the loss of each row, (n,). It may not mix rows."""

_SMOOTHING = 1.0
"""Pixels or voxels added to both sides of the Dice ratio."""


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Sequence[float] | None = None) -> Tensor:
    """Cross-entropy of each row, (n,): of its one label, or the mean over its pixels or voxels.

    With weights w, a label y counts w[y] times. Nothing is divided by the weights again: the batch's would mix rows.

    Args:
        logits: (n, K) for classification, (n, K, *spatial) for segmentation.
        labels: int64 (n,) or (n, *spatial), in 0 ... K - 1.
        class_weights: w, one a class, public; None weighs all classes 1.

    Raises:
        ValueError: if there are not K weights.
    """
    losses = functional.cross_entropy(logits, labels, weight=_weights_for(logits, class_weights), reduction="none")
    return losses if losses.dim() == 1 else losses.flatten(start_dim=1).mean(dim=1)


def binary_cross_entropy(logits: Tensor, labels: Tensor, class_weights: Sequence[float] | None = None) -> Tensor:
    """Mean over K findings, each present or not whatever the others are, of their binary cross-entropies, (n,).

        loss = -mean over k of (w[k] y[k] log(sigmoid(z[k])) + (1 - y[k]) log(1 - sigmoid(z[k])))

    Args:
        logits: z, (n, K).
        labels: y, int64 (n, K), 0 or 1.
        class_weights: w, one a finding, public: how often its presence counts; None for 1.

    Raises:
        ValueError: if logits and labels are not both (n, K), or there are not K weights.
    """
    if logits.dim() != 2 or labels.shape != logits.shape:
        raise ValueError(
            "binary cross-entropy takes logits and labels of one shape (n, K), got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    return functional.binary_cross_entropy_with_logits(
        logits, labels.to(logits.dtype), pos_weight=_weights_for(logits, class_weights), reduction="none"
    ).mean(dim=1)


def dice_cross_entropy(logits: Tensor, labels: Tensor, class_weights: Sequence[float] | None = None) -> Tensor:
    """A segmentation's :func:`cross_entropy` plus its soft Dice loss, row by row, (n,).

    The Dice loss is that of Milletari et al. 2016 (arXiv 1606.04797) with plain sums in the denominator, and the sum of
    both losses that of Isensee et al. 2021 (doi 10.1038/s41592-020-01008-z). With probabilities p, the indicator g of
    the label and sums over the row's own pixels or voxels,

        dice = mean over classes k > 0 of (2 sum(p[k] g[k]) + s) / (sum(p[k]) + sum(g[k]) + s),    loss = 1 - dice.

    Class 0, the background, is left out: most of an image is background, and its overlap is large whatever the rest
    is. s = 1 keeps the ratio and its gradient finite for a class that a row does not have.

    Args:
        logits: (n, K, *spatial), K at least 2.
        labels: int64 (n, *spatial), in 0 ... K - 1.
        class_weights: Weights of the cross-entropy, one a class, the background too. The Dice loss has none: every
            class counts alike in it, however small it is.

    Raises:
        ValueError: if the logits are not those of a segmentation, or there are not K weights.
    """
    if logits.dim() < 3 or logits.shape[1] < 2:
        raise ValueError(
            "the Dice loss takes logits (n, K, *spatial) of a background and at least one other class, got shape "
            f"{tuple(logits.shape)}"
        )
    return cross_entropy(logits, labels, class_weights) + _soft_dice_loss(logits, labels)


def _soft_dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The Dice part of :func:`dice_cross_entropy`, (n,)."""
    # Own code and not MONAI's: its one-hot labels are written in place, which torch.func's vmap refuses.
    predicted = logits.softmax(dim=1)[:, 1:].flatten(start_dim=2)
    classes = torch.arange(1, logits.shape[1], device=labels.device)
    true = (labels.flatten(start_dim=1).unsqueeze(1) == classes[:, None]).to(predicted.dtype)
    overlap = (predicted * true).sum(dim=2)
    sizes = predicted.sum(dim=2) + true.sum(dim=2)
    return 1 - ((2 * overlap + _SMOOTHING) / (sizes + _SMOOTHING)).mean(dim=1)


def _weights_for(logits: Tensor, class_weights: Sequence[float] | None) -> Tensor | None:
    """The weights in the logits' precision and on their device, once there are as many as classes."""
    if class_weights is None:
        return None
    if len(class_weights) != logits.shape[1]:
        raise ValueError(
            f"training.class_weights has {len(class_weights)} weights, but the model has {logits.shape[1]} outputs"
        )
    # A blocking copy would make the CPU wait for all that the GPU has yet to do.
    return torch.tensor(class_weights, dtype=logits.dtype).to(logits.device, non_blocking=True)


record_losses: RecordLoss = cross_entropy
"""What is trained unless another loss is chosen: cross-entropy, all classes weighted alike."""

LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "binary_cross_entropy": binary_cross_entropy,
    "cross_entropy": cross_entropy,
    "dice_cross_entropy": dice_cross_entropy,
}
"""Losses by name. Each takes outputs, labels and ``class_weights``: a sequence of one weight a class, or None."""


def record_loss(name: str, class_weights: Sequence[float] | None = None) -> RecordLoss:
    """The loss that settings name. It can be pickled.

    Args:
        name: A key of :data:`LOSSES`.
        class_weights: One positive, finite number a class. They have to be public (chosen, or known from elsewhere):
            counting a hospital's labels for them is outside the guarantee. None weighs all classes alike.

    Raises:
        SettingError: if the name is unknown or a weight is not positive and finite. A wrong number of weights is found
            when the loss first sees logits, and is a ValueError there.
    """
    if name not in LOSSES:
        raise unknown_choice("training.loss", name, LOSSES)
    if class_weights is None:
        return LOSSES[name]
    weights = tuple(float(weight) for weight in class_weights)
    if not weights or not all(weight > 0 and math.isfinite(weight) for weight in weights):
        given = ", ".join(f"{weight:g}" for weight in weights)
        raise SettingError("training.class_weights", f"must be positive finite numbers, one a class; got [{given}]")
    return partial(LOSSES[name], class_weights=weights)
