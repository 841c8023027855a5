"""One hospital's game: populations of its own records with a small and a large share of a property, told apart.

Each population trains one round as the hospital would, from the same weights and with its mechanism. The adversary sees
what they would have sent, and has to say which had the large share.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hbdp_fed.adversary.property_inference import SHARES, PropertyInference, draw_population
from hbdp_fed.audit.replay import SimulatedTraining
from hbdp_fed.data.contract import Records
from hbdp_fed.dpsgd import seeded_noise
from hbdp_fed.seeding import generator
from hbdp_fed.training import LocalStep, round_progress, train_locally
from hbdp_fed.types import ModelUpdate, PopulationObservation, Weights

SMALLEST = 20
"""Records of a population, at least: with fewer, a share is decided by a handful."""

LARGEST = 400
"""And at most: larger ones only take longer to tell."""

_STEP = 5
"""A fifth of it has to be a whole number."""


@dataclass(frozen=True)
class PlayedPopulations:
    """One hospital's game.

    Attributes:
        hospital: Whose.
        size: Records of each population.
        scores: float64 (R,), the attack's.
        large: bool (R,), which populations had the large share.
    """

    hospital: str
    size: int
    scores: Tensor
    large: Tensor


def population_size(has_property: Tensor) -> int:
    """How many records a population of a hospital has: half of what its rarer kind allows, so that draws differ.

    Args:
        has_property: bool (N,), of the hospital's records.

    Returns:
        A multiple of 5 from :data:`SMALLEST` to :data:`LARGEST`; 0 where there are too few records of a kind.
    """
    rarer = min(int(has_property.sum()), int((~has_property).sum()))
    size = min(int(rarer / max(SHARES) / 2), LARGEST) // _STEP * _STEP
    return size if size >= SMALLEST else 0


def play_populations(
    training: SimulatedTraining,
    hospital: str,
    knowledge: PopulationObservation,
    has_property: Tensor,
    *,
    number: int,
    populations: int,
    attack: PropertyInference,
    adversary: torch.Generator,
) -> PlayedPopulations:
    """Draw populations, let each take a round, and let the adversary tell them apart.

    Args:
        training: The federation.
        hospital: Whose records.
        knowledge: What the adversary knows, of a hospital as large as :func:`population_size` says; what it holds of
            answers is replaced.
        has_property: bool (N,), of the hospital's records.
        number: The round, from 1: where in training it lies. It starts from the weights of ``knowledge``.
        populations: R, half of either share, at least 2.
        attack: The attack.
        adversary: The attack's own randomness.

    Raises:
        ValueError: if the hospital has too few records of a kind.
    """
    size, index = population_size(has_property), training.index(hospital)
    if not size:
        raise ValueError(f"{hospital} has too few records of a kind to draw populations from")
    records = training.records[index]
    released, large = [], torch.arange(populations) % 2 == 1
    for place, is_large in enumerate(large.tolist()):
        stream = generator(training.seed, "audit", hospital, "populations", place)
        rows = draw_population(has_property, size=size, share=SHARES[is_large], stream=stream)
        delta = _round(training, index, records.select(rows), knowledge, number, stream)
        # No place or name tells which population it is.
        released.append(ModelUpdate(hospital=hospital, round=number, delta=delta, num_records=size))
    order = torch.randperm(populations, generator=generator(training.seed, "audit", hospital, "order"))
    shown = replace(knowledge, released=tuple(released[place] for place in order.tolist()))
    return PlayedPopulations(hospital, size, attack.tell(shown, adversary), large[order])


def _round(
    training: SimulatedTraining,
    index: int,
    records: Records,
    knowledge: PopulationObservation,
    number: int,
    stream: torch.Generator,
) -> Weights:
    """What a population would have shown: its round, or the mean of its noisy gradients with a minus sign."""
    gradients: list[Weights] = []

    def watch(step: LocalStep) -> None:
        gradients.append({name: value.cpu().clone() for name, value in step.gradient.items()})

    alone = knowledge.threat_model.surface == "gradient"
    result = train_locally(
        architecture=training.architecture,
        weights={name: value.float() for name, value in knowledge.model_before.items()},
        images=records.images,
        labels=records.labels,
        mechanism=training.plans[index].mechanism,
        steps=training.local_steps,
        settings=training.local,
        progress=round_progress(number, rounds=training.rounds, local_steps=training.local_steps),
        noise=seeded_noise(stream),
        batch_generator=stream,
        augmentation_generator=stream,
        device=training.device,
        watch=watch if alone else None,
    )
    if not alone:
        return result.delta
    return {name: -torch.stack([step[name] for step in gradients]).mean(dim=0) for name in gradients[0]}
