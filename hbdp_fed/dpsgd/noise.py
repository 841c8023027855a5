"""The Gaussian mechanism's noise, in float64, and how it compares with the resolution of what is sent."""

from __future__ import annotations

import math

import numpy as np
import torch

from hbdp_fed.types import Weights


def gaussian_noise(like: Weights, *, std: float, generator: torch.Generator) -> Weights:
    """Independent N(0, std^2) for every coordinate of ``like``, in float64.

    Noise is drawn on the CPU, one tensor after the other in ``like``'s order, and then moved: a run on a GPU gets the
    same noise as one on a CPU. float64 keeps it: at a budget of 1e12 the noise of one step can be smaller than the
    last bit of a float32 weight.

    Args:
        like: Tensors by name; shapes and devices are taken from them.
        std: Standard deviation, at least 0.
        generator: A CPU generator.
    """
    return {
        name: (torch.randn(value.shape, dtype=torch.float64, generator=generator) * std).to(value.device)
        for name, value in like.items()
    }


def noise_to_resolution(*, noise_std: float, magnitude: float, dtype: type[np.floating]) -> float:
    """The noise's standard deviation over the spacing of floating-point numbers of a given magnitude.

    Below about 10 the sum of value and noise takes so few values that it is no longer effectively Gaussian; below 1
    the noise is mostly rounded away, and nothing is protected (Mironov 2012 shows what such gaps reveal).

    Args:
        noise_std: Standard deviation of the noise in one coordinate, at least 0.
        magnitude: The largest absolute value that the noise is added to.
        dtype: ``numpy.float32`` or ``numpy.float64``.

    Returns:
        A ratio from 0 to about 2^p for a type of p significant bits, which noise added to nothing reaches.
    """
    if noise_std < 0 or not math.isfinite(noise_std):
        raise ValueError(f"noise_std must be finite and not negative, got {noise_std}")
    if noise_std == 0:
        return 0.0
    # The sum is as large as the larger of the two, and so is its spacing.
    return noise_std / float(np.spacing(dtype(max(abs(magnitude), noise_std))))
