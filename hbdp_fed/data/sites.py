"""What a site's scanner does to its images: the same anatomy looks different at another hospital."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.polynomial import legendre
from torch import Tensor

from hbdp_fed.data.blur import gaussian_blur
from hbdp_fed.data.checks import check_number
from hbdp_fed.data.contract import as_floats

_DEGREE = 3
"""Of the bias field's polynomial, as in MONAI's ``RandBiasField``."""

_TERMS = tuple(
    (i, j, k)
    for k in range(_DEGREE + 1)
    for i in range(_DEGREE + 1)
    for j in range(_DEGREE + 1)
    if 0 < i + j + k <= _DEGREE
)
"""The exponents of its terms along the sides; an image has those without a third side, which come first."""

_FWHM = math.sqrt(8 * math.log(2))
"""A Gaussian's full width at half maximum over its standard deviation."""

_AT_ONCE = 256
"""Images rendered at a time, so that memory for intermediate results stays small."""


@dataclass(frozen=True)
class Scanner:
    """A site's appearance. The defaults change nothing.

    Attributes:
        resolution: Full width at half maximum of the point spread in pixels (voxels), the same along every side; not
            negative.
        bias_field: How far the receiver's sensitivity (or the lighting) strays over the image: its logarithm reaches
            this at one place and nowhere exceeds it, to either side. Not negative.
        bias_coefficients: The field's shape, weights of products of Legendre polynomials up to the third degree.
        gamma: The exponent of the contrast curve v -> v^gamma over [0, 1], positive; above 1 is darker.
        noise: Standard deviation of the grain in grey scales, not negative.
    """

    resolution: float = 0.0
    bias_field: float = 0.0
    bias_coefficients: tuple[float, ...] = ()
    gamma: float = 1.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        figures = (self.resolution, self.bias_field, self.gamma, self.noise, *self.bias_coefficients)
        if not all(math.isfinite(value) for value in figures):
            raise ValueError(f"a scanner's figures must be finite: {self}")
        if min(self.resolution, self.bias_field, self.noise) < 0 or self.gamma <= 0:
            raise ValueError(f"resolution, bias_field and noise must not be negative, gamma must be positive: {self}")
        if self.bias_field > 0 and not (len(self.bias_coefficients) == len(_TERMS) and any(self.bias_coefficients)):
            raise ValueError(f"a bias field must have {len(_TERMS)} coefficients that are not all 0: {self}")

    @property
    def changes_nothing(self) -> bool:
        """Whether images leave it as they came."""
        return self.resolution == self.bias_field == self.noise == 0 and self.gamma == 1


def draw_scanner(strength: float, generator: torch.Generator) -> Scanner:
    """Draw a site's scanner.

    Every deviation from the identity is proportional to ``strength`` (that of gamma in its logarithm), so raising it
    moves a site along its own direction. At 1, resolution is up to 2.4 pixels, gamma between 0.6 and 1.65, the bias
    field up to 0.4 (a factor of 1.5 either way) and noise up to 0.06.

    Args:
        strength: 0 for the identity, 1 for sites that differ strongly.
        generator: A CPU generator.

    Raises:
        SettingError: if ``strength`` is outside [0, 1].
    """
    strength = check_number("data.scanner_shift", strength, low=0.0, high=1.0)
    resolution, gamma, field, noise = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    shape = (2 * torch.rand(len(_TERMS), generator=generator, dtype=torch.float64) - 1).tolist()
    if strength == 0:
        return Scanner()
    return Scanner(
        resolution=strength * 2.4 * resolution,
        bias_field=strength * 0.4 * field,
        bias_coefficients=tuple(shape),
        gamma=math.exp(strength * 0.5 * (2 * gamma - 1)),
        noise=strength * 0.06 * noise,
    )


def bias_field(scanner: Scanner, shape: tuple[int, ...]) -> Tensor:
    """The factor by which a scanner's sensitivity multiplies each pixel.

    The exponential of a polynomial, as in MONAI's ``RandBiasField`` (after Sudre et al. 2017, arXiv 1708.08487). That
    transform draws its polynomial anew for every image; a site's field stays the same, and its range is stated.

    Args:
        scanner: Whose.
        shape: Two or three sides of an image, none shorter than 2.

    Returns:
        float32, ``shape``, between exp(-bias_field) and exp(bias_field).
    """
    sides = [np.linspace(-1.0, 1.0, side) for side in shape]
    weights = np.zeros((_DEGREE + 1,) * len(shape))
    for term, weight in zip(_TERMS, scanner.bias_coefficients, strict=True):
        if not any(term[len(shape) :]):
            weights[term[: len(shape)]] = weight
    if len(shape) == 2:
        polynomial = legendre.leggrid2d(sides[0], sides[1], weights)
    else:
        polynomial = legendre.leggrid3d(sides[0], sides[1], sides[2], weights)
    field = np.exp(scanner.bias_field * polynomial / np.abs(polynomial).max())
    return torch.from_numpy(field).float()


def apply_scanner(images: Tensor, scanner: Scanner, grains: Iterable[torch.Generator]) -> Tensor:
    """Render images as ``scanner`` would: point spread, bias field, contrast curve, grain, in this order.

    Each image is treated by itself: what becomes of one does not depend on which others are in the batch.

    Args:
        images: (N, C, H, W) or (N, C, D, H, W), float32 in [0, 1] or uint8 (see :func:`~hbdp_fed.data.as_floats`).
        scanner: The site's scanner; one that changes nothing returns ``images`` itself.
        grains: One CPU generator an image, for its grain.

    Returns:
        float32 of the same shape, clipped to [0, 1].
    """
    if scanner.changes_nothing:
        return images
    shape = tuple(images.shape[2:])
    field = bias_field(scanner, shape) if scanner.bias_field > 0 else None
    rendered = torch.empty(images.shape)
    for seen, own in zip(rendered.split(_AT_ONCE), images.split(_AT_ONCE), strict=True):
        # The copy: of float images, as_floats returns the data set's own.
        seen.copy_(gaussian_blur(as_floats(own), scanner.resolution / _FWHM))
        if field is not None:
            seen.mul_(field)
        seen.clamp_(0, 1).pow_(scanner.gamma)
    if scanner.noise > 0:
        for seen, grain in zip(rendered, grains, strict=True):
            seen.add_(torch.randn(seen.shape, generator=grain), alpha=scanner.noise)
    return rendered.clamp_(0, 1)
