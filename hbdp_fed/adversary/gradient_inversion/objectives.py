"""How far a dummy batch's release is from the one that was seen, and how rough an image is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Objective = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
"""Maps a dummy release and the real one, tensor by tensor, to a scalar: 0 where they agree, without units."""

_TINY = 1e-30
"""Keeps a release of nothing but zeros from being divided by."""

_ROUNDING = 1e-3
"""Differences of neighbouring pixels well below this, less than 8 bits can show, count by their squares."""


def cosine_distance(dummy: Sequence[Tensor], released: Sequence[Tensor]) -> Tensor:
    """1 - <d, g> / (|d| |g|) over all parameters together (Geiping et al. 2020, equation 4)."""
    norms = (_dot(dummy, dummy) * _dot(released, released) + _TINY).sqrt()
    return 1 - _dot(dummy, released) / norms


def squared_error(dummy: Sequence[Tensor], released: Sequence[Tensor]) -> Tensor:
    """|d - g|^2 / |g|^2 (Zhu et al. 2019, arXiv 1906.08935; relative, so that it has no units)."""
    gaps = [one - other for one, other in zip(dummy, released, strict=True)]
    return _dot(gaps, gaps) / (_dot(released, released) + _TINY)


OBJECTIVES: Mapping[str, Objective] = {"cosine": cosine_distance, "euclidean": squared_error}
"""The objectives by name."""


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, the sum over the axes (Rudin et al. 1992), a scalar.

    Args:
        images: (n, C, *spatial), each side at least 2.
    """
    total = images.new_zeros(())
    for axis in range(2, images.dim()):
        # The corner at 0 is rounded: a search by curvature stumbles over it.
        total = total + ((images.diff(dim=axis).square() + _ROUNDING**2).sqrt() - _ROUNDING).mean()
    return total


def _dot(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    return torch.stack([(one * other).sum() for one, other in zip(first, second, strict=True)]).sum()
