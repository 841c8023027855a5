"""Final models for the attacks on them: trained by plain descent on a few small images."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import functional_call

from hbdp_fed.adversary import REALISTIC
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.types import (
    ALL_HOSPITALS,
    DpSgdParams,
    ModelSpec,
    ModelUpdate,
    Observation,
    OptimizerSettings,
    PublicSideInformation,
    Weights,
)


def random_images(count: int, *, size: int = 5, seed: int = 0) -> Tensor:
    """float32 (count, 1, size, size) in [0, 1]; no two alike."""
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(seed))


def mlp(hidden: int, *, classes: int = 2, size: int = 5) -> ModelSpec:
    return ModelSpec("mlp", {"in_channels": 1, "num_classes": classes, "image_size": [size, size], "hidden": [hidden]})


def observation_of(spec: ModelSpec, before: Weights, delta: Weights, *, public: Tensor, records: int) -> Observation:
    return Observation(
        threat_model=replace(REALISTIC, surface="global_model"),
        architecture=spec,
        model_before=before,
        released=ModelUpdate(ALL_HOSPITALS, 1, delta, num_records=records),
        public=PublicSideInformation(
            images=public,
            mechanism=DpSgdParams(0.0, math.inf, 1.0, 100),
            optimizer=OptimizerSettings("sgd", 0.1, momentum=0.0),
            expected_batch=float(records),
        ),
    )


@dataclass(frozen=True)
class Release:
    """What was trained on, and what came of it."""

    images: Tensor
    labels: Tensor
    observation: Observation


def released(spec: ModelSpec, images: Tensor, labels: Tensor, *, steps: int = 300, rate: float = 0.2) -> Release:
    """The net after full-batch descent on the cross-entropy, in float64."""
    before = initial_weights(build_model(spec), torch.Generator().manual_seed(0))
    model = build_model(spec).double()
    weights = {name: value.double().requires_grad_() for name, value in before.items()}
    for _ in range(steps):
        logits = functional_call(model, weights, (images.double(),))
        loss = torch.nn.functional.cross_entropy(logits, labels)
        for value, gradient in zip(weights.values(), torch.autograd.grad(loss, list(weights.values())), strict=True):
            value.data -= rate * gradient
    delta = {name: value.detach() - before[name].double() for name, value in weights.items()}
    public = random_images(30, size=images.shape[-1], seed=99)
    return Release(images, labels, observation_of(spec, before, delta, public=public, records=len(images)))
