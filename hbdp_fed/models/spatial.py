"""What differs between models of images and models of volumes: the layers' classes and the shape of the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from hbdp_fed.models.standardized import WeightStandardizedConv2d, WeightStandardizedConv3d

Builder = Callable[..., nn.Module]


@dataclass(frozen=True)
class SpatialLayers:
    """The layers for one number of spatial dimensions.

    Attributes:
        convolution: PyTorch's.
        standardized_convolution: The same with weight standardisation.
        max_pool: PyTorch's.
        adaptive_max_pool: PyTorch's.
        adaptive_average_pool: PyTorch's.
    """

    convolution: Builder
    standardized_convolution: Builder
    max_pool: Builder
    adaptive_max_pool: Builder
    adaptive_average_pool: Builder


SPATIAL_LAYERS: Mapping[int, SpatialLayers] = {
    2: SpatialLayers(
        nn.Conv2d, WeightStandardizedConv2d, nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d
    ),
    3: SpatialLayers(
        nn.Conv3d, WeightStandardizedConv3d, nn.MaxPool3d, nn.AdaptiveMaxPool3d, nn.AdaptiveAvgPool3d
    ),
}  # fmt: skip
"""By the number of spatial dimensions: 2 for images, 3 for volumes."""


def layers_for(spatial_dims: int) -> SpatialLayers:
    """The layers for images or volumes.

    Raises:
        ValueError: if ``spatial_dims`` is neither 2 nor 3.
    """
    check_spatial_dims(spatial_dims)
    return SPATIAL_LAYERS[spatial_dims]


def check_spatial_dims(spatial_dims: int) -> None:
    """Refuse a number of spatial dimensions that no model takes."""
    if spatial_dims not in SPATIAL_LAYERS:
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}")


def check_shape(images: Tensor, *, spatial_dims: int, smallest_side: int) -> None:
    """Refuse images (b, c, *spatial) with another number of spatial dimensions or a side below the smallest."""
    sides = tuple(images.shape[2:])
    if len(sides) != spatial_dims or min(sides) < smallest_side:
        raise ValueError(
            f"images must have {spatial_dims} spatial dimensions of at least {smallest_side} after batch and channels, "
            f"got shape {tuple(images.shape)}"
        )
