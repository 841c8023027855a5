"""A small hospital that is about to train: an architecture, public images, and the mechanism that it agreed to."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.screening import Effort, References, Screen, Training
from hbdp_fed.types import DpSgdParams, ModelSpec, OptimizerSettings, Weights
from tests.adversary.conftest import smooth_images

CNN = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
SMALL = Effort(starts=2, steps=4)


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fresh(architecture: ModelSpec, seed: int = 7) -> Weights:
    return initial_weights(build_model(architecture), stream(seed))


@dataclass(frozen=True)
class Site:
    """What a hospital has before training."""

    public_images: Tensor
    references: References
    training: Training

    def screen(self, architecture: ModelSpec, *, agreed: ModelSpec | None, seed: int = 3) -> Screen:
        return Screen.calibrated(architecture, self.training, self.references, seed=seed, agreed=agreed, effort=SMALL)


def make_site(*, sigma: float = 0.5, size: int = 16) -> Site:
    images = smooth_images(60, size=size, seed=1)
    labels = torch.arange(12) % 2
    return Site(
        public_images=images,
        references=References(images[:12], labels),
        training=Training(
            DpSgdParams(noise_multiplier=sigma, max_grad_norm=1.0, sample_rate=0.1, steps=40),
            OptimizerSettings("sgd", learning_rate=0.1, momentum=0.9),
            expected_batch=8.0,
            local_steps=4,
        ),
    )


@pytest.fixture(scope="session")
def site() -> Site:
    return make_site()
