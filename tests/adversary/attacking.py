"""An attack on one honest step, from crafting to what comes back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from hbdp_fed.types import ModelSpec, OptimizerSettings, Reconstruction, Weights
from tests.adversary.conftest import EXPECTED_BATCH, SGD, World

_CRAFTED: dict[tuple[Any, ...], tuple[World, tuple[ModelSpec, Weights]]] = {}


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ssim(first: Tensor, second: Tensor) -> Tensor:
    return structural_similarity_index_measure(first, second, data_range=1.0, reduction="none").reshape(-1)


def best_ssim(result: Reconstruction, image: Tensor) -> float:
    return float(ssim(result.images, image.expand_as(result.images)).max()) if len(result.images) else -1.0


def recovered(result: Reconstruction, images: Tensor, *, ssim: float = 0.95) -> int:
    """How many images came back this well."""
    return sum(best_ssim(result, image) >= ssim for image in images)


def attacked(
    attack: Any,
    world: World,
    images: Tensor,
    *,
    sigma: float = 0.0,
    clip: float = 1.0,
    optimizer: OptimizerSettings = SGD,
    expected_batch: float = EXPECTED_BATCH,
    **answer: Any,
) -> Reconstruction:
    public = world.public(sigma=sigma, clip=clip, optimizer=optimizer, expected_batch=expected_batch)
    # The search for a design takes most of the time, and has the same answer for the same question.
    asked = (attack, id(world), sigma, clip, optimizer, expected_batch)
    if asked not in _CRAFTED:
        # With the world, so that no other one gets its number.
        _CRAFTED[asked] = (world, attack.craft(world.base, world.weights, public, stream(1)))
    return attack.reconstruct(world.answer(_CRAFTED[asked][1], public, images, **answer), stream(2))
