"""The linear probe: a one-layer model whose gradient for one record is the record's image times a factor.

Ziller et al. 2024 (arXiv 2402.12861) let a malicious server hand out the model that gives away most: a single linear
layer over all pixels x. Its answer goes to one output and nothing else does,

    logits = (gain * (w . x), 0, ..., 0),    dL/dw = r x,    r = gain * dL/d(first logit).

It is handed out at w = 0, where r does not depend on the image. Every prediction is then uniform over K classes, and a
record with the label y, counted with the weight c[y], has

    r = gain c[y] (1/K - [y = 0])                             for the cross-entropy,
    r = gain (1 - y[0] - c[0] y[0]) / (2 K)                   for the binary cross-entropy of K findings.

Neither is ever zero (the cross-entropy needs two classes). With a voice for every class it would be for some: the
findings' shares of the gradient cancel in a patient without any, if half of the voices are -1 and half 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class LinearProbeModel(nn.Module):
    """One weight for every pixel, ``probe.weight`` (1, D) with D = C * prod(image_size), and nothing else to train.

    Args:
        in_channels: C.
        num_classes: K.
        image_size: (H, W) or (D, H, W), as a sequence so that it can come from JSON.
        gain: Factor on the first logit, positive.
        dense: Whether there are logits for every pixel or voxel, as in a segmentation. Then the first one alone
            answers: summed over all of them, the parts of different labels could cancel.
    """

    def __init__(
        self, in_channels: int, num_classes: int, image_size: Sequence[int], gain: float, dense: bool = False
    ) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels}")
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        if len(image_size) not in (2, 3) or min(image_size) < 1:
            raise ValueError(f"image_size must be two or three positive numbers, got {list(image_size)}")
        if not (gain > 0 and math.isfinite(gain)):
            raise ValueError(f"gain must be positive and finite, got {gain}")
        self.probe = nn.Linear(in_channels * math.prod(image_size), 1, bias=False)
        self.gain = gain
        self.output_shape = torch.Size([num_classes, *(image_size if dense else ())])

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, K) or, where dense, (b, K, *image_size) of images (b, C, *image_size)."""
        answer = self.gain * self.probe(images.flatten(start_dim=1))
        silent = self.output_shape.numel() - 1
        return functional.pad(answer, (0, silent)).reshape(-1, *self.output_shape)
