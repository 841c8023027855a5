"""Random views of records: whole batches at once, every draw from an explicit generator.

MONAI's random transforms are not used here: each draws for one image at a time, from NumPy state of its own, so a batch
would need a loop over its records, and a torch.Generator could not repeat it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hbdp_fed.errors import unknown_choice

Augmentation = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Maps images (n, C, *spatial) in two or three spatial dimensions and labels (n,), (n, K) or (n, *spatial) to new ones
of the same shapes. Labels of pixels or voxels move with the image. Draws come from a CPU generator: they are the same
on every device."""

_LARGEST_SHIFT = 8
"""A record is moved by up to one part in this many of its side."""


def _none(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return images, labels


def _flip(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror each record along the last axis with probability 1/2."""
    return _mirror(images, labels, -1, generator)


def _flip_all(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror each record along every axis with probability 1/2: for what has no upper end, as skin seen from above."""
    for axis in range(2 - images.dim(), 0):
        images, labels = _mirror(images, labels, axis, generator)
    return images, labels


def _mirror(images: Tensor, labels: Tensor, axis: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror each record along ``axis``, negative, with probability 1/2."""
    mirrored = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)

    def move(values: Tensor) -> Tensor:
        return torch.where(mirrored.view(-1, *[1] * (values.dim() - 1)), values.flip(axis), values)

    return move(images), move(labels) if labels.dim() > 2 else labels


def _shift(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Move each record by a whole number of pixels along every axis; what comes in repeats the edge."""
    for axis in range(2 - images.dim(), 0):
        side = images.shape[axis]
        most = side // _LARGEST_SHIFT
        offsets = torch.randint(-most, most + 1, (len(images), 1), generator=generator)
        sources = (torch.arange(side) - offsets).clamp(0, side - 1).to(images.device)
        images = _gather(images, axis, sources)
        labels = _gather(labels, axis, sources) if labels.dim() > 2 else labels
    return images, labels


def _gather(values: Tensor, axis: int, sources: Tensor) -> Tensor:
    """Row i of ``values`` with position j along ``axis`` (negative) taken from position ``sources[i, j]``."""
    shape = [len(values), *[1] * (values.dim() - 1)]
    shape[axis] = sources.shape[1]
    return values.gather(values.dim() + axis, sources.view(shape).expand_as(values))


def _flip_shift(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return _shift(*_flip(images, labels, generator), generator)


def _flip_all_shift(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return _shift(*_flip_all(images, labels, generator), generator)


AUGMENTATIONS: Mapping[str, Augmentation] = {
    "none": _none,
    "flip": _flip,
    "shift": _shift,
    "flip_shift": _flip_shift,
    "flip_all": _flip_all,
    "flip_all_shift": _flip_all_shift,
}
"""Augmentations by name."""


def views(
    images: Tensor, labels: Tensor, *, multiplicity: int, augmentation: str, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Several augmented views of every record (De et al. 2022, arXiv 2204.13650).

    Args:
        images: (n, C, *spatial); n may be 0.
        labels: (n,), (n, K) or (n, *spatial).
        multiplicity: K, views of a record, at least 1.
        augmentation: A key of :data:`AUGMENTATIONS`.
        generator: A CPU generator; the same state gives the same views on every device.

    Returns:
        Images (n * K, C, *spatial) and labels (n * K,) or (n * K, *spatial): row r * K + k is view k of record r.

    Raises:
        SettingError: if there is no such augmentation.
    """
    if augmentation not in AUGMENTATIONS:
        raise unknown_choice("training.augmentation", augmentation, AUGMENTATIONS)
    if multiplicity > 1:
        images, labels = (values.repeat_interleave(multiplicity, dim=0) for values in (images, labels))
    return AUGMENTATIONS[augmentation](images, labels, generator)
