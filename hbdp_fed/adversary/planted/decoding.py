"""From measured records to images: the last step of reading a planted layer's gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.adversary.planted.code import Code, images_of, in_chunks_of
from hbdp_fed.adversary.planted.evidence import Expectation
from hbdp_fed.adversary.prior import ImagePrior, posterior_mean


@dataclass(frozen=True)
class Measured:
    """What an attack measured of M records, surest first.

    Attributes:
        codes: float64 (M, D), r * u of each, with noise.
        factors: float64 (M,), r of each, sign included, never 0.
        noise_std: float64 (M,), the standard deviation of the noise in each coordinate of ``codes``; 0 without noise.
        scores: float64 (M,), the attack's confidence, descending.
        members: bool (M, n), the rows in which each was found.
    """

    codes: Tensor
    factors: Tensor
    noise_std: Tensor
    scores: Tensor
    members: Tensor


def rebuild(measured: Measured, code: Code, prior: ImagePrior, *, denoise: bool) -> Tensor:
    """The images, float32 (M, C, *spatial) in [0, 1].

    Args:
        measured: What was measured.
        code: What the layer got to see.
        prior: What the public images say about an image, in cosine coefficients.
        denoise: Whether to return the posterior mean under the prior, or what was measured.
    """
    images = []
    # A few at a time: many records of many pixels, several times over, would be the largest thing in memory.
    for codes, factors, std in zip(
        *(in_chunks_of(value, len(code.gains)) for value in (measured.codes, measured.factors, measured.noise_std)),
        strict=True,
    ):
        scale = code.gains * factors[:, None]
        coefficients = code.centre + codes / scale
        if denoise and bool((std > 0).any()):
            coefficients = posterior_mean(prior, coefficients, (std[:, None] / scale).square_())
        images.append(images_of(coefficients, code.image_shape))
    return torch.cat(images)


def settle_factors(estimates: Tensor, precisions: Tensor, active: Tensor, expectation: Expectation) -> Tensor:
    """Noisy factors (M,), each weighed against the size that |r| has for public images; never 0.

    The mean of two Gaussians' product. A sign is no matter of degree: what is known beforehand is of |r| only.

    Args:
        estimates: float64 (M,).
        precisions: float64 (M,), one over each one's variance; inf without noise.
        active: float64 (M,), how many rows each record activates.
        expectation: From public images.
    """
    mean = expectation.size_mean / active.sqrt()
    variance = max(expectation.size_variance, 1e-6 * expectation.size_mean**2) / active
    # Shares instead of sums: an infinite precision has a share of 1.
    share = 1 / (1 + 1 / (variance * precisions))
    size = share * estimates.abs() + (1 - share) * mean
    smallest = torch.finfo(torch.float64).tiny
    return torch.copysign(size.clamp(min=smallest), estimates)
