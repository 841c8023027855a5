"""Draws images of invented tissue: texture, uneven illumination, vessels, benign structures and lesions.

Every function draws all records at once. Lengths are in units of 1/32 of an image's side, so that a larger image shows
the same anatomy in finer detail; brightness is in units of the full grey scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from hbdp_fed.data.blur import gaussian_blur

SIDE = 32.0
"""The side of every image in units of length."""


@dataclass(frozen=True)
class LesionStyle:
    """How lesions look.

    Attributes:
        radius: Smallest and largest mean radius, in 1/32 of the image's side.
        contrast: Smallest and largest brightness difference to the tissue around; its sign is random.
        roughness: How far the outline deviates from a circle, relative to the radius.
        texture: Standard deviation of the texture inside, relative to the contrast.
    """

    radius: tuple[float, float] = (2.5, 6.0)
    contrast: tuple[float, float] = (0.10, 0.38)
    roughness: float = 0.22
    texture: float = 0.7


def draw_tissue(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Images without lesions: what both classes have in common.

    Args:
        count: N.
        size: H = W, in pixels.
        generator: A CPU generator.

    Returns:
        float32 (N, 1, size, size), mostly within [0, 1] but not clipped.
    """
    level = 0.45 + 0.06 * _normal((count, 1, 1, 1), generator)
    texture = (
        0.07 * coarse_field(count, size, cells=4, generator=generator)
        + 0.05 * coarse_field(count, size, cells=8, generator=generator)
        + 0.04 * fine_field(count, size, scale=1.0, generator=generator)
    )
    structures = (
        _vessels(count, size, number=3, generator=generator)
        + _spots(count, size, number=6, width=(0.5, 0.9), brightest=0.3, generator=generator)
        + _spots(count, size, number=2, width=(1.5, 3.5), brightest=0.16, generator=generator)
    )
    # Patients differ in how coarse their tissue is, so an image's overall contrast says less about its class.
    coarseness = torch.exp(0.3 * _normal((count, 1, 1, 1), generator))
    illumination = torch.exp(0.12 * coarse_field(count, size, cells=2, generator=generator))
    grain = 0.02 * _normal((count, 1, size, size), generator)
    return illumination * (level + coarseness * texture + structures) + grain


