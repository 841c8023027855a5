"""What a meta-classifier sees of an update: the head's change, each layer's size and direction, and the whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.types import Weights

_COMPONENTS = 8
_LARGEST_HEAD = 64
"""Entries of the last parameter, the head's bias, that are features by themselves."""

_TINY = 1e-300


@dataclass(frozen=True)
class FeatureMap:
    """Features of an update, found on noiseless updates of shadow hospitals.

    Noise is the same in every direction, so that no direction tells more than that in which populations differ without
    it. Where directions are fitted to noisy updates, they follow the noise of these.

    Attributes:
        names: The parameters, in the order in which updates are flattened.
        sizes: How many entries each has.
        difference: float64 (D,), the mean update of populations with a large share less that of those with a small
            one, of length 1 in each parameter, or 0 where nothing differs.
        mean: float64 (D,), of all.
        components: float64 (D, k), the principal directions.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    difference: Tensor
    mean: Tensor
    components: Tensor

    def __call__(self, update: Weights) -> Tensor:
        """float64 (F,): by parameter the logarithm of the norm and the projection; the head's bias; the components."""
        flat = flatten(update, self.names)
        parts, directions = flat.split(self.sizes), self.difference.split(self.sizes)
        norms = torch.stack([part.norm().clamp(min=_TINY).log() for part in parts])
        projections = torch.stack([part @ direction for part, direction in zip(parts, directions, strict=True)])
        return torch.cat([norms, projections, parts[-1][:_LARGEST_HEAD], (flat - self.mean) @ self.components])


def fit_features(large: list[Weights], small: list[Weights]) -> FeatureMap:
    """The map that noiseless updates of populations with a large and with a small share suggest, some of each."""
    names = tuple(large[0])
    rows = torch.stack([flatten(update, names) for update in (*large, *small)])
    sizes = tuple(large[0][name].numel() for name in names)
    difference = rows[: len(large)].mean(dim=0) - rows[len(large) :].mean(dim=0)
    mean = rows.mean(dim=0)
    directions = torch.linalg.svd(rows - mean, full_matrices=False).Vh[:_COMPONENTS]
    units = [part / part.norm().clamp(min=_TINY) for part in difference.split(sizes)]
    return FeatureMap(names, sizes, torch.cat(units), mean, directions.T)


def flatten(update: Weights, names: tuple[str, ...]) -> Tensor:
    """float64 (D,)."""
    return torch.cat([update[name].detach().double().cpu().flatten() for name in names])
