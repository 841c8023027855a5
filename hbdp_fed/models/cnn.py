"""A small convolutional net for small images: quick on a CPU, and nothing in it mixes records."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class SmallCnn(nn.Module):
    """Three blocks of convolution, GroupNorm, ReLU and pooling, then global average pooling and a linear layer.

    Args:
        in_channels: 1 for grey, 3 for RGB.
        num_classes: Number of logits.
        width: Channels of the first block, a multiple of 4; the next two have twice and four times as many.
    """

    def __init__(self, in_channels: int, num_classes: int, width: int = 16) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise ValueError(f"width must be a positive multiple of 4, got {width}")
        channels = (in_channels, width, 2 * width, 4 * width)
        blocks: list[nn.Module] = []
        for before, after in pairwise(channels):
            blocks += [
                nn.Conv2d(before, after, kernel_size=3, padding=1),
                nn.GroupNorm(num_groups=4, num_channels=after),
                nn.ReLU(),
                nn.MaxPool2d(kernel_size=2),
            ]
        self.features = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, num_classes) of images (b, in_channels, H, W) in [0, 1]; H and W at least 8."""
        # Public constants: nothing is learnt from private data to normalise it.
        features: Tensor = self.features(images * 2 - 1)
        logits: Tensor = self.head(self.pool(features).flatten(start_dim=1))
        return logits
