"""Honest models of an architecture, for a hospital to calibrate its check on before training: fresh, and trained.

A hospital cannot know the global models to come. It knows how they start, how its own steps move them and how much
noise the whole plan adds, and it has reference images. From fresh weights it takes a few steps of its own mechanism on
these. What noise the rest of the plan would add it adds at once: noise of n steps is a random walk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hbdp_fed.dpsgd import MovingWeights, dp_sgd_gradient, make_summer, record_loss, seeded_noise
from hbdp_fed.dpsgd.optimizers import build_optimizer
from hbdp_fed.models import build_model, initial_weights, load_weights
from hbdp_fed.screening.looking import References
from hbdp_fed.types import DpSgdParams, ModelSpec, OptimizerSettings, Weights


@dataclass(frozen=True)
class Training:
    """How the hospital is going to train, as it agreed to.

    Attributes:
        mechanism: Its own; ``steps`` are those of the whole plan.
        optimizer: Of its steps, with the learning rate before the schedule.
        expected_batch: What a noisy clipped sum is divided by, positive.
        local_steps: Steps of a round, after which the optimiser starts anew; at least 1.
    """

    mechanism: DpSgdParams
    optimizer: OptimizerSettings
    expected_batch: float
    local_steps: int


@dataclass(frozen=True)
class Effort:
    """How much is tried out.

    Attributes:
        starts: From how many fresh initial weights, at least 1.
        steps: Steps that are really taken from each, at least 1; looked at after the first, in the middle and at last.
        max_physical_batch: Images differentiated at once.
    """

    starts: int = 3
    steps: int = 12
    max_physical_batch: int = 16


def honest_models(
    architecture: ModelSpec,
    training: Training,
    references: References,
    *,
    effort: Effort,
    generator: torch.Generator,
    initial: Sequence[Weights] = (),
) -> Iterator[Weights]:
    """Weights that honest training may hand out, float32: fresh ones, and for each several on their way.

    Args:
        architecture: The model.
        training: How the hospital trains.
        references: What stands in for records.
        effort: How much of it.
        generator: A CPU generator: of fresh weights, batches and noise.
        initial: Initial weights that were agreed to (from elsewhere, or by a seed), taken beside fresh ones.
    """
    fresh = [initial_weights(build_model(architecture), generator) for _ in range(effort.starts)]
    for start in (*initial, *fresh):
        yield start
        steps = min(effort.steps, training.mechanism.steps)
        stops = sorted({1, (steps + 1) // 2, steps})
        last = start
        for last in _trained(architecture, start, training, references, stops, effort, generator):
            yield last
        left = training.mechanism.steps - steps
        if left > 0 and training.mechanism.noise_multiplier > 0:
            # A third of the way and all of it, in decades: what the walk does to a figure need not be monotonous.
            for part in (left ** (1 / 3), left ** (2 / 3), float(left)):
                yield _walked(last, training, part, generator)


def _trained(
    architecture: ModelSpec,
    start: Weights,
    training: Training,
    references: References,
    stops: Sequence[int],
    effort: Effort,
    generator: torch.Generator,
) -> Iterator[Weights]:
    """The weights after so many steps of the hospital's mechanism on the reference images."""
    model = build_model(architecture).train()
    load_weights(model, start)
    moving = MovingWeights.of(model)
    batch = min(max(1, round(training.expected_batch)), len(references.images))
    # A smaller batch than the hospital's, with so much less noise: the mean gradient has the noise that it will have.
    sigma = training.mechanism.noise_multiplier * batch / training.expected_batch
    mechanism = replace(training.mechanism, noise_multiplier=sigma)
    loss = record_loss(references.loss)
    summer = make_summer(model, mechanism, max_physical_batch=effort.max_physical_batch, loss=loss)
    for before in range(0, stops[-1], training.local_steps):
        # Every round starts the optimiser anew.
        optimizer = build_optimizer(list(moving.masters.values()), training.optimizer)
        for step in range(before + 1, min(before + training.local_steps, stops[-1]) + 1):
            drawn = torch.randperm(len(references.images), generator=generator)[:batch]
            found = dp_sgd_gradient(
                summer,
                references.images[drawn],
                references.labels[drawn],
                mechanism=mechanism,
                expected_batch=float(batch),
                noise=seeded_noise(generator),
            )
            moving.take(found.gradient, optimizer, learning_rate=training.optimizer.learning_rate)
            if step in stops:
                yield {name: value.float() for name, value in moving.masters.items()}


def _walked(weights: Weights, training: Training, steps: float, generator: torch.Generator) -> dict[str, Tensor]:
    """The weights after the noise of so many more steps."""
    std = noise_of_steps(training, steps)
    return {
        name: value + std * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in weights.items()
    }


def noise_of_steps(training: Training, steps: float) -> float:
    """The standard deviation that the noise of so many steps gives a weight, about at most.

    A gradient's noise moves the weights by the learning rate, and with momentum m by at most 1 / (1 - m) times as much
    in all. A step of the Adam family is about as long as the learning rate, however large the noise is.
    """
    rate = training.optimizer.learning_rate
    if training.optimizer.name != "sgd":
        return rate * math.sqrt(steps)
    mechanism = training.mechanism
    std = mechanism.noise_multiplier * mechanism.max_grad_norm / training.expected_batch
    return rate / (1 - training.optimizer.momentum) * std * math.sqrt(steps)
