"""The same net with its corners rounded, so that a small change of the image changes its gradient by little.

A weight's gradient jumps wherever a ReLU switches or another pixel becomes the maximum of its pool, and what a search
by derivatives sees between two jumps says nothing of the next one: it gets stuck near its start. With the corners
rounded, the jumps are slopes. The search begins with wide ones and follows the optimum while they narrow (graduated
non-convexity, Blake and Zisserman 1987).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class SmoothReLU(nn.Module):
    """width * log(1 + exp(x / width)), which is within width * log(2) of ReLU everywhere.

    Args:
        width: Positive; the slope goes from 0 to 1 over a few times as much.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        self.width = width

    def forward(self, values: Tensor) -> Tensor:
        """Any shape."""
        return functional.softplus(values, beta=1 / self.width, threshold=40.0)


class SmoothMaxPool(nn.Module):
    """The average of each window, weighted by softmax(values / width), in the place of its maximum.

    Args:
        kernel: The windows' sides; they do not overlap, and what is left over at the far end belongs to none.
        width: Positive.
    """

    def __init__(self, kernel: tuple[int, ...], width: float) -> None:
        super().__init__()
        self.kernel = kernel
        self.width = width

    def forward(self, values: Tensor) -> Tensor:
        """(b, C, *spatial) to (b, C, *pooled)."""
        dims = len(self.kernel)
        for axis, side in enumerate(self.kernel, start=2):
            values = values.narrow(axis, 0, values.shape[axis] // side * side)
        # From the last axis on, so that the earlier ones keep their places.
        for axis, side in reversed(list(enumerate(self.kernel, start=2))):
            values = values.unflatten(axis, (-1, side))
        order = [0, 1, *range(2, 2 + 2 * dims, 2), *range(3, 3 + 2 * dims, 2)]
        return _soft_maximum(values.permute(order).flatten(start_dim=2 + dims), self.width)


class SmoothAdaptiveMaxPool(nn.Module):
    """The same for as many windows along each axis as are asked for, which may overlap.

    Args:
        size: Windows along each axis.
        width: Positive.
    """

    def __init__(self, size: tuple[int, ...], width: float) -> None:
        super().__init__()
        self.size = size
        self.width = width

    def forward(self, values: Tensor) -> Tensor:
        """(b, C, *spatial) to (b, C, *size)."""
        axes = [
            [slice(place * side // count, -(-(place + 1) * side // count)) for place in range(count)]
            for side, count in zip(values.shape[2:], self.size, strict=True)
        ]
        whole = (slice(None), slice(None))
        cells = [values[whole + window].flatten(start_dim=2) for window in product(*axes)]
        pooled = torch.stack([_soft_maximum(cell, self.width) for cell in cells], dim=2)
        return pooled.reshape(*values.shape[:2], *self.size)


def smoothed(model: nn.Module, width: float) -> nn.Module:
    """A copy of ``model`` with the same parameters' names and values, its corners rounded.

    ReLU and maximum pooling are replaced where they are modules of their own and the windows are plain ones. Whatever
    else a net does stays as it is, which is right and only rougher to search.

    Args:
        model: Left as it is.
        width: In units of the activations; 0 gives an exact copy.
    """
    model = copy.deepcopy(model)
    return _replaced(model, width) if width > 0 else model


def _replaced(module: nn.Module, width: float) -> nn.Module:
    if type(module) in _SMOOTH:
        return _SMOOTH[type(module)](module, width) or module
    for name, child in module.named_children():
        setattr(module, name, _replaced(child, width))
    return module


def _smooth_pool(dims: int) -> Callable[[Any, float], nn.Module | None]:
    def smooth(pool: Any, width: float) -> nn.Module | None:
        kernel, stride, padding, dilation = (
            _sides(value, dims) for value in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        )
        plain = stride == kernel and set(padding) == {0} and set(dilation) == {1} and not pool.ceil_mode
        return SmoothMaxPool(kernel, width) if plain and not pool.return_indices else None

    return smooth


def _smooth_adaptive_pool(dims: int) -> Callable[[Any, float], nn.Module | None]:
    def smooth(pool: Any, width: float) -> nn.Module | None:
        size = _sides(pool.output_size, dims)
        return None if None in size or pool.return_indices else SmoothAdaptiveMaxPool(size, width)

    return smooth


def _sides(value: Any, dims: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,) * dims


_SMOOTH: Mapping[type[nn.Module], Callable[[Any, float], nn.Module | None]] = {
    nn.ReLU: lambda _, width: SmoothReLU(width),
    nn.MaxPool2d: _smooth_pool(2),
    nn.MaxPool3d: _smooth_pool(3),
    nn.AdaptiveMaxPool2d: _smooth_adaptive_pool(2),
    nn.AdaptiveMaxPool3d: _smooth_adaptive_pool(3),
}
"""How each layer with corners is rounded; None leaves it as it is."""


def _soft_maximum(cells: Tensor, width: float) -> Tensor:
    """Of the last axis."""
    return ((cells / width).softmax(dim=-1) * cells).sum(dim=-1)
