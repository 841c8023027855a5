"""Images as attacks give them back, made from whole ones: what a denoiser learns from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hbdp_fed.models.planted import dct, inverse_dct

_LEAST_NOISE, _MOST_NOISE = 0.002, 3.0
"""Standard deviation of the noise, of images in [0, 1]."""
_STEEPEST = 1.0
"""The noise's amplitude falls with frequency f as (1 + f)^-a, a from 0, which is white noise, to this."""
_OFTEN = 0.3
"""How often one of the other damages comes on top."""
_MOST_OF_A_STRANGER = 0.5
_MOST_OFF = 0.3
"""By how much a contrast may be wrong, relatively."""


def damaged(images: Tensor, *, mean: Tensor, power: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of any strength and colour, and at times a stranger who shines through, a wrong contrast, a filter.

    Args:
        images: float32 (B, C, *spatial) in [0, 1].
        mean: float32 (C, *spatial), of such images.
        power: float32 (C, *spatial), the variance of their cosine coefficients.
        generator: For all draws.

    Returns:
        float32 of the same shape in [0, 1].
    """
    each = (len(images), *[1] * (images.dim() - 1))

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(each, generator=generator)

    def at_times() -> Tensor:
        return (torch.rand(each, generator=generator) < _OFTEN).float()

    strangers = images[torch.randperm(len(images), generator=generator)]
    mixed = torch.lerp(images, strangers, at_times() * uniform(0.0, _MOST_OF_A_STRANGER))
    contrast = 1 + at_times() * uniform(-_MOST_OFF, _MOST_OFF)
    std = torch.exp(uniform(math.log(_LEAST_NOISE), math.log(_MOST_NOISE)))
    amplitude = std * colours(images.shape[2:], uniform(0.0, _STEEPEST))
    measured = dct((mixed - mean) * contrast) + amplitude * torch.randn(images.shape, generator=generator)
    # What many attacks do by themselves: each coefficient shrunk by what it is worth beside its noise.
    filtered = measured * power / (power + amplitude.square())
    return (inverse_dct(torch.lerp(measured, filtered, at_times())) + mean).clamp(0.0, 1.0)


def colours(sides: Sequence[int], slope: Tensor) -> Tensor:
    """How noise is spread over frequencies.

    Args:
        sides: Of the image.
        slope: (B, 1, ...), a for each image, with as many axes as the image.

    Returns:
        (B, 1, *sides), amplitudes proportional to (1 + f)^-a whose mean square is 1.
    """
    axes = [torch.arange(side, dtype=torch.float32) for side in sides]
    frequency = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(dim=0).sqrt()
    weight = (1 + frequency) ** -slope
    return weight / weight.square().mean(dim=tuple(range(1, weight.dim())), keepdim=True).sqrt()
