"""How images are coded before they reach the planted layer, and how that is read back from the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hbdp_fed.models.planted import dct, inverse_dct
from hbdp_fed.types import Weights

_VARIANCE_FLOOR = 1e-6
"""Keeps the gain of a coefficient that never varies in public finite: a standard deviation of 0.001."""

_CHUNK_ELEMENTS = 2**23
"""Coefficients that are held at once where images are looked at one after the other: 64 MB."""


@dataclass(frozen=True)
class Code:
    """u = gains * (coefficients - centre), of D = C times the pixels cosine coefficients; tensors are float64.

    Attributes:
        image_shape: (C, *spatial).
        gains: (D,), positive.
        centre: (D,).
    """

    image_shape: tuple[int, ...]
    gains: Tensor
    centre: Tensor

    def encode(self, images: Tensor) -> Tensor:
        """What the planted layer gets to see of images (b, C, *spatial): u, float64 (b, D)."""
        return coefficients_of(images).sub_(self.centre).mul_(self.gains)

    def encode_in_chunks(self, images: Tensor) -> Iterator[Tensor]:
        """The same for many images, a few at a time and in order."""
        for chunk in in_chunks(images):
            yield self.encode(chunk)

    def layer_on_pixels(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """A fully connected layer without bias on the image's pixels, as one on u.

        Args:
            rows: Weights of the pixels, (n, C, *spatial).

        Returns:
            Weights (n, D) and bias (n,), float64: rows . x = weights . u + bias for every image x.
        """
        # The transform is orthonormal, so that products of images are products of their coefficients.
        coefficients = coefficients_of(rows)
        bias = coefficients @ self.centre
        return coefficients.div_(self.gains), bias

    def to_weights(self) -> dict[str, Tensor]:
        """The code as weights, float32, by their names in :class:`hbdp_fed.models.planted.PlantedModel`."""
        return {"spectrum.weight": self.gains.float(), "spectrum.bias": (-self.gains * self.centre).float()}


def read_code(args: Mapping[str, Any], weights: Weights) -> Code:
    """The inverse of :meth:`Code.to_weights`, up to float32.

    Args:
        args: The planted model's arguments (``in_channels``, ``image_size``).
        weights: Its weights.
    """
    gains = weights["spectrum.weight"].double()
    return Code(
        image_shape=(int(args["in_channels"]), *(int(side) for side in args["image_size"])),
        gains=gains,
        centre=-weights["spectrum.bias"].double() / gains,
    )


def fit_code(images: Tensor, *, whitening: float, centred: bool = True) -> Code:
    """The linear code that carries an image best through the noise at a fixed gradient norm.

    A record's planted gradient is r * (u, 1) in every active row, and clipped to norm C: with one active row
    r = C / sqrt(|u|^2 + 1). Each coefficient arrives with noise sigma * C / (r * gain_j). Minimising the squared error
    sum_j 1 / gain_j^2 at a given energy sum_j gain_j^2 * variance_j gives gain_j^2 ~ variance_j^(-1/2):
    whitening = 1/4.

    The common factor a of all gains sets how the norm is split between image and bias. The bias tells r, which the
    image has to be divided by; with D coefficients of average energy |v|^2 before scaling, the error is
    sigma^2 (D |v|^2 + D / a^2 + a^2 |v|^4 + |v|^2), least at a^2 |v|^2 = sqrt(D). More active rows share the same norm
    and are averaged again, which changes nothing of this.

    Args:
        images: Public images, float (P, C, *spatial) in [0, 1].
        whitening: Exponent p >= 0 of the coefficients' gains, 1 / variance^p. 0 sends pixels as they are.
        centred: Whether the layer sees an image's difference from the public mean, or the image itself.
    """
    mean, variance = _moments(images)
    centre = mean if centred else torch.zeros_like(mean)
    gains = (variance + _VARIANCE_FLOOR) ** -whitening
    energy = float((gains.square() * (variance + (mean - centre).square())).sum())
    # The floor keeps the scale finite for public images that are all the same.
    scale = len(gains) ** 0.25 / math.sqrt(max(energy, len(gains) * _VARIANCE_FLOOR))
    return Code(image_shape=tuple(images.shape[1:]), gains=gains * scale, centre=centre)


def coefficients_of(images: Tensor) -> Tensor:
    """Images (b, C, *spatial) as cosine coefficients, float64 (b, D); fresh memory."""
    coefficients = torch.empty(len(images), math.prod(images.shape[1:]), dtype=torch.float64)
    done = 0
    for chunk in in_chunks(images):
        coefficients[done : done + len(chunk)] = dct(chunk.double()).flatten(start_dim=1)
        done += len(chunk)
    return coefficients


def images_of(coefficients: Tensor, image_shape: tuple[int, ...]) -> Tensor:
    """Cosine coefficients (b, D) as images, float32 (b, C, *spatial), clipped to the range [0, 1] that images have."""
    return inverse_dct(coefficients.reshape(-1, *image_shape)).clamp(0.0, 1.0).float()


def in_chunks(images: Tensor) -> Iterator[Tensor]:
    """Images (b, ...) a few at a time, in order: as many as bound the memory of what is made of them."""
    yield from in_chunks_of(images, math.prod(images.shape[1:]))


def in_chunks_of(values: Tensor, size: int) -> Sequence[Tensor]:
    """The same for values (b, ...) that belong to images of so many coefficients."""
    return torch.split(values, max(1, _CHUNK_ELEMENTS // max(1, size)))


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of every coefficient over the images, each float64 (D,)."""
    mean = torch.stack([coefficients_of(chunk).sum(dim=0) for chunk in in_chunks(images)]).sum(dim=0) / len(images)
    squares = [coefficients_of(chunk).sub_(mean).square_().sum(dim=0) for chunk in in_chunks(images)]
    return mean, torch.stack(squares).sum(dim=0) / len(images)
