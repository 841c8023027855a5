"""Convolutions with weight standardisation (Qiao et al. 2019, arXiv 1903.10520).

Before every use, each filter's weights are shifted to mean 0 and scaled to variance 1 over the filter's own inputs.
Unlike BatchNorm this looks at the weights alone, never at the records, so it can stand in a net under DP-SGD. There are
no parameters beside those of the plain convolution, and no buffers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


def standardize(weight: Tensor, eps: float) -> Tensor:
    """Each filter with mean 0 and variance 1 (Qiao et al. 2019, W-hat, with eps under the root).

        standardized[o] = (weight[o] - mean(weight[o])) / sqrt(var(weight[o]) + eps)

    Mean and variance run over everything but dimension 0; the variance is the population's (divided by the number of
    elements, not by one less), and comes out as var / (var + eps). A filter of a single element becomes 0: it is its
    own mean.

    Args:
        weight: Filters (out, in / groups, *kernel); any shape of at least two dimensions.
        eps: Added to the variance, positive.

    Returns:
        A tensor of the same shape and dtype; gradients pass through mean and variance too.
    """
    return standardization(weight, eps)[0]


def standardization(weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """As :func:`standardize`, and the factor 1 / sqrt(var + eps) of each filter, (out, 1, ...)."""
    inside = tuple(range(1, weight.dim()))
    centred = weight - weight.mean(dim=inside, keepdim=True)
    # Not torch.var: it makes one careful pass over each filter, many times slower than two plain ones.
    scale = torch.rsqrt(centred.square().mean(dim=inside, keepdim=True) + eps)
    return centred * scale, scale


class _Standardizing(_ConvNd):
    """What the three classes below add to the plain convolution that each of them is.

    Attributes:
        eps: Added to a filter's variance.
    """

    eps: float = 1e-5

    def forward(self, input: Tensor) -> Tensor:
        """Features (b, out, *spatial') of features (b, in, *spatial)."""
        features: Tensor = self._conv_forward(input, standardize(self.weight, self.eps), self.bias)
        return features


class WeightStandardizedConv1d(_Standardizing, nn.Conv1d):
    """``nn.Conv1d``, with all its options, that convolves with :func:`standardize` of its weight."""


class WeightStandardizedConv2d(_Standardizing, nn.Conv2d):
    """``nn.Conv2d``, with all its options, that convolves with :func:`standardize` of its weight."""


class WeightStandardizedConv3d(_Standardizing, nn.Conv3d):
    """``nn.Conv3d``, with all its options, that convolves with :func:`standardize` of its weight."""
