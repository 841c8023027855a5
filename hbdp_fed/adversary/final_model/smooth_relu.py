"""ReLUs whose derivative is smooth, so that images can be moved by the gradient of a gradient."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class _SmoothlyDifferentiated(torch.autograd.Function):
    """max(v, 0), whose derivative is taken for sigmoid(slope v) in place of the step [v > 0]."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(values)
        ctx.slope = slope
        return values.clamp(min=0.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (values,) = ctx.saved_tensors
        return gradients[0] * torch.sigmoid(ctx.slope * values), None


class SmoothReLU(nn.Module):
    """A ReLU as Haim et al. 2022 (arXiv 2206.07758, section 5.2) differentiate it.

    The gradient of a ReLU net with respect to its weights depends on an image through the steps [v > 0], which are flat
    nearly everywhere: how an image has to change for a unit to switch on is in none of their derivatives. Outputs stay
    those of a ReLU, and only derivatives change.

    Args:
        slope: How steep the sigmoid is, positive; at infinity it would be the step.
    """

    def __init__(self, slope: float) -> None:
        super().__init__()
        if not slope > 0:
            raise ValueError(f"slope must be positive, got {slope}")
        self.slope = slope

    def forward(self, values: Tensor) -> Tensor:
        """max(values, 0), of any shape."""
        result: Tensor = _SmoothlyDifferentiated.apply(values, self.slope)  # type: ignore[no-untyped-call]
        return result


def with_smooth_relus(model: nn.Module, slope: float) -> nn.Module:
    """A copy of ``model`` in which every ``nn.ReLU`` is a :class:`SmoothReLU`; ``model`` stays as it is."""
    if isinstance(model, nn.ReLU):
        return SmoothReLU(slope)
    found = copy.deepcopy(model)
    for parent in list(found.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(parent, name, SmoothReLU(slope))
    return found
