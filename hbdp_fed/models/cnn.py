"""A small convolutional net for small images and volumes: quick on a CPU, and nothing in it mixes records."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from hbdp_fed.models.spatial import check_shape, layers_for

_SMALLEST_SIDE = 8


class SmallCnn(nn.Module):
    """Three blocks of convolution, GroupNorm, ReLU and pooling, then global average pooling and a linear layer.

    The smallest image has sides of 8: three poolings halve each.

    Args:
        in_channels: 1 for grey, 3 for RGB.
        num_classes: Number of logits.
        width: Channels of the first block, a multiple of 4; the next two have twice and four times as many.
        spatial_dims: 2 for images (b, c, H, W), 3 for volumes (b, c, D, H, W).
    """

    def __init__(self, in_channels: int, num_classes: int, width: int = 16, spatial_dims: int = 2) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise ValueError(f"width must be a positive multiple of 4, got {width}")
        layers = layers_for(spatial_dims)
        channels = (in_channels, width, 2 * width, 4 * width)
        blocks: list[nn.Module] = []
        for before, after in pairwise(channels):
            blocks += [
                layers.convolution(before, after, kernel_size=3, padding=1),
                nn.GroupNorm(num_groups=4, num_channels=after),
                nn.ReLU(),
                layers.max_pool(kernel_size=2),
            ]
        self.spatial_dims = spatial_dims
        self.features = nn.Sequential(*blocks)
        self.pool = layers.adaptive_average_pool(1)
        self.head = nn.Linear(channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, num_classes) of images (b, in_channels, *spatial) in [0, 1]; each side at least 8.

        Raises:
            ValueError: if the images have another number of dimensions or are smaller.
        """
        check_shape(images, spatial_dims=self.spatial_dims, smallest_side=_SMALLEST_SIDE)
        # Public constants: nothing is learnt from private data to normalise it.
        features: Tensor = self.features(images * 2 - 1)
        logits: Tensor = self.head(self.pool(features).flatten(start_dim=1))
        return logits
