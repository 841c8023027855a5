"""What the benchmarks train: models by name, each with one fixed batch of random images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hbdp_fed.models import build_model, initial_weights, load_weights
from hbdp_fed.types import ModelSpec


@dataclass(frozen=True)
class Case:
    """One model on one batch.

    Attributes:
        name: What the results call it.
        spec: The model.
        image_shape: (C, *spatial) of one record.
        batch: Records in the batch.
        segments: Whether every pixel or voxel has a label of its own.
        devices: Where it is measured unless it is asked for by name.
        quick: Whether it is small enough for a smoke run.
    """

    name: str
    spec: ModelSpec
    image_shape: tuple[int, ...]
    batch: int
    segments: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda")
    quick: bool = False


@dataclass(frozen=True)
class Batch:
    """The records of one step: images (b, C, *spatial) in [0, 1], int64 labels (b,) or (b, *spatial)."""

    images: Tensor
    labels: Tensor


_CNN = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 16})
_NARROW = ModelSpec("resnet9", {"in_channels": 3, "num_classes": 8, "width": 16})
_WIDE = ModelSpec("resnet9", {"in_channels": 3, "num_classes": 8, "width": 64})
_PLAIN = ModelSpec("resnet9", {**_WIDE.args, "weight_standardization": False})
_UNET_2D = ModelSpec("unet", {"in_channels": 1, "num_classes": 2, "spatial_dims": 2, "width": 16})
_UNET_3D = ModelSpec("unet", {"in_channels": 1, "num_classes": 3, "spatial_dims": 3, "width": 16})

_ALL = (
    Case("cnn", _CNN, (1, 28, 28), batch=64, quick=True),
    Case("resnet9_w16_28", _NARROW, (3, 28, 28), batch=64, quick=True),
    Case("resnet9_w16_64", _NARROW, (3, 64, 64), batch=64),
    Case("resnet9_w64_28", _WIDE, (3, 28, 28), batch=64),
    # Opacus has no rule for weight-standardised convolutions: with plain ones, all modes are at their best.
    Case("resnet9_w64_28_plain", _PLAIN, (3, 28, 28), batch=64),
    Case("resnet9_w64_64", _WIDE, (3, 64, 64), batch=64),
    # A batch of 64 leaves a large GPU idle.
    Case("resnet9_w64_28_b512", _WIDE, (3, 28, 28), batch=512, devices=("cuda",)),
    Case("unet2d", _UNET_2D, (1, 128, 128), batch=8, segments=True),
    Case("unet3d", _UNET_3D, (1, 32, 48, 32), batch=4, segments=True),
)

CASES: Mapping[str, Case] = {case.name: case for case in _ALL}
"""The cases by name, in the order in which they are measured."""


def fresh_model(case: Case, device: torch.device) -> nn.Module:
    """The case's model in training mode, with the same weights at every call."""
    model = build_model(case.spec)
    load_weights(model, initial_weights(model, torch.Generator().manual_seed(0)))
    return model.to(device).train()


def random_batch(case: Case, device: torch.device) -> Batch:
    """The case's batch, the same at every call. Random images will do: no arithmetic is skipped for plain ones."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand((case.batch, *case.image_shape), generator=generator)
    label_shape = (case.batch, *case.image_shape[1:]) if case.segments else (case.batch,)
    labels = torch.randint(int(case.spec.args["num_classes"]), label_shape, generator=generator)
    return Batch(images.to(device), labels.to(device))
