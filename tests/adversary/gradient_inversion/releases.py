"""What a hospital with given records sends, by the real training loop, and the same hospital as imagined."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from hbdp_fed.adversary import REALISTIC
from hbdp_fed.dpsgd import seeded_noise
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.training import LocalSettings, Progress, train_locally
from hbdp_fed.types import DpSgdParams, ModelSpec, ModelUpdate, Observation, OptimizerSettings, PublicSideInformation
from tests.adversary.attacking import stream
from tests.adversary.conftest import smooth_images

SGD = OptimizerSettings("sgd", learning_rate=0.05, momentum=0.9)


def sent(
    images: Tensor,
    labels: Tensor,
    *,
    spec: ModelSpec,
    sigma: float = 0.0,
    clip: float = math.inf,
    steps: int = 1,
    optimizer: OptimizerSettings = SGD,
    class_weights: tuple[float, ...] | None = None,
    public_images: Tensor | None = None,
    groups: Tensor | None = None,
    records_per_patient: int | None = None,
    precision: str = "float64",
) -> Observation:
    """The release of a hospital with just these records, all of which every step holds."""
    weights = initial_weights(build_model(spec), stream(7))
    mechanism = DpSgdParams(sigma, max_grad_norm=clip, sample_rate=1.0, steps=steps)
    result = train_locally(
        architecture=spec,
        weights=weights,
        images=images,
        labels=labels,
        groups=groups,
        mechanism=mechanism,
        steps=steps,
        settings=LocalSettings(
            optimizer=optimizer,
            class_weights=class_weights,
            records_per_patient=records_per_patient,
            precision=precision,
        ),
        progress=Progress(done=0, planned=steps),
        noise=seeded_noise(stream(8)),
        batch_generator=stream(9),
        augmentation_generator=stream(10),
        device=torch.device("cpu"),
    )
    units = len(labels) if groups is None else len(groups.unique())
    if public_images is None:
        public_images = smooth_images(16, size=images.shape[-1], channels=images.shape[1], seed=1)
    return Observation(
        threat_model=REALISTIC,
        architecture=spec,
        model_before=weights,
        released=ModelUpdate("hospital", 1, result.delta, len(labels)),
        public=PublicSideInformation(
            images=public_images,
            mechanism=mechanism,
            optimizer=optimizer,
            expected_batch=float(units),
            class_weights=class_weights,
            records_per_unit=len(labels) / units,
            later_rates=(optimizer.learning_rate,) * (steps - 1),
        ),
    )


def with_public(observation: Observation, **changes: object) -> Observation:
    """The same with other side information."""
    return replace(observation, public=replace(observation.public, **changes))  # type: ignore[arg-type]
