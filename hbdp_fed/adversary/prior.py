"""What public images say about an image that was never seen: a Gaussian prior, and the best linear denoiser under it.

Everything is in the cosine basis (:func:`hbdp_fed.models.planted.dct`), where an image's coefficients are nearly
uncorrelated (Ahmed et al. 1974): a few principal components catch what is left, and the rest is a variance a
coefficient. That needs far fewer public images than a full covariance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MIN_IMAGES = 4
"""Fewer public images than this say nothing about a variance in halves."""

_VARIANCE_FLOOR = 1e-6
"""A standard deviation of 0.001 in [0, 1], below the 8 bits of an image: no coefficient is ever known exactly."""


@dataclass(frozen=True)
class ImagePrior:
    """Cosine coefficients ~ N(mean, factors factors^T + diag(residual)).

    Attributes:
        mean: float64 (D,).
        factors: float64 (D, k), principal components times their standard deviations; k may be 0.
        residual: float64 (D,), positive.
    """

    mean: Tensor
    factors: Tensor
    residual: Tensor

    @property
    def variance(self) -> Tensor:
        """Each coefficient's own variance, float64 (D,)."""
        return self.residual + self.factors.square().sum(dim=1)


def fit_prior(coefficients: Tensor, *, rank: int) -> ImagePrior:
    """The prior that public images suggest.

    The residual is measured out of sample: components fitted to one half of the images, what they miss measured on the
    other, and the reverse. In sample, 64 components of 200 images miss almost nothing and the denoiser would trust
    them blindly.

    Args:
        coefficients: float64 (P, D), the images' cosine coefficients; P at least :data:`MIN_IMAGES`.
        rank: At most this many components, and never more than a quarter of the images.

    Raises:
        ValueError: if there are too few images.
    """
    if len(coefficients) < MIN_IMAGES:
        raise ValueError(f"a prior needs at least {MIN_IMAGES} public images, got {len(coefficients)}")
    k = min(rank, len(coefficients) // 4)
    mean = coefficients.mean(dim=0)
    centred = coefficients - mean
    # One half at a time: of images with many pixels, each of these is as large as anything that the attack holds.
    missed = torch.zeros_like(mean)
    for fitted, held_out in ((centred[::2], centred[1::2]), (centred[1::2], centred[::2])):
        directions, _ = _components(fitted, k)
        missed += ((held_out @ directions) @ directions.T).sub_(held_out).square_().sum(dim=0)
    directions, deviations = _components(centred, k)
    return ImagePrior(
        mean=mean,
        factors=directions * deviations,
        residual=missed / len(centred) + _VARIANCE_FLOOR,
    )


def posterior_mean(prior: ImagePrior, measured: Tensor, noise_variance: Tensor) -> Tensor:
    """E[coefficients | measured] for measured = coefficients + N(0, diag(noise_variance)): the Wiener filter.

    It minimises the expected squared error over all linear estimators.

    Args:
        prior: Of D coefficients.
        measured: float64 (M, D).
        noise_variance: float64 (M, D), at least 0.

    Returns:
        float64 (M, D).
    """
    estimates = torch.empty_like(measured)
    for row, variance in enumerate(noise_variance):
        estimates[row] = posterior_mean_at(prior, measured[row : row + 1], variance)[0]
    return estimates


def posterior_mean_at(prior: ImagePrior, measured: Tensor, noise_variance: float | Tensor) -> Tensor:
    """The same where all records have the same noise: one system for all of them.

    With components w ~ N(0, I) the posterior of w needs a (k, k) system (Woodbury's identity); given w the coefficients
    are independent.

    Args:
        prior: Of D coefficients.
        measured: float64 (M, D).
        noise_variance: At least 0, of every coefficient; or float64 (D,), of each.

    Returns:
        float64 (M, D).
    """
    total = prior.residual + noise_variance
    weighted = prior.factors / total[:, None]
    inner = torch.eye(prior.factors.shape[1], dtype=torch.float64) + weighted.T @ prior.factors
    deviation = measured - prior.mean
    components: Tensor = torch.linalg.solve(inner, (deviation @ weighted).T).T
    explained = components @ prior.factors.T
    return prior.mean + explained + prior.residual / total * (deviation - explained)


def _components(centred: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The leading k principal directions (D, k) of centred images (P, D), and the standard deviations (k,)."""
    # By the (P, P) Gram matrix: there are far fewer images than pixels. Its eigenvalues ascend.
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    lengths = values[len(values) - k :].clamp(min=0.0).sqrt()
    # Fewer independent images than components leave lengths of rounding errors, which are no directions.
    real = lengths > 1e-7 * lengths.max() if k else lengths.bool()
    directions = centred.T @ vectors[:, len(values) - k :] / torch.where(real, lengths, torch.inf)
    return directions, lengths * real / max(len(centred) - 1, 1) ** 0.5
