"""Norms of weight gradients without the gradients.

The weight gradient of a record is G = sum_t e_t a_t^T over the positions t at which the weight acts: e_t the gradient
of the output there, a_t the input that the weight sees (a patch, for a convolution). So

    |G|^2 = sum_{t,s} (e_t . e_s) (a_t . a_s),

the inner product of two Gram matrices (Goodfellow 2015, arXiv 1510.01799; Bu et al. 2022, arXiv 2205.10683, for
convolutions). For T positions it costs T^2 where the gradient costs the number of weights: cheap in the deep layers of
a net, where images are small and channels are many.

Patches of a convolution overlap, and unfolding them would multiply the work by the kernel's size. It is not needed: the
inner product of two patches is the sum over the kernel's offsets of inner products of *pixels*. With stride 1 that is
one Gram matrix of pixels, added up along its diagonals, one axis after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

_CHUNK = {"cpu": 2**20, "cuda": 2**26}
"""Entries of a Gram matrix to hold at once: on a CPU they shall stay in its cache."""


@dataclass(frozen=True)
class Geometry:
    """How a kernel moves over its input.

    Attributes:
        kernel: Side of the kernel along each spatial axis.
        stride: Steps between positions.
        padding: Zeros before and after the input.
        dilation: Steps between the kernel's elements.
        groups: Groups of channels that do not see each other.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def unit_stride(self) -> bool:
        """Whether every input pixel is a position of the kernel."""
        return all(s == 1 for s in self.stride)


def by_group(tensor: Tensor, records: int, groups: int) -> Tensor:
    """(b * K, channels, *spatial) as (b * groups, channels / groups, K, *spatial), without a copy where K = 1."""
    views, channels = len(tensor) // records, tensor.shape[1]
    split = tensor.reshape(records, views, groups, channels // groups, *tensor.shape[2:])
    return split.movedim(1, 3).flatten(0, 1)


def shifted_inputs(inputs: Tensor, positions: Sequence[int], geometry: Geometry) -> Iterator[Tensor]:
    """For each offset of the kernel, in the weight's own order, the input pixels under it: (..., *positions)."""
    padded = functional.pad(inputs, [side for p in reversed(geometry.padding) for side in (p, p)])
    axes = inputs.dim() - len(positions)
    for offset in product(*(range(k) for k in geometry.kernel)):
        window = tuple(
            slice(i * d, i * d + s * (n - 1) + 1, s)
            for i, d, s, n in zip(offset, geometry.dilation, geometry.stride, positions, strict=True)
        )
        yield padded[(slice(None),) * axes + window]


def matrix_norms(inputs: Tensor, errors: Tensor) -> Tensor:
    """|sum_t e_t a_t^T|^2 of each of n records, (n,), from inputs (n, T, c) and errors (n, T, d)."""
    if inputs.shape[1] == 1:
        return (inputs.flatten(1).square().sum(dim=1)) * (errors.flatten(1).square().sum(dim=1))
    chunk = _chunk(inputs, inputs.shape[1])
    return torch.cat(
        [
            _inner(a @ a.transpose(1, 2), e @ e.transpose(1, 2))
            for a, e in zip(inputs.split(chunk), errors.split(chunk), strict=True)
        ]
    )


def convolution_norms(inputs: Tensor, errors: Tensor, *, records: int, geometry: Geometry) -> Tensor:
    """The squared norm of every record's weight gradient of a convolution, (b,), in the inputs' own precision.

    Args:
        inputs: What the kernel moves over, (b * K, channels, *spatial).
        errors: Gradients at its positions, (b * K, channels, *positions).
        records: b.
        geometry: Of the convolution.
    """
    a = by_group(inputs, records, geometry.groups)
    e = by_group(errors, records, geometry.groups)
    grams = _patch_grams if geometry.unit_stride else _strided_patch_grams
    chunk = _chunk(inputs, max(math.prod(a.shape[2:]), math.prod(e.shape[2:])))
    positions = e.shape[3:]
    parts = []
    for some_a, some_e in zip(a.split(chunk), e.split(chunk), strict=True):
        flat = some_e.flatten(start_dim=2)
        parts.append(_inner(grams(some_a, positions, geometry), flat.transpose(1, 2) @ flat))
    return torch.cat(parts).view(records, geometry.groups).sum(dim=1)


def _patch_grams(inputs: Tensor, positions: Sequence[int], geometry: Geometry) -> Tensor:
    """Inner products of all patches at stride 1, (n, K * T, K * T), from inputs (n, c, K, *spatial)."""
    views, spatial = inputs.shape[2], inputs.shape[3:]
    flat = inputs.flatten(start_dim=2)
    pixels = flat.transpose(1, 2) @ flat
    grams = pixels.view(-1, views, *spatial, views, *spatial)
    for axis in range(len(spatial)):
        grams = _sum_diagonals(
            grams,
            axes=(2 + axis, 3 + len(spatial) + axis),
            kernel=geometry.kernel[axis],
            padding=geometry.padding[axis],
            dilation=geometry.dilation[axis],
            positions=positions[axis],
        )
    return grams.reshape(len(inputs), views * math.prod(positions), -1)


def _sum_diagonals(
    grams: Tensor, *, axes: tuple[int, int], kernel: int, padding: int, dilation: int, positions: int
) -> Tensor:
    """From inner products of pixels along one axis to those of the kernel's windows at its positions."""
    size = grams.shape[axes[0]]
    if kernel == 1 and padding == 0:
        return grams
    total: Tensor | None = None
    # The middle offset first: mostly it covers all positions, and then nothing has to be filled with zeros.
    for i in sorted(range(kernel), key=lambda i: abs(2 * i - kernel + 1)):
        shift = i * dilation - padding
        first, last = max(0, -shift), min(positions, size - shift)
        if last <= first:
            continue
        part = _narrow(grams, axes, first + shift, last - first)
        if total is None and last - first == positions:
            total = part.clone(memory_format=torch.contiguous_format)
            continue
        if total is None:
            shape = [positions if axis in axes else length for axis, length in enumerate(grams.shape)]
            total = grams.new_zeros(shape)
        _narrow(total, axes, first, last - first).add_(part)
    assert total is not None  # a position sees at least one pixel
    return total


def _narrow(grams: Tensor, axes: tuple[int, int], start: int, length: int) -> Tensor:
    return grams.narrow(axes[0], start, length).narrow(axes[1], start, length)


def _strided_patch_grams(inputs: Tensor, positions: Sequence[int], geometry: Geometry) -> Tensor:
    """The same at any stride, where most pixels' inner products would not be used: offset by offset."""
    grams: Tensor | None = None
    for pixels in shifted_inputs(inputs, positions, geometry):
        flat = pixels.flatten(start_dim=2)
        step = flat.transpose(1, 2) @ flat
        grams = step if grams is None else grams.add_(step)
    assert grams is not None
    return grams


def _inner(first: Tensor, second: Tensor) -> Tensor:
    products: Tensor = torch.linalg.vecdot(first.flatten(start_dim=1), second.flatten(start_dim=1))
    return products


def _chunk(tensor: Tensor, side: int) -> int:
    """How many records' Gram matrices to hold at once."""
    return max(1, _CHUNK.get(tensor.device.type, _CHUNK["cpu"]) // (side * side))