def draw_lesions(count: int, size: int, style: LesionStyle, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One lesion an image, to be added to its tissue: an irregular blob with a texture of its own.

    Args:
        count: N.
        size: H = W, in pixels.
        style: Size, contrast and shape.
        generator: A CPU generator.

    Returns:
        What each lesion adds to the brightness, float32 (N, 1, size, size), and its outline, bool of the same shape:
        where the lesion has at least half of its contrast, its texture aside. No outline of the default style is empty
        from 16 pixels a side.
    """
    radius = _uniform((count, 1, 1), *style.radius, generator)
    # The centre keeps its distance to the border, so that every lesion shows.
    y = _pixel_centres(size)[:, None] - _uniform((count, 1, 1), 0.15 * SIDE, 0.85 * SIDE, generator)
    x = _pixel_centres(size)[None, :] - _uniform((count, 1, 1), 0.15 * SIDE, 0.85 * SIDE, generator)
    distance, angle = torch.hypot(y, x), torch.atan2(y, x)
    waves = torch.zeros_like(angle)
    for order in range(2, 7):
        amplitude = style.roughness / math.sqrt(order) * _normal((count, 1, 1), generator)
        phase = _uniform((count, 1, 1), 0.0, 2 * math.pi, generator)
        waves += amplitude * torch.cos(order * angle + phase)
    outline = radius * (1 + waves).clamp(0.6, 1.6)
    profile = torch.sigmoid((outline - distance) / 0.35)
    sign = torch.where(torch.rand((count, 1, 1), generator=generator) < 0.5, -1.0, 1.0)
    contrast = sign * _uniform((count, 1, 1), *style.contrast, generator)
    texture = fine_field(count, size, scale=0.8, generator=generator)[:, 0]
    added = contrast * profile * (1 + style.texture * texture)
    return added[:, None], (outline >= distance)[:, None]


def coarse_field(count: int, size: int, *, cells: int, generator: torch.Generator) -> Tensor:
    """Smooth random fields: normal values on a grid of ``cells`` intervals a side, interpolated by cubics.

    Returns:
        float32 (count, 1, size, size); mean 0, standard deviation 1 at the grid's points and somewhat less between.
    """
    knots = _normal((count, 1, cells + 1, cells + 1), generator)
    return functional.interpolate(knots, size=(size, size), mode="bicubic", align_corners=True)


def fine_field(count: int, size: int, *, scale: float, generator: torch.Generator) -> Tensor:
    """Stationary random fields: white noise blurred by a Gaussian.

    Args:
        count: N.
        size: H = W, in pixels.
        scale: The Gaussian's standard deviation in 1/32 of the side.
        generator: A CPU generator.

    Returns:
        float32 (N, 1, size, size) with mean 0 and a standard deviation of about 1.
    """
    sigma = scale * size / SIDE
    margin = math.ceil(4 * sigma)
    noise = _normal((count, 1, size + 2 * margin, size + 2 * margin), generator)
    field = gaussian_blur(noise, sigma)[..., margin:-margin, margin:-margin]
    # White noise under a Gaussian of standard deviation s keeps the variance 1 / (4 pi s^2), for s not far below 1.
    return field * (2 * math.sqrt(math.pi) * sigma)


def _vessels(count: int, size: int, *, number: int, generator: torch.Generator) -> Tensor:
    """Bent lines through the image, brighter or darker than the tissue: float32 (count, 1, size, size)."""
    centres = _pixel_centres(size)
    total = torch.zeros(count, size, size)
    for _ in range(number):
        y = centres[:, None] - _uniform((count, 1, 1), 0.0, SIDE, generator)
        x = centres[None, :] - _uniform((count, 1, 1), 0.0, SIDE, generator)
        direction = _uniform((count, 1, 1), 0.0, 2 * math.pi, generator)
        along = y * torch.cos(direction) + x * torch.sin(direction)
        across = x * torch.cos(direction) - y * torch.sin(direction)
        bend = 0.02 * _normal((count, 1, 1), generator)
        width = _uniform((count, 1, 1), 0.5, 1.0, generator)
        # To first order, the distance to the parabola across = bend * along^2.
        squared = (across - bend * along.square()).square() / (1 + (2 * bend * along).square())
        total += _amplitude(count, 0.18, generator) * torch.exp(-0.5 * squared / width.square())
    return total[:, None]


def _spots(
    count: int, size: int, *, number: int, width: tuple[float, float], brightest: float, generator: torch.Generator
) -> Tensor:
    """Round spots without an edge or a texture, ``number`` of them an image: float32 (count, 1, size, size)."""
    centres = _pixel_centres(size)
    total = torch.zeros(count, size, size)
    for _ in range(number):
        spread = _uniform((count, 1), *width, generator)
        rows, columns = (
            torch.exp(-0.5 * ((centres - _uniform((count, 1), 0.0, SIDE, generator)) / spread).square())
            for _ in range(2)
        )
        total += _amplitude(count, brightest, generator) * rows[:, :, None] * columns[:, None, :]
    return total[:, None]


def _amplitude(count: int, largest: float, generator: torch.Generator) -> Tensor:
    """Brightness differences of a structure, either sign, absent in a third of the images: float32 (count, 1, 1)."""
    value = _uniform((count, 1, 1), -largest, largest, generator)
    return torch.where(torch.rand((count, 1, 1), generator=generator) < 1 / 3, 0.0, value)


def _pixel_centres(size: int) -> Tensor:
    """Where the pixels' centres lie along one side, in units of length: float32 (size,)."""
    return (torch.arange(size, dtype=torch.float32) + 0.5) * (SIDE / size)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)
