"""Tiny federations whose every global model is a model to screen: all architectures, two data sets, three budgets."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hbdp_fed.data import Records, as_floats, load_dataset
from hbdp_fed.dpsgd import seeded_noise
from hbdp_fed.models import MODELS, build_model, initial_weights
from hbdp_fed.privacy import plan_hospital
from hbdp_fed.screening import References, Training
from hbdp_fed.seeding import generator
from hbdp_fed.training import LocalSettings, round_progress, train_locally
from hbdp_fed.types import HospitalPlan, ModelSpec, OptimizerSettings, PrivacyBudget, Weights

HOSPITALS, RECORDS, REFERENCES = 2, 150, 24
EXPECTED_BATCH, LOCAL_STEPS, DELTA = 12.0, 4, 1e-4


@dataclass(frozen=True)
class Recipe:
    """How a budget is trained with, near what the project's recipes say."""

    learning_rate: float
    max_grad_norm: float


RECIPES: Mapping[float, Recipe] = {
    8.0: Recipe(0.176, 0.366),
    1e9: Recipe(0.4, 1.76),
    1e12: Recipe(0.4, 1.76),
    math.inf: Recipe(0.05, math.inf),
}

SEGMENTING = ("unet", "monai_unet")

_ARGS: Mapping[str, Mapping[str, Any]] = {
    "cnn": {"width": 8},
    "resnet9": {"width": 8},
    "monai": {
        "net": "DenseNet",
        "spatial_dims": 2,
        "image_size": [28, 28],
        "args": {"init_features": 8, "growth_rate": 8, "block_config": [2, 2, 2]},
    },
    "unet": {"width": 8},
    "monai_unet": {"width": 8, "levels": 3},
    "mlp": {"image_size": [28, 28]},
}
"""Small ones of every architecture; DenseNet is DenseNet121's with fewer layers."""

ARCHITECTURES = tuple(name for name in _ARGS if name in MODELS)


@dataclass(frozen=True)
class World:
    """One federation.

    Attributes:
        dataset: ``phantom`` or ``pneumoniamnist``.
        model: What is trained.
        eps: A key of :data:`RECIPES`.
        rounds: Of training.
        seed: Of weights, records, batches and noise.
    """

    dataset: str
    model: str
    eps: float
    rounds: int = 20
    seed: int = 0

    @property
    def architecture(self) -> ModelSpec:
        """The model's specification."""
        return ModelSpec(self.model, {"in_channels": 1, "num_classes": 2, **_ARGS[self.model]})

    @property
    def loss(self) -> str:
        """What is trained on."""
        return "dice_cross_entropy" if self.model in SEGMENTING else "cross_entropy"

    @property
    def plan(self) -> HospitalPlan:
        """Every hospital's; a probe's step counts in it."""
        return plan_hospital(
            name="hospital",
            num_records=RECORDS,
            budget=PrivacyBudget(self.eps, DELTA),
            expected_batch=EXPECTED_BATCH,
            steps=self.rounds * LOCAL_STEPS + 1,
            max_grad_norm=RECIPES[self.eps].max_grad_norm if math.isfinite(self.eps) else 1.0,
        )

    @property
    def optimizer(self) -> OptimizerSettings:
        """Every hospital's."""
        return OptimizerSettings("sgd", learning_rate=RECIPES[self.eps].learning_rate, momentum=0.9)

    @property
    def training(self) -> Training:
        """What a hospital knows of it before."""
        return Training(self.plan.mechanism, self.optimizer, EXPECTED_BATCH, LOCAL_STEPS)

    @property
    def references(self) -> References:
        """What a hospital tries models on: a few dozen images of the validation split."""
        images, labels = labelled(_split(self.dataset)[1], self.model)
        return References(images[:REFERENCES], labels[:REFERENCES], self.loss)

    @property
    def public_images(self) -> Tensor:
        """What an adversary has, (P, C, H, W): the validation split."""
        return as_floats(_split(self.dataset)[1].images)

    def initial(self) -> Weights:
        """Before the first round."""
        return initial_weights(build_model(self.architecture), generator(self.seed, "screened", "initial"))

    def global_models(self) -> Iterator[Weights]:
        """What hospitals are handed in each round, from the first on, float32, and the released one at last."""
        weights = self.initial()
        yield weights
        hospitals = self.hospitals()
        for number in range(1, self.rounds + 1):
            deltas = [self._update(weights, index, number, records) for index, records in enumerate(hospitals)]
            weights = {
                name: (value.double() + sum(delta[name] for delta in deltas) / len(deltas)).float()
                for name, value in weights.items()
            }
            yield weights

    def hospitals(self) -> list[tuple[Tensor, Tensor]]:
        """Each one's images and labels."""
        train = _split(self.dataset)[0]
        order = torch.randperm(len(train), generator=generator(self.seed, "screened", "records"))
        parts = order[: HOSPITALS * RECORDS].split(RECORDS)
        return [labelled(train.select(part), self.model) for part in parts]

    def _update(self, weights: Weights, index: int, number: int, records: tuple[Tensor, Tensor]) -> Weights:
        def stream(purpose: str) -> torch.Generator:
            return generator(self.seed, "screened", purpose, index, number)

        images, labels = records
        return train_locally(
            architecture=self.architecture,
            weights=weights,
            images=images,
            labels=labels,
            mechanism=self.plan.mechanism,
            steps=LOCAL_STEPS,
            settings=LocalSettings(optimizer=self.optimizer, loss=self.loss, max_physical_batch=16),
            progress=round_progress(number, rounds=self.rounds, local_steps=LOCAL_STEPS),
            noise=seeded_noise(stream("noise")),
            batch_generator=stream("batches"),
            augmentation_generator=stream("augmentation"),
            device=torch.device("cpu"),
        ).delta


def honest_worlds(*, rounds: int, seeds: int, first_seed: int = 0) -> Iterator[World]:
    """Every architecture on every data set that has its labels, at every budget, so many times."""
    for seed in range(first_seed, first_seed + seeds):
        for model in ARCHITECTURES:
            for dataset in ("phantom",) if model in SEGMENTING else ("phantom", "pneumoniamnist"):
                for eps in (8.0, 1e9, math.inf):
                    yield World(dataset, model, eps, rounds, seed)


def labelled(records: Records, model: str) -> tuple[Tensor, Tensor]:
    """Images and the labels that a model is trained on: the class, or which pixels are the lesion's."""
    if model not in SEGMENTING:
        return as_floats(records.images), records.labels
    assert records.masks is not None
    return as_floats(records.images), records.masks[:, 0].long()


@cache
def _split(dataset: str) -> tuple[Records, Records]:
    """The training and the validation split."""
    options = {"num_train": 2000, "num_val": 400, "num_test": 2} if dataset == "phantom" else {}
    root = os.environ.get("HBDP_DATA")
    found = load_dataset(dataset, root=Path(root) if root else None, options=options)
    return found.train, found.val


def renamed(world: World, **changes: Any) -> World:
    """The same world with something changed."""
    return replace(world, **changes)
