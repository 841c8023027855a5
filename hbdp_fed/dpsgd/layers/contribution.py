"""What one layer contributes to the clipped gradient, in one of two forms.

Clipping needs two things of a parameter: the squared norm of every record's gradient, and, once the clipping factors
are known, the sum of the gradients weighted with them. A contribution can give both; whether it has the gradients of
single records in memory for it is its own affair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Contribution(Protocol):
    """A parameter's part of the gradients of b records."""

    def squared_norms(self) -> Tensor:
        """float64 (b,)."""
        ...

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """The sum over records of factor times gradient, in float32 or better, from float64 factors (b,)."""
        ...


@dataclass(frozen=True)
class PerRecord:
    """Every record's gradient, kept.

    Attributes:
        chunks: Tensors (m, *shape) for the records in their order, m of them at a time.
        squared: The squared norms of what the parameter gets from them, float64 (b,).
        finish: A linear map from a sum of these gradients to that of the parameter's own.
    """

    chunks: Sequence[Tensor]
    squared: Tensor
    finish: Callable[[Tensor], Tensor] = lambda total: total

    @classmethod
    def of(cls, gradients: Tensor) -> PerRecord:
        """From the parameter's own gradients in one tensor, (b, *shape)."""
        return cls((gradients,), norms_squared(gradients))

    def __add__(self, other: PerRecord) -> PerRecord:
        """The contribution of both: gradients add up, norms do not. Only for the parameter's own gradients."""
        return PerRecord.of(self.gradients() + other.gradients())

    def gradients(self) -> Tensor:
        """(b, *shape). Only of the parameter's own gradients."""
        return self.chunks[0] if len(self.chunks) == 1 else torch.cat(list(self.chunks))

    def squared_norms(self) -> Tensor:
        """See :class:`Contribution`."""
        return self.squared

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """See :class:`Contribution`."""
        first, widen = self.chunks[0], Widener()
        wide = at_least_float32(first.dtype)
        if len(self.chunks) == 1:  # most parameters: few weights, and nothing to add up
            return self.finish((factors.to(wide) @ widen(first).flatten(start_dim=1)).view(first.shape[1:]))
        total = first.new_zeros(first[0].numel(), dtype=wide)
        sizes = [len(chunk) for chunk in self.chunks]
        for some_factors, chunk in zip(factors.to(total.dtype).split(sizes), self.chunks, strict=True):
            if len(chunk) == 1 and not chunk.is_cuda:  # reading a number off a GPU would wait for all its work
                total.add_(chunk.flatten(), alpha=float(some_factors))
            else:
                total += some_factors @ widen(chunk).flatten(start_dim=1)
        return self.finish(total.view(first.shape[1:]))


@dataclass(frozen=True)
class Ghost:
    """Norms that were found without the gradients, and a way to their weighted sum (Goodfellow 2015; Li et al. 2022).

    Attributes:
        squared: float64 (b,).
        combine: Maps the factors, float64 (b,), to the weighted sum by one ordinary weight gradient of the batch.
    """

    squared: Tensor
    combine: Callable[[Tensor], Tensor]

    def squared_norms(self) -> Tensor:
        """See :class:`Contribution`."""
        return self.squared

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """See :class:`Contribution`."""
        return self.combine(factors)


class Widener:
    """Gives tensors in float32 or better, in memory that it uses again for the next one: asking for new is slow."""

    def __init__(self) -> None:
        self._scratch: Tensor | None = None

    def __call__(self, tensor: Tensor) -> Tensor:
        """``tensor`` itself where it is wide enough; else a copy that lives until the next call."""
        wide = at_least_float32(tensor.dtype)
        if tensor.dtype == wide:
            return tensor
        if self._scratch is None or self._scratch.numel() < tensor.numel():
            self._scratch = torch.empty(tensor.numel(), dtype=wide, device=tensor.device)
        return self._scratch[: tensor.numel()].view(tensor.shape).copy_(tensor)


def norms_squared(gradients: Tensor) -> Tensor:
    """Of every record's gradient (b, *shape): float64 (b,), summed in float32 or better."""
    rows = gradients.flatten(start_dim=1).to(at_least_float32(gradients.dtype))
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms.double().square()


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The precision for norms and sums of gradients that were computed in ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def weigh_rows(tensor: Tensor, factors: Tensor) -> Tensor:
    """Rows (b * K, ...) times their record's factor (b,), in float32 or better."""
    dtype = at_least_float32(tensor.dtype)
    rows = factors.to(dtype).repeat_interleave(len(tensor) // len(factors))
    return tensor.to(dtype) * rows.view(-1, *[1] * (tensor.dim() - 1))
