"""A fully connected net for small images, homogeneous in its weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class Mlp(nn.Module):
    """Linear layers with ReLUs between them; the first one alone has a bias.

    Multiplying all parameters by c > 0 multiplies the logits by c to the power of the number of layers: the first
    layer's bias is scaled once, as its weight is, and no other layer has one. Nets of this kind, trained without noise,
    end where each weight is a sum of the training records' gradients (Lyu and Li 2020, arXiv 1906.05890), which is why
    the reconstruction from the final weights (Haim et al. 2022, arXiv 2206.07758) is studied on them.

    Args:
        in_channels: C.
        num_classes: Number of logits.
        image_size: (H, W), as a sequence so that it can come from JSON.
        hidden: Units of each hidden layer, one or more.
        centre: What is taken off each pixel: one number, or C * H * W of them in the order of a flattened image, such
            as the mean of public images. It has to be public, and as it is no parameter, the net stays homogeneous.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        image_size: Sequence[int],
        hidden: Sequence[int] = (256,),
        centre: float | Sequence[float] = 0.5,
    ) -> None:
        super().__init__()
        if len(image_size) != 2 or min(image_size) < 1:
            raise ValueError(f"image_size must be two positive numbers, got {list(image_size)}")
        if not hidden or min(hidden) < 1:
            raise ValueError(f"hidden must be one or more positive numbers of units, got {list(hidden)}")
        self.image_shape = (in_channels, *image_size)
        self.centre = (float(centre),) if isinstance(centre, int | float) else tuple(centre)
        if len(self.centre) not in (1, math.prod(self.image_shape)):
            raise ValueError(f"centre must be 1 or {math.prod(self.image_shape)} numbers, got {len(self.centre)}")
        widths = (math.prod(self.image_shape), *hidden)
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(widths)):
            layers += [nn.Linear(before, after, bias=index == 0), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], num_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, num_classes) of images (b, in_channels, *image_size) in [0, 1].

        Raises:
            ValueError: if the images have another shape.
        """
        if images.shape[1:] != self.image_shape:
            raise ValueError(f"images must have shape {self.image_shape} each, got {tuple(images.shape[1:])}")
        flat = images.flatten(start_dim=1)
        logits: Tensor = self.head(self.features(flat - flat.new_tensor(self.centre)))
        return logits
