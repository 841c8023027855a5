"""A small net that chooses among what filters offer, pixel by pixel, and adds what they all miss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WIDTH = 24
_DILATIONS = (1, 2, 4)
"""Of the hidden layers; together with the first and last one an output sees 19 pixels across."""
_MISSED = 0.1
"""What a unit of the net's own addition counts, so that it begins near the filters."""


class ChoosingNet(nn.Module):
    """Weights that add up to 1 over K candidates, and a residual, by dilated convolutions (Zhang et al. 2017).

    Beside the candidates it sees how far each is from the damaged image on the whole, which tells the noise's strength.

    Args:
        candidates: K, at least 2; the first is the damaged image itself.
        channels: C.
        spatial_dims: 2 or 3.
    """

    def __init__(self, candidates: int, channels: int, spatial_dims: int) -> None:
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[spatial_dims]
        seen = candidates * channels + candidates - 1
        widths = (seen, *[_WIDTH] * len(_DILATIONS))
        layers: list[nn.Module] = []
        for before, after, dilation in zip(widths, widths[1:], _DILATIONS, strict=False):
            layers += [convolution(before, after, 3, padding=dilation, dilation=dilation), nn.ReLU()]
        layers.append(convolution(_WIDTH, candidates + channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, offered: Tensor) -> Tensor:
        """The restored images (B, C, *spatial), not clamped, of candidates (B, K, C, *spatial) in [0, 1]."""
        count = offered.shape[1]
        # Each image's own few numbers, the same at every pixel.
        distance = (offered[:, 1:] - offered[:, :1]).flatten(start_dim=2).square().mean(dim=2).sqrt()
        spread = distance.reshape(*distance.shape, *[1] * (offered.dim() - 3)).expand(-1, -1, *offered.shape[3:])
        out = self.layers(torch.cat([offered.flatten(start_dim=1, end_dim=2), spread], dim=1))
        weights = out[:, :count].softmax(dim=1)[:, :, None]
        restored: Tensor = (weights * offered).sum(dim=1) + _MISSED * out[:, count:]
        return restored
