"""A small world for attacks: smooth images, a base model, and a hospital that takes one honest DP-SGD step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hbdp_fed.adversary import REALISTIC
from hbdp_fed.dpsgd import dp_sgd_gradient, make_summer, seeded_noise
from hbdp_fed.dpsgd.optimizers import build_optimizer
from hbdp_fed.models import build_model, initial_weights, load_weights
from hbdp_fed.types import (
    DpSgdParams,
    ModelSpec,
    ModelUpdate,
    Observation,
    OptimizerSettings,
    PublicSideInformation,
    Weights,
)

SGD = OptimizerSettings("sgd", learning_rate=0.05)
EXPECTED_BATCH = 8.0


def smooth_images(count: int, *, channels: int = 1, size: int = 28, seed: int = 0) -> Tensor:
    """float32 (count, channels, size, size): blobs around a common shape, with some fine texture."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(1, channels, 4, 4, generator=torch.Generator().manual_seed(99))
    coarse = 1.5 * common + torch.randn(count, channels, 4, 4, generator=generator)
    fine = 0.25 * torch.randn(count, channels, 14, 14, generator=generator)
    parts = [functional.interpolate(part, size=(size, size), mode="bilinear") for part in (coarse, fine)]
    level = 0.5 * torch.randn(count, 1, 1, 1, generator=generator)
    return torch.sigmoid(parts[0] + parts[1] + level)


@dataclass(frozen=True)
class World:
    """A base model, and public and private images of one kind."""

    base: ModelSpec
    weights: Weights
    public_images: Tensor
    private_images: Tensor

    def public(
        self,
        *,
        sigma: float = 0.0,
        clip: float = 1.0,
        expected_batch: float = EXPECTED_BATCH,
        optimizer: OptimizerSettings = SGD,
    ) -> PublicSideInformation:
        return PublicSideInformation(
            images=self.public_images,
            mechanism=DpSgdParams(noise_multiplier=sigma, max_grad_norm=clip, sample_rate=0.1, steps=10),
            optimizer=optimizer,
            expected_batch=expected_batch,
        )

    def answer(
        self,
        crafted: tuple[ModelSpec, Weights],
        public: PublicSideInformation,
        images: Tensor,
        *,
        seed: int = 5,
        labels: Tensor | None = None,
    ) -> Observation:
        """What a hospital with this batch answers to the crafted model, as the adversary sees it."""
        architecture, weights = crafted
        model = build_model(architecture)
        load_weights(model, weights)
        model.train()
        generator = torch.Generator().manual_seed(seed)
        if labels is None:
            labels = torch.randint(self.base.args["num_classes"], (len(images),), generator=generator)
        step = dp_sgd_gradient(
            make_summer(model, public.mechanism, max_physical_batch=16),
            images,
            labels,
            mechanism=public.mechanism,
            expected_batch=public.expected_batch,
            noise=seeded_noise(generator),
        )
        after = {name: value.double() for name, value in weights.items()}
        for name, value in after.items():
            value.grad = step.gradient[name]
        build_optimizer(list(after.values()), public.optimizer).step()
        delta = {name: value - weights[name].double() for name, value in after.items()}
        return Observation(
            threat_model=REALISTIC,
            architecture=architecture,
            model_before=weights,
            released=ModelUpdate(hospital="hospital-0", round=3, delta=delta, num_records=80),
            public=public,
        )


def make_world(*, channels: int = 1, size: int = 28, num_classes: int = 2) -> World:
    base = ModelSpec("cnn", {"in_channels": channels, "num_classes": num_classes, "width": 4})
    return World(
        base=base,
        weights=initial_weights(build_model(base), torch.Generator().manual_seed(7)),
        public_images=smooth_images(120, channels=channels, size=size, seed=1),
        private_images=smooth_images(40, channels=channels, size=size, seed=2),
    )


@pytest.fixture(scope="session")
def world() -> World:
    return make_world()


@pytest.fixture(scope="session")
def world_maker() -> Callable[..., World]:
    return make_world


@pytest.fixture(params=[1.0, math.inf], ids=["clipped", "unclipped"])
def clip(request: pytest.FixtureRequest) -> float:
    value: float = request.param
    return value
