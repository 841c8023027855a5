"""The architecture that a malicious server hands out: a model with an imprint layer beside it.

Fowl et al. 2021 (arXiv 2110.13057) plant a layer whose gradient holds the records themselves. This is the form with
exactly one active bin a record, so that each record's gradient stands alone in one row of the layer:

    logits = base_scale * base(x) + readout(clamp(imprint(u), 0, ceiling)),    u = spectrum(x)

Bin i's pre-activation runs from 0 to ``ceiling`` while the images' measurement runs from cut i to cut i + 1. Below and
above it is saturated and passes no gradient. For the one active bin

    dL/d(imprint.weight[i]) = r * u    and    dL/d(imprint.bias[i]) = r,    r = (readout.weight^T dL/d(logits))[i].

``u`` is the image's two-dimensional cosine transform, each coefficient scaled and shifted by planted weights. With
scale 1 and shift 0 the transform is orthonormal and u is the image itself in another basis. A malicious server does
better: a record's clipped gradient has a fixed norm, so whatever part of u the server could have guessed drowns the
part that it could not.

Every layer has a rule for per-record gradients, and nothing has buffers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def dct_matrix(size: int, *, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """The orthonormal DCT-II as a matrix (size, size): row k holds the cosine of frequency k (Ahmed et al. 1974)."""
    # Built in float64: cosines of large arguments lose digits in float32.
    position = torch.arange(size, dtype=torch.float64, device=device)
    matrix = torch.cos(math.pi / size * (position + 0.5) * position[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.to(dtype)


def dct2(images: Tensor) -> Tensor:
    """The orthonormal two-dimensional cosine transform of each channel; any (..., H, W), same shape and dtype."""
    rows = dct_matrix(images.shape[-2], dtype=images.dtype, device=images.device)
    columns = dct_matrix(images.shape[-1], dtype=images.dtype, device=images.device)
    return rows @ images @ columns.T


def inverse_dct2(coefficients: Tensor) -> Tensor:
    """The inverse of :func:`dct2`."""
    rows = dct_matrix(coefficients.shape[-2], dtype=coefficients.dtype, device=coefficients.device)
    columns = dct_matrix(coefficients.shape[-1], dtype=coefficients.dtype, device=coefficients.device)
    return rows.T @ coefficients @ columns


class Spectrum(nn.Module):
    """Cosine coefficients, each scaled and shifted by a weight of its own: u = weight * dct2(x) + bias.

    Starts as the plain orthonormal transform.

    Args:
        num_coefficients: D = C * H * W.
    """

    def __init__(self, num_coefficients: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_coefficients))
        self.bias = nn.Parameter(torch.zeros(num_coefficients))

    def forward(self, images: Tensor) -> Tensor:
        """Coefficients (b, D) of images (b, C, H, W)."""
        return dct2(images).flatten(start_dim=1) * self.weight + self.bias


class ImprintModel(nn.Module):
    """A base model with an imprint layer beside it.

    Args:
        base: The model that the hospitals expect; its logits are (b, num_classes).
        in_channels: C.
        num_classes: K.
        image_size: (H, W), as a sequence so that it can come from JSON.
        bins: Rows of the imprint layer, at least 2.
        ceiling: Where a bin saturates, positive.
        base_scale: Factor on the base's logits, at least 0; 0 silences the base and its gradient altogether.
    """

    def __init__(
        self,
        base: nn.Module,
        *,
        in_channels: int,
        num_classes: int,
        image_size: Sequence[int],
        bins: int,
        ceiling: float,
        base_scale: float = 1.0,
    ) -> None:
        super().__init__()
        height, width = image_size
        if bins < 2:
            raise ValueError(f"bins must be at least 2, got {bins}")
        if not (ceiling > 0 and math.isfinite(ceiling)):
            raise ValueError(f"ceiling must be positive and finite, got {ceiling}")
        if not (base_scale >= 0 and math.isfinite(base_scale)):
            raise ValueError(f"base_scale must be finite and not negative, got {base_scale}")
        num_coefficients = in_channels * height * width
        self.base = base
        self.spectrum = Spectrum(num_coefficients)
        self.imprint = nn.Linear(num_coefficients, bins)
        self.readout = nn.Linear(bins, num_classes, bias=False)
        self.ceiling = ceiling
        self.base_scale = base_scale

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, K) of images (b, C, H, W) in [0, 1]."""
        bins = functional.hardtanh(self.imprint(self.spectrum(images)), 0.0, self.ceiling)
        # At base_scale 0 the base still runs: every parameter keeps a gradient, which DP-SGD needs, even if it is zero.
        logits: Tensor = self.base_scale * self.base(images) + self.readout(bins)
        return logits
