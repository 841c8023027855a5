"""The architecture that a malicious server hands out: a model with a fully connected layer planted beside it.

    logits = base_scale * base(x) + readout(activation(planted(u))),    u = spectrum(x)

The planted layer's gradient holds the records themselves. Where a record activates row i,

    dL/d(planted.weight[i]) = r * u    and    dL/d(planted.bias[i]) = r,    r = (readout.weight^T dL/d(logits))[i],

and a row that is not active has no gradient. Two attacks plant it. The imprint attack (Fowl et al. 2021, arXiv
2110.13057) makes each row rise between two values of one measurement only, with clamp(., 0, ceiling) for the
activation: exactly one row is active for a record. Trap weights (Boenisch et al. 2021, arXiv 2112.02918) are ordinary
rectified rows, of which a record activates few.

``u`` is the image's cosine transform, each coefficient scaled and shifted by planted weights. With scale 1 and shift 0
the transform is orthonormal and u is the image itself in another basis. A malicious server does better: a record's
clipped gradient has a fixed norm, so whatever part of u the server could have guessed drowns the part that it could
not.

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


def dct(images: Tensor) -> Tensor:
    """The orthonormal cosine transform of each channel along all its axes; (b, C, *spatial), same shape and dtype."""
    for axis in range(2, images.dim()):
        matrix = dct_matrix(images.shape[axis], dtype=images.dtype, device=images.device)
        images = _along(axis, images, matrix)
    return images


def inverse_dct(coefficients: Tensor) -> Tensor:
    """The inverse of :func:`dct`."""
    for axis in range(2, coefficients.dim()):
        matrix = dct_matrix(coefficients.shape[axis], dtype=coefficients.dtype, device=coefficients.device)
        coefficients = _along(axis, coefficients, matrix.T)
    return coefficients


def _along(axis: int, values: Tensor, matrix: Tensor) -> Tensor:
    """Every line of ``values`` along ``axis``, multiplied by ``matrix``."""
    return (values.movedim(axis, -1) @ matrix.T).movedim(-1, axis)


class Spectrum(nn.Module):
    """Cosine coefficients, each scaled and shifted by a weight of its own: u = weight * dct(x) + bias.

    Starts as the plain orthonormal transform.

    Args:
        num_coefficients: D = C times the pixels.
    """

    def __init__(self, num_coefficients: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_coefficients))
        self.bias = nn.Parameter(torch.zeros(num_coefficients))

    def forward(self, images: Tensor) -> Tensor:
        """Coefficients (b, D) of images (b, C, *spatial)."""
        return dct(images).flatten(start_dim=1) * self.weight + self.bias


class PlantedModel(nn.Module):
    """A base model with a planted layer beside it.

    Args:
        base: The model that the hospitals expect; its logits are (b, num_classes).
        in_channels: C.
        num_classes: K.
        image_size: The sides, (H, W) or those of a volume, as a sequence so that it can come from JSON.
        rows: Of the planted layer, at least 2.
        ceiling: Where a row saturates, positive; None for a plain ReLU, which does not.
        base_scale: Factor on the base's logits, at least 0; 0 silences the base and its gradient altogether.
    """

    def __init__(
        self,
        base: nn.Module,
        *,
        in_channels: int,
        num_classes: int,
        image_size: Sequence[int],
        rows: int,
        ceiling: float | None = None,
        base_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if rows < 2:
            raise ValueError(f"rows must be at least 2, got {rows}")
        if ceiling is not None and not (ceiling > 0 and math.isfinite(ceiling)):
            raise ValueError(f"ceiling must be positive and finite, or null, got {ceiling}")
        if not (base_scale >= 0 and math.isfinite(base_scale)):
            raise ValueError(f"base_scale must be finite and not negative, got {base_scale}")
        num_coefficients = in_channels * math.prod(image_size)
        self.base = base
        self.spectrum = Spectrum(num_coefficients)
        self.planted = nn.Linear(num_coefficients, rows)
        self.readout = nn.Linear(rows, num_classes, bias=False)
        self.ceiling = ceiling
        self.base_scale = base_scale

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, K) of images (b, C, *spatial) in [0, 1]."""
        rows = self.planted(self.spectrum(images))
        active = functional.relu(rows) if self.ceiling is None else functional.hardtanh(rows, 0.0, self.ceiling)
        # At base_scale 0 the base still runs: every parameter keeps a gradient, which DP-SGD needs, even if it is zero.
        logits: Tensor = self.base_scale * self.base(images) + self.readout(active)
        return logits
