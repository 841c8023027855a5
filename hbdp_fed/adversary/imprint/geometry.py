"""What is planted in an imprint model, and how to read it back from the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hbdp_fed.models.imprint import dct2, inverse_dct2
from hbdp_fed.types import Weights


@dataclass(frozen=True)
class Geometry:
    """The planted layer in the adversary's terms. D = C * H * W cosine coefficients, all tensors float64.

    Attributes:
        image_shape: (C, H, W).
        gains: (D,), positive: u = gains * (coefficients - centre).
        centre: (D,).
        lower: (bins,), where each bin begins, in mean brightness, ascending.
        upper: (bins,), where each bin ends; the next one's lower.
    """

    image_shape: tuple[int, int, int]
    gains: Tensor
    centre: Tensor
    lower: Tensor
    upper: Tensor

    @property
    def brightness(self) -> Tensor:
        """The linear form (D,) that maps coefficients to the image's mean: it reads each channel's first one."""
        channels, height, width = self.image_shape
        form = torch.zeros(channels, height * width, dtype=torch.float64)
        form[:, 0] = 1 / (channels * math.sqrt(height * width))
        return form.flatten()

    def encode(self, images: Tensor) -> Tensor:
        """What the imprint layer gets to see of images (b, C, H, W): u, float64 (b, D)."""
        return self.gains * (coefficients_of(images) - self.centre)

    def to_weights(self, *, ceiling: float) -> dict[str, Tensor]:
        """The planted weights, float32, by their names in :class:`hbdp_fed.models.imprint.ImprintModel`."""
        # Bin i rises from 0 to the ceiling between its cuts; in terms of u, which the layer sees, not of brightness.
        slope = ceiling / (self.upper - self.lower)
        form = self.brightness
        weights = {
            "spectrum.weight": self.gains,
            "spectrum.bias": -self.gains * self.centre,
            "imprint.weight": slope[:, None] * (form / self.gains),
            "imprint.bias": slope * (form @ self.centre - self.lower),
        }
        return {name: value.float() for name, value in weights.items()}


def read_geometry(args: Mapping[str, Any], weights: Weights) -> Geometry:
    """The inverse of :meth:`Geometry.to_weights`, up to float32.

    Args:
        args: The imprint model's arguments (``in_channels``, ``image_size``, ``ceiling``).
        weights: Its weights.
    """
    channels, (height, width), ceiling = args["in_channels"], args["image_size"], args["ceiling"]
    gains = weights["spectrum.weight"].double()
    geometry = Geometry(
        image_shape=(int(channels), int(height), int(width)),
        gains=gains,
        centre=-weights["spectrum.bias"].double() / gains,
        lower=torch.zeros(0),
        upper=torch.zeros(0),
    )
    form = geometry.brightness
    slope = (weights["imprint.weight"].double() @ (gains * form)) / form.square().sum()
    lower = form @ geometry.centre - weights["imprint.bias"].double() / slope
    return Geometry(
        image_shape=geometry.image_shape,
        gains=gains,
        centre=geometry.centre,
        lower=lower,
        upper=lower + float(ceiling) / slope,
    )


def coefficients_of(images: Tensor) -> Tensor:
    """Images (b, C, H, W) as cosine coefficients, float64 (b, D)."""
    return dct2(images.double()).flatten(start_dim=1)


def images_of(coefficients: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """Cosine coefficients (b, D) as images, float32 (b, C, H, W), clipped to the range [0, 1] that images have."""
    return inverse_dct2(coefficients.reshape(-1, *image_shape)).clamp(0.0, 1.0).float()
