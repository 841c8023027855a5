"""What a model's architecture says by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from hbdp_fed.adversary.imprint.crafting import ImprintDesign, craft_model
from hbdp_fed.adversary.planted.crafting import Loudness
from hbdp_fed.screening import structural_problems
from hbdp_fed.screening.structure import _rows_on_image
from hbdp_fed.types import ModelSpec
from tests.screening.conftest import CNN, Site, fresh, stream


def problems(architecture: ModelSpec, weights, site: Site, *, agreed: ModelSpec | None) -> list[str]:
    return list(structural_problems(architecture, weights, site.references.images, agreed=agreed))


@pytest.mark.parametrize(
    "architecture",
    [
        CNN,
        ModelSpec("resnet9", {"in_channels": 1, "num_classes": 2, "width": 4}),
        ModelSpec("unet", {"in_channels": 1, "num_classes": 2, "width": 8}),
    ],
    ids=lambda architecture: architecture.name,
)
def test_honest_architecture_passes_with_and_without_an_agreement(architecture: ModelSpec, site: Site) -> None:
    weights = fresh(architecture)
    assert problems(architecture, weights, site, agreed=architecture) == []
    assert problems(architecture, weights, site, agreed=None) == []


def test_other_architecture_than_agreed_is_found(site: Site) -> None:
    wider = replace(CNN, args={**CNN.args, "width": 8})
    assert problems(wider, fresh(wider), site, agreed=CNN) == ["the cnn is not built as was agreed to"]


def test_planted_layer_is_found_without_an_agreement(site: Site) -> None:
    design = ImprintDesign(bins=16, loudness=Loudness(100.0))
    found = problems(*craft_model(CNN, fresh(CNN), site.public_images, design), site, agreed=None)
    assert found == [
        "it is a PlantedModel, which is made to give images away",
        "planted is a layer of 16 rows on the whole image, for 2 classes",
    ]


def test_missing_and_infinite_weights_are_found(site: Site) -> None:
    weights = dict(fresh(CNN))
    broken = {**weights, "head.bias": torch.tensor([0.0, torch.inf])}
    assert problems(CNN, broken, site, agreed=CNN) == ["its weights are not finite"]
    del weights["head.bias"]
    [found] = problems(CNN, weights, site, agreed=CNN)
    assert "head.bias" in found


class Behind(nn.Module):
    """A wide layer behind something that is done to the image first."""

    def __init__(self, before: nn.Module, rows: int) -> None:
        super().__init__()
        self.before = before
        self.wide = nn.Linear(256, rows)
        self.head = nn.Linear(rows, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.wide(self.before(images).flatten(start_dim=1))))


@pytest.mark.parametrize(
    ("before", "seen"),
    [(nn.Identity(), True), (nn.Conv2d(1, 1, 3, padding=1), True), (nn.Sigmoid(), False)],
    ids=["image", "convolution", "sigmoid"],
)
def test_layer_on_any_affine_map_of_the_image_is_seen(before: nn.Module, seen: bool, site: Site) -> None:
    with torch.random.fork_rng():
        rows, classes = _rows_on_image(Behind(before, 40), site.references.images)
    assert (rows, classes) == ({"wide": 40} if seen else {}, 2)


def test_narrow_layer_is_no_layer_on_the_whole_image(site: Site) -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 2))
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=stream(1))
    assert _rows_on_image(model, site.references.images) == ({}, 2)
