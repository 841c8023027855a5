"""A hospital's local training: some DP-SGD steps from the weights it was handed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.dpsgd import dp_sgd_gradient, make_summer, poisson_batches
from hbdp_fed.errors import unknown_choice
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.types import DpSgdParams, ModelSpec, Weights


@dataclass(frozen=True)
class OptimizerSettings:
    """How the noisy gradient is turned into a step.

    Attributes:
        name: A key of :data:`OPTIMIZERS`.
        learning_rate: Step size, positive.
        momentum: In [0, 1). The momentum starts at zero in every round, so that a hospital keeps nothing between
            rounds but its ledger, and a round's first step is plain SGD.
    """

    name: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9


def _sgd(parameters: list[Tensor], settings: OptimizerSettings) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=settings.learning_rate, momentum=settings.momentum)


OPTIMIZERS: Mapping[str, Callable[[list[Tensor], OptimizerSettings], torch.optim.Optimizer]] = {"sgd": _sgd}
"""Optimisers by name, over float64 tensors."""


@dataclass(frozen=True)
class LocalResult:
    """What local training leaves.

    Attributes:
        delta: Final weights minus the received ones by parameter name, float64 on the CPU: the only thing that the
            guarantee covers, and the only thing that must leave the hospital.
        loss: Mean training loss over all records seen; NaN when every batch was empty.
        clipped_share: Mean over steps of the share of clipped records; NaN where nothing is ever clipped.
        records_seen: How many records the Poisson batches held in all.
    """

    delta: Weights
    loss: float
    clipped_share: float
    records_seen: int


def train_locally(
    *,
    architecture: ModelSpec,
    weights: Weights,
    images: Tensor,
    labels: Tensor,
    mechanism: DpSgdParams,
    steps: int,
    optimizer: OptimizerSettings,
    max_physical_batch: int,
    batch_generator: torch.Generator,
    noise_generator: torch.Generator,
    device: torch.device,
) -> LocalResult:
    """Take ``steps`` DP-SGD steps from ``weights`` on a hospital's records.

    The weights are kept twice: a float64 copy that the optimiser moves, and the model's float32 weights that follow
    it. The noise of a huge budget, which float32 weights would round away, is whole in the float64 copy and so in the
    delta.

    Args:
        architecture: The model the server asks for.
        weights: The global weights received.
        images: float32 (N, C, H, W) in [0, 1], all of the hospital's records.
        labels: int64 (N,).
        mechanism: The hospital's own clipping and noise; no server can change it.
        steps: How many of its planned steps to take, at least 1.
        optimizer: The local optimiser.
        max_physical_batch: Bounds memory (see :func:`hbdp_fed.dpsgd.clipped_summer`).
        batch_generator: A CPU generator for the Poisson batches.
        noise_generator: A CPU generator for the noise.
        device: Where to compute.
    """
    model = build_model(architecture)
    load_weights(model, weights)
    model.to(device).train()
    followers = dict(model.named_parameters())
    start = {name: value.detach().double().clone() for name, value in followers.items()}
    masters = {name: value.clone() for name, value in start.items()}
    if optimizer.name not in OPTIMIZERS:
        raise unknown_choice("training.optimizer", optimizer.name, OPTIMIZERS)
    stepper = OPTIMIZERS[optimizer.name](list(masters.values()), optimizer)
    summer = make_summer(model, mechanism, max_physical_batch=max_physical_batch)
    expected_batch = mechanism.sample_rate * len(labels)

    losses: list[float] = []
    clipped: list[float] = []
    records_seen = 0
    for indices in poisson_batches(
        num_records=len(labels), sample_rate=mechanism.sample_rate, steps=steps, generator=batch_generator
    ):
        step = dp_sgd_gradient(
            summer,
            images[indices].to(device),
            labels[indices].to(device),
            mechanism=mechanism,
            expected_batch=expected_batch,
            noise_generator=noise_generator,
        )
        for name, master in masters.items():
            master.grad = step.gradient[name]
        stepper.step()
        with torch.no_grad():
            for name, follower in followers.items():
                follower.copy_(masters[name])
        records_seen += step.batch_size
        if step.batch_size:
            losses.append(step.loss * step.batch_size)
            clipped.append(step.clipped_share)

    return LocalResult(
        delta={name: (masters[name] - start[name]).cpu() for name in masters},
        loss=sum(losses) / records_seen if records_seen else math.nan,
        clipped_share=sum(clipped) / len(clipped) if clipped else math.nan,
        records_seen=records_seen,
    )
