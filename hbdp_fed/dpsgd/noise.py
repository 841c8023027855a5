"""The Gaussian mechanism's noise, in float64, and how it compares with the resolution of what is sent."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from torch import Tensor

from hbdp_fed.types import Weights

NoiseSource = Callable[[Sequence[int], torch.device], Tensor]
"""Maps a shape and a device to fresh independent N(0, 1) draws in float64.

float64 keeps what is drawn: at a budget of 1e12 the noise of one step can be smaller than the last bit of a float32
weight.
"""

EFFECTIVELY_GAUSSIAN = 10.0
"""The smallest ratio of noise to float resolution at which we call noise Gaussian (see :func:`noise_to_resolution`)."""

_WORD_BYTES = 8
_SMALLEST_UNIFORM = 2.0**-53
_SECURE_DRAWS = 4


def seeded_noise(generator: torch.Generator) -> NoiseSource:
    """Noise that can be repeated, for simulations. Whoever knows the seed can subtract it: it protects nobody.

    Args:
        generator: The draws are made on its device and then moved. On a GPU, drawing elsewhere would take longer than
            the step itself.
    """

    def draw(shape: Sequence[int], device: torch.device) -> Tensor:
        count = math.prod(shape)
        words = torch.rand(2 * _pairs(count), dtype=torch.float64, generator=generator, device=generator.device)
        # From [0, 1) to (0, 1]: the logarithm of 0 is no number.
        return box_muller(1 - words)[:count].reshape(tuple(shape)).to(device)

    return draw


def secure_noise() -> NoiseSource:
    """Noise that nobody can repeat: ChaCha20's stream (RFC 8439) under a 256-bit key of the operating system's.

    The generators that PyTorch has for simulations are no choice here: from enough of their output, their state and so
    the rest of their output can be computed. Each value is half the sum of four draws: a single draw is one of the
    floating-point numbers that the transform can reach, and which of two neighbouring sums is reachable would tell them
    apart (Holohan and Braghin 2021, arXiv 2107.10138).
    """
    stream = Cipher(ChaCha20(os.urandom(32), os.urandom(16)), mode=None).encryptor()

    def draw(shape: Sequence[int], device: torch.device) -> Tensor:
        count = math.prod(shape)
        words = np.frombuffer(stream.update(bytes(_SECURE_DRAWS * count * _WORD_BYTES)), dtype=np.uint64)
        # The upper 53 bits, as the multiples of 2^-53 in (0, 1].
        uniforms = torch.from_numpy(((words >> np.uint64(11)) + np.uint64(1)) * _SMALLEST_UNIFORM)
        normals = box_muller(uniforms).view(_SECURE_DRAWS, count).sum(dim=0) / math.sqrt(_SECURE_DRAWS)
        return normals.reshape(tuple(shape)).to(device)

    return draw


def _pairs(count: int) -> int:
    return (count + 1) // 2


def box_muller(uniforms: Tensor) -> Tensor:
    """Independent N(0, 1) from as many independent uniforms in (0, 1], float64 (2n,) (Box and Muller 1958).

    The largest value that it can give is sqrt(2 * 53 * log(2)) = 8.6. Unlike PyTorch's own float64 normals, every step
    is vectorised.
    """
    first, second = uniforms.chunk(2)
    radius, angle = first.log().mul_(-2).sqrt_(), second * (2 * math.pi)
    return torch.cat([radius * angle.cos(), radius * angle.sin()])


def gaussian_noise(like: Weights, *, std: float, source: NoiseSource) -> Weights:
    """Independent N(0, std^2) for every coordinate of ``like``, in float64, one tensor after the other in its order.

    Args:
        like: Tensors by name; shapes and devices are taken from them.
        std: Standard deviation, at least 0.
        source: Where the draws come from.
    """
    return {name: noise_like(value, std=std, source=source) for name, value in like.items()}


def noise_like(value: Tensor, *, std: float, source: NoiseSource) -> Tensor:
    """:func:`gaussian_noise` of one tensor, for who adds it up at once and need not hold the noise of all."""
    return source(value.shape, value.device).mul_(std)


def noise_to_resolution(*, noise_std: float, magnitude: float, dtype: torch.dtype) -> float:
    """The noise's standard deviation over the spacing of floating-point numbers of a given magnitude.

    Below about 10 the sum of value and noise takes so few values that it is no longer effectively Gaussian; below 1
    the noise is mostly rounded away, and nothing is protected (Mironov 2012 shows what such gaps reveal).

    Args:
        noise_std: Standard deviation of the noise in one coordinate, at least 0.
        magnitude: The largest absolute value that the noise is added to.
        dtype: ``torch.float32`` or ``torch.float64``.

    Returns:
        A ratio from 0 to about 2^p for a type of p significant bits, which noise added to nothing reaches.
    """
    if noise_std < 0 or not math.isfinite(noise_std):
        raise ValueError(f"noise_std must be finite and not negative, got {noise_std}")
    if noise_std == 0:
        return 0.0
    # The sum is as large as the larger of the two, and so is its spacing.
    largest = max(abs(magnitude), noise_std)
    number = np.float32(largest) if dtype == torch.float32 else np.float64(largest)
    return noise_std / float(np.spacing(number))
