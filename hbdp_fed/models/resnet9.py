"""ResNet-9 with scale normalisation: the net of the study that this system takes to a federation.

Klause et al. 2022 (arXiv 2203.00324) put a normalisation after each residual addition ("scale norm"): the sum of a
block and its shortcut has a larger scale than either, and under DP-SGD's noise nothing else brings it back. Ziller et
al. 2024 train this net, with GroupNorm, Mish and weight-standardised convolutions, at every budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from hbdp_fed.models.spatial import SpatialLayers, check_shape, layers_for

_SMALLEST_SIDE = 16


def _norm(channels: int) -> nn.GroupNorm:
    # The paper's min(32, channels) wherever that divides the channels, and otherwise the largest divisor of both.
    return nn.GroupNorm(num_groups=math.gcd(32, channels), num_channels=channels)


def _block(
    before: int, after: int, convolution: Callable[..., nn.Module], dimensions: SpatialLayers, *, pool: bool = False
) -> nn.Sequential:
    """Convolution, norm and activation, (b, before, *spatial) to (b, after, *spatial); ``pool`` halves each side."""
    layers: list[nn.Module] = [
        # No bias: the norm's own shift follows.
        convolution(before, after, kernel_size=3, padding=1, bias=False),
        _norm(after),
        nn.Mish(),
    ]
    if pool:
        layers.append(dimensions.max_pool(kernel_size=2))
    return nn.Sequential(*layers)


class ResNet9(nn.Module):
    """Eight weight-standardised convolutions in two residual stages, and a linear layer (Klause et al. 2022).

    With width 64, 3 channels and 2 classes it has the paper's 2.4 million weights. Nothing in it mixes records and it
    has no buffers. The smallest image is 16x16: three poolings halve each side, and the last layer before the head
    keeps a maximum of each quarter of what is left. For volumes each layer has three dimensions in place of two, and
    what is left is eight eighths.

    Args:
        in_channels: 1 for grey, 3 for RGB.
        num_classes: Number of logits.
        width: Channels of the first block, a multiple of 4; the later ones have twice and four times as many.
        weight_standardization: Whether the convolutions standardise their weights, as the paper's do.
        spatial_dims: 2 for images (b, c, H, W), the paper's; 3 for volumes (b, c, D, H, W).
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        width: int = 64,
        weight_standardization: bool = True,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise ValueError(f"width must be a positive multiple of 4, got {width}")
        dimensions = layers_for(spatial_dims)
        convolution = dimensions.standardized_convolution if weight_standardization else dimensions.convolution
        block = partial(_block, convolution=convolution, dimensions=dimensions)
        self.spatial_dims = spatial_dims
        self.conv1 = block(in_channels, width)
        self.conv2 = block(width, 2 * width, pool=True)
        self.res1 = nn.Sequential(block(2 * width, 2 * width), block(2 * width, 2 * width))
        self.scale_norm1 = _norm(2 * width)
        self.conv3 = block(2 * width, 4 * width, pool=True)
        self.conv4 = block(4 * width, 4 * width, pool=True)
        self.res2 = nn.Sequential(block(4 * width, 4 * width), block(4 * width, 4 * width))
        self.scale_norm2 = _norm(4 * width)
        self.pool = dimensions.adaptive_max_pool(2)
        self.head = nn.Linear(4 * width * 2**spatial_dims, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, num_classes) of images (b, in_channels, *spatial) in [0, 1]; each side at least 16.

        Raises:
            ValueError: if the images have another number of dimensions or are smaller.
        """
        check_shape(images, spatial_dims=self.spatial_dims, smallest_side=_SMALLEST_SIDE)
        # Public constants: nothing is learnt from private data to normalise it.
        features: Tensor = self.conv2(self.conv1(images * 2 - 1))
        features = self.scale_norm1(features + self.res1(features))
        features = self.conv4(self.conv3(features))
        features = self.scale_norm2(features + self.res2(features))
        logits: Tensor = self.head(self.pool(features).flatten(start_dim=1))
        return logits
