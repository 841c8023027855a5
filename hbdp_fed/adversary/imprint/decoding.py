"""From the planted layer's noisy gradient to images: which bins hold a record, how loud each is, what it shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.adversary.imprint.geometry import Geometry, images_of
from hbdp_fed.adversary.prior import ImagePrior, posterior_mean

_ROUNDING = 1e-12
"""Without noise, a bin with less than this share of the loudest bin's energy holds rounding errors."""


@dataclass(frozen=True)
class PlantedGradient:
    """The sum of the records' clipped gradients in the planted layer, plus noise. All float64.

    Attributes:
        rows: (bins, D), each the sum of r * u over the bin's records.
        bias: (bins,), each the sum of r.
        noise_std: Standard deviation of the noise in every coordinate, sigma * C; 0 without privacy.
    """

    rows: Tensor
    bias: Tensor
    noise_std: float


@dataclass(frozen=True)
class Expectation:
    """What the public images let the adversary expect of a bin that holds one record.

    Attributes:
        energy: float64 (D,), E[(r * u_j)^2].
        factor_mean: E|r|.
        factor_variance: Var|r|.
        occupancy: The probability that a bin holds any record.
    """

    energy: Tensor
    factor_mean: float
    factor_variance: float
    occupancy: float


@dataclass(frozen=True)
class Decoded:
    """What was found, surest first.

    Attributes:
        images: float32 (M, C, H, W) in [0, 1].
        scores: float64 (M,): log-likelihood ratio of a record against noise alone; without noise the gradient's norm.
        bins: int64 (M,), where each was found.
    """

    images: Tensor
    scores: Tensor
    bins: Tensor


def expect(public_codes: Tensor, *, max_grad_norm: float, expected_batch: float, bins: int) -> Expectation:
    """What to expect of one record, from public images' codes u (float64 (P, D)).

    A clipped record whose planted layer takes the whole norm has |r| = C / sqrt(|u|^2 + 1).
    """
    norm = max_grad_norm if math.isfinite(max_grad_norm) else 1.0
    factor = norm / (public_codes.square().sum(dim=1) + 1).sqrt()
    return Expectation(
        energy=(factor[:, None] * public_codes).square().mean(dim=0),
        factor_mean=float(factor.mean()),
        factor_variance=float(factor.var()),
        occupancy=-math.expm1(-expected_batch / bins),
    )


def decode(
    gradient: PlantedGradient, geometry: Geometry, prior: ImagePrior, expectation: Expectation, *, denoise: bool
) -> Decoded:
    """Rebuild an image from every bin that holds a record.

    Args:
        gradient: What the hospital's update says about the planted layer.
        geometry: What was planted.
        prior: What the public images say about an image.
        expectation: And about a record's gradient.
        denoise: Whether to return the posterior mean under the prior, or what was measured.
    """
    found, scores = _detect(gradient, expectation)
    order = found[torch.argsort(scores[found], descending=True, stable=True)]
    rows = gradient.rows[order]
    factors = _factors(gradient, geometry, expectation, order)
    coefficients = geometry.centre + rows / (geometry.gains * factors[:, None])
    if denoise and gradient.noise_std > 0:
        deviation = gradient.noise_std / (geometry.gains * factors[:, None])
        coefficients = posterior_mean(prior, coefficients, deviation.square())
    return Decoded(images=images_of(coefficients, geometry.image_shape), scores=scores[order], bins=order)


def _detect(gradient: PlantedGradient, expectation: Expectation) -> tuple[Tensor, Tensor]:
    """The bins (int64 (M,)) where a record is likelier than none, and every bin's score (float64 (bins,)).

    The most powerful test between the noise, N(0, s^2), and noise with a record's coefficients, N(0, s^2 + energy_j):
    a likelihood ratio (Neyman and Pearson 1933), with Bayes' threshold at the odds of an occupied bin.
    """
    energy = gradient.rows.square().sum(dim=1) + gradient.bias.square()
    if gradient.noise_std == 0:
        loudest = float(energy.max())
        return torch.nonzero((energy > 0) & (energy > _ROUNDING * loudest)).flatten(), energy.sqrt()
    noise = gradient.noise_std**2
    factor_energy = expectation.factor_mean**2 + expectation.factor_variance
    expected = torch.cat([expectation.energy, torch.tensor([factor_energy], dtype=torch.float64)])
    seen = torch.cat([gradient.rows, gradient.bias[:, None]], dim=1).square()
    log_ratio = 0.5 * (seen @ (1 / noise - 1 / (noise + expected)) - torch.log1p(expected / noise).sum())
    threshold = math.log1p(-expectation.occupancy) - math.log(expectation.occupancy)
    return torch.nonzero(log_ratio > threshold).flatten(), log_ratio


def _factors(gradient: PlantedGradient, geometry: Geometry, expectation: Expectation, bins: Tensor) -> Tensor:
    """Each found record's factor r, sign included, float64 (M,).

    Three witnesses, weighted by their variances: the bias gradient, which is r itself plus noise; the row's mean
    brightness over the brightness of the bin, which averages the noise over all pixels; and, where records are
    clipped, the size that |r| has for public images. Without noise the bias gradient is exact and stands alone.
    """
    bias = gradient.bias[bins]
    if gradient.noise_std > 0:
        noise = gradient.noise_std**2
        form = geometry.brightness / geometry.gains
        offset = geometry.brightness @ geometry.centre
        distance = (geometry.lower + geometry.upper)[bins] / 2 - offset
        width = (geometry.upper - geometry.lower)[bins]
        # The row says r * distance; the record may lie anywhere in its bin.
        uncertainty = noise * form.square().sum() + expectation.factor_mean**2 * width.square() / 12
        precision = 1 / noise + distance.square() / uncertainty
        estimate = (bias / noise + (gradient.rows[bins] @ form) * distance / uncertainty) / precision
        # A sign is no matter of degree: the prior speaks of |r| only.
        prior_precision = 1 / max(expectation.factor_variance, 1e-6 * expectation.factor_mean**2)
        size = (precision * estimate.abs() + prior_precision * expectation.factor_mean) / (precision + prior_precision)
        bias = torch.copysign(size, estimate)
    smallest = torch.finfo(torch.float64).tiny
    return torch.where(bias.abs() > smallest, bias, torch.full_like(bias, smallest))
