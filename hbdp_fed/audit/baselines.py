"""What a guess scores that never saw the hospital: the mean public image, and the public image that fits best.

The second is more than an adversary can do, for it chooses with the original in hand. A reconstruction that does not
beat it shows nothing about this patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.audit.similarity import pairwise_ssim


@dataclass(frozen=True)
class Baselines:
    """For each of N records.

    Attributes:
        mean_image: float32 (N,), SSIM of the public images' mean with the record.
        nearest: float32 (N,), the highest SSIM of any public image with the record.
        nearest_index: int64 (N,), which public image that is.
    """

    mean_image: Tensor
    nearest: Tensor
    nearest_index: Tensor

    @property
    def best(self) -> Tensor:
        """The better guess of the two for each record, float32 (N,)."""
        return torch.maximum(self.mean_image, self.nearest)


def guess(originals: Tensor, public: Tensor) -> Baselines:
    """The baselines of ``originals``.

    Args:
        originals: float (N, C, H, W) in [0, 1]; N may be 0.
        public: float (P, C, H, W) in [0, 1], P at least 1.

    Raises:
        ValueError: if there is no public image.
    """
    if len(public) == 0:
        raise ValueError("baselines need at least one public image")
    nearest, index = pairwise_ssim(public, originals).max(dim=0)
    mean_image = pairwise_ssim(public.float().mean(dim=0, keepdim=True), originals)[0]
    return Baselines(mean_image=mean_image, nearest=nearest, nearest_index=index)
