"""Gaussian blur of batches of images, used by the phantom's textures and by scanners."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TRUNCATE = 4.0
"""Where the kernel is cut off, in standard deviations: what is left out weighs 6e-5."""


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Blur every image and channel by itself.

    MONAI's filter takes what lies outside an image for zero, which darkens the border; here the border's own values are
    repeated outwards, so a constant image stays constant. Its kernel is used as it is, integrated over each pixel, so a
    point's second moment becomes sigma^2 + 1/12 along every side.

    Args:
        images: float32 (N, C, H, W), or (N, C, D, H, W) with the same blur along all three sides.
        sigma: The kernel's standard deviation in pixels; 0 returns ``images`` itself.

    Returns:
        float32 of the same shape.

    Raises:
        ValueError: if ``sigma`` is negative or not finite.
    """
    if not (sigma >= 0 and math.isfinite(sigma)):
        raise ValueError(f"sigma must be finite and not negative, got {sigma}")
    if sigma == 0:
        return images
    blurred = images
    for axis in range(2, images.dim()):
        # Sides of images are short: a product of matrices is several times as fast as a convolution.
        along = blurred.transpose(axis, -1) @ _blurring(images.shape[axis], sigma).T
        blurred = along.transpose(axis, -1)
    return blurred.contiguous()


def _blurring(side: int, sigma: float) -> Tensor:
    """The blur of a line of pixels as a matrix: float32 (side, side), whose rows add up to 1."""
    from monai.networks.layers.convutils import gaussian_1d  # Takes more than a second to import.

    kernel = gaussian_1d(torch.tensor(sigma), truncated=_TRUNCATE)
    margin = len(kernel) // 2
    matrix, pixels = torch.zeros(side, side), torch.arange(side)
    for offset, weight in enumerate(kernel, start=-margin):
        matrix[pixels, (pixels + offset).clamp(0, side - 1)] += weight
    return matrix / matrix.sum(dim=1, keepdim=True)
