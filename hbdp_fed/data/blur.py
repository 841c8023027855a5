"""Gaussian blur of batches of images, used by the phantom's textures and by scanners."""

from __future__ import annotations

import math

import torch.nn.functional as functional
from torch import Tensor

_TRUNCATE = 4.0
"""Where the kernel is cut off, in standard deviations: what is left out weighs 6e-5."""


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Blur every image and channel by itself.

    MONAI's filter takes what lies outside an image for zero, which darkens the border; here the border's own values are
    repeated outwards, so a constant image stays constant.

    Args:
        images: float32 (N, C, H, W).
        sigma: The kernel's standard deviation in pixels; 0 returns ``images`` itself.

    Returns:
        float32 (N, C, H, W).

    Raises:
        ValueError: if ``sigma`` is negative or not finite.
    """
    if not (sigma >= 0 and math.isfinite(sigma)):
        raise ValueError(f"sigma must be finite and not negative, got {sigma}")
    if sigma == 0:
        return images
    from monai.networks.layers import GaussianFilter  # Takes more than a second to import.

    margin = math.ceil(_TRUNCATE * sigma)
    padded = functional.pad(images, (margin, margin, margin, margin), mode="replicate")
    # Images lie side by side as the channels of one: a depthwise convolution is several times as fast as a batch here.
    blurred: Tensor = GaussianFilter(spatial_dims=2, sigma=sigma, truncated=_TRUNCATE)(padded.flatten(0, 1)[None])
    return blurred[..., margin:-margin, margin:-margin].reshape(images.shape)
