"""In which coordinates images are searched: pixels, or what public images say are likely changes of an image.

Pixels next to each other hardly differ, and of the gradient's equations many pixels share one. In coordinates that move
an image far along what distinguishes public images, and little otherwise, a search by derivatives finds its way in
fewer steps and passes by minima that look like no image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_MOST_IMAGES = 512
_FLOOR = 0.01
"""Standard deviation, in grey values, of what no public image shows."""


@dataclass(frozen=True)
class Coordinates:
    """image = centre + B w with a symmetric B = floor I + V diag(gains) V^T.

    Attributes:
        centre: float64 (C, *spatial).
        directions: V, float64 (D, k), orthonormal.
        gains: float64 (k,), at least 0.
        floor: Positive.
    """

    centre: Tensor
    directions: Tensor
    gains: Tensor
    floor: float

    def images(self, values: Tensor) -> Tensor:
        """float64 (r, D) to (r, C, *spatial)."""
        moved = self.floor * values + (values @ self.directions * self.gains) @ self.directions.T
        return self.centre + moved.view(-1, *self.centre.shape)

    def values(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`images`."""
        moved = (images - self.centre).flatten(start_dim=1)
        gains = 1 / (self.floor + self.gains) - 1 / self.floor
        return moved / self.floor + (moved @ self.directions * gains) @ self.directions.T


def fit_coordinates(public: Tensor, *, power: float) -> Coordinates:
    """The coordinates that public images suggest.

    Args:
        public: (P, C, *spatial).
        power: B has the standard deviations of the principal components to this power: 0 gives pixels, 1 makes all
            that public images show equally likely.
    """
    images = public[:_MOST_IMAGES].double()
    centre = images.mean(dim=0)
    flat = (images - centre).flatten(start_dim=1)
    # By the (P, P) Gram matrix: there are far fewer images than pixels.
    squares, sides = torch.linalg.eigh(flat @ flat.T)
    deviations = (squares / max(len(images) - 1, 1)).clamp(min=0.0).sqrt()
    kept = deviations > _FLOOR
    directions = flat.T @ sides[:, kept] / squares[kept].sqrt()
    floor = math.pow(_FLOOR, power)
    return Coordinates(centre, directions, deviations[kept].pow(power) - floor, floor)
