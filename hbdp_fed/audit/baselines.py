"""What scores without showing this patient: the mean public image, the nearest public one, and another patient's.

The last two are more than an adversary can do, for they choose with the original in hand. A reconstruction that does
not beat them shows nothing about this patient: it may be an image of the kind, or of somebody else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.audit.similarity import pairwise_ssim

_BLOCK = 128
"""Images that meet all later ones in one call."""


@dataclass(frozen=True)
class Baselines:
    """For each of N images of patients.

    Attributes:
        mean_image: float32 (N,), SSIM of the public images' mean with it.
        nearest: float32 (N,), the highest SSIM of any public image with it.
        nearest_index: int64 (N,), which public image that is.
        other: float32 (N,), the highest SSIM of any other patient's image with it; NaN where there is nobody else.
        other_index: int64 (N,), which image that is; -1 where there is nobody else.
    """

    mean_image: Tensor
    nearest: Tensor
    nearest_index: Tensor
    other: Tensor
    other_index: Tensor

    @property
    def guess(self) -> Tensor:
        """The better of the two that public images alone give, float32 (N,)."""
        return torch.maximum(self.mean_image, self.nearest)

    @property
    def best(self) -> Tensor:
        """The best of the three, float32 (N,)."""
        return torch.fmax(self.guess, self.other)

    def at(self, rows: Tensor | slice) -> Baselines:
        """The baselines of these images alone; indices go on meaning what they meant."""
        return Baselines(**{name: values[rows] for name, values in vars(self).items()})


def guess(originals: Tensor, public: Tensor, *, patients: Tensor | None = None) -> Baselines:
    """The baselines of ``originals``; another patient's image is the nearest among themselves.

    Args:
        originals: float (N, C, *spatial) in [0, 1]; N may be 0.
        public: float (P, C, *spatial) in [0, 1], P at least 1.
        patients: int64 (N,), whose image each one is; None where no two are of the same patient.

    Raises:
        ValueError: if there is no public image, or a patient is missing.
    """
    if len(public) == 0:
        raise ValueError("baselines need at least one public image")
    patients = torch.arange(len(originals)) if patients is None else patients
    if len(patients) != len(originals):
        raise ValueError(f"every image needs a patient, got {len(originals)} images and {len(patients)} patients")
    nearest, index = pairwise_ssim(public, originals).max(dim=0)
    other, other_index = _nearest_other(originals, patients)
    return Baselines(
        mean_image=pairwise_ssim(public.float().mean(dim=0, keepdim=True), originals)[0],
        nearest=nearest,
        nearest_index=index,
        other=other,
        other_index=other_index,
    )


def _nearest_other(images: Tensor, patients: Tensor) -> tuple[Tensor, Tensor]:
    """For each image the highest SSIM of another patient's, and which that is."""
    best = torch.full((len(images),), -math.inf)
    index = torch.full((len(images),), -1, dtype=torch.int64)
    # SSIM is symmetric: a block meets itself and what comes after it, and each pair of blocks meets once.
    for start in range(0, len(images), _BLOCK):
        block, rest = slice(start, start + _BLOCK), slice(start, None)
        similarity = pairwise_ssim(images[block], images[rest])
        similarity[patients[block, None] == patients[None, rest]] = -math.inf
        for rows, dimension in ((block, 1), (rest, 0)):
            found, where = similarity.max(dim=dimension)
            better = found > best[rows]
            best[rows] = torch.where(better, found, best[rows])
            index[rows] = torch.where(better, where + start, index[rows])
    return torch.where(index < 0, math.nan, best), index
