"""What linear filters make of a damaged image, at one strength of noise after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from hbdp_fed.adversary.planted.code import coefficients_of
from hbdp_fed.adversary.prior import ImagePrior, posterior_mean_at
from hbdp_fed.models.planted import inverse_dct

LEVELS = (0.03, 0.1, 0.3, 1.0)
"""Standard deviations of the white noise that each filter is best for, of images in [0, 1]."""


def candidates(prior: ImagePrior, images: Tensor) -> Tensor:
    """The image itself, the best linear filter's answer at each of :data:`LEVELS`, and the mean image.

    Args:
        prior: On the images' cosine coefficients.
        images: float32 (B, C, *spatial).

    Returns:
        float32 (B, K, C, *spatial) in [0, 1], K = 2 + the number of levels.
    """
    measured = coefficients_of(images)
    coefficients = [posterior_mean_at(prior, measured, level**2) for level in LEVELS]
    coefficients.append(prior.mean.expand_as(measured))
    filtered = [inverse_dct(values.reshape(images.shape)).float() for values in coefficients]
    return torch.stack([images, *filtered], dim=1).clamp(0.0, 1.0)
