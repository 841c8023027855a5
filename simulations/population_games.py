"""Populations of a run's hospitals, and what an adversary tells of them from their first round of training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from hbdp_fed.adversary import ATTACKS, build_attack
from hbdp_fed.audit import SimulatedTraining
from hbdp_fed.audit.populations import (
    PlayedPopulations,
    PopulationFigures,
    play_populations,
    population_figures,
    population_size,
)
from hbdp_fed.data import as_floats, property_called
from hbdp_fed.seeding import generator
from hbdp_fed.training import round_progress
from hbdp_fed.types import HospitalPlan, PopulationObservation, Surface
from simulations.attack_settings import attack_settings
from simulations.prepare import Prepared
from simulations.side_information import side_information

ROUND = 1
"""Which round is seen: before it the model is fresh, and everybody's gradients point to what they have most of."""


@dataclass(frozen=True)
class PopulationTask:
    """One hospital's game on one surface.

    Attributes:
        attack: The attack's name.
        settings: What it is built with.
        training: The hospital, alone.
        hospital: Its name.
        knowledge: What the adversary knows, the surface included.
        has_property: bool (N,), of the hospital's records.
        populations: How many there are.
    """

    attack: str
    settings: Mapping[str, Any]
    training: SimulatedTraining
    hospital: str
    knowledge: PopulationObservation
    has_property: Tensor
    populations: int

    @property
    def surface(self) -> Surface:
        """What is seen."""
        return self.knowledge.threat_model.surface

    def __call__(self) -> ToldPopulations:
        """Train the populations and attack them."""
        started = time.perf_counter()
        played = play_populations(
            self.training,
            self.hospital,
            self.knowledge,
            self.has_property,
            number=ROUND,
            populations=self.populations,
            attack=build_attack(self.attack, **self.settings),
            adversary=generator(self.training.seed, "adversary", self.attack, self.surface, self.hospital),
        )
        return ToldPopulations(played, time.perf_counter() - started)


@dataclass(frozen=True)
class ToldPopulations:
    """A game with its truth.

    Attributes:
        played: The game.
        seconds: How long it took.
    """

    played: PlayedPopulations
    seconds: float


def population_tasks(
    prepared: Prepared, training: SimulatedTraining, attack: str, surface: Surface, hospitals: Sequence[str]
) -> list[PopulationTask]:
    """A game for each of these hospitals that has enough records of either kind."""
    wanted = property_called(prepared.config.adversary.property, prepared.dataset)
    tasks = []
    for plan, hospital in zip(prepared.plans, prepared.federated.hospitals, strict=True):
        has = wanted.of(hospital.records)
        size = population_size(has)
        if plan.name in hospitals and size:
            tasks.append(
                PopulationTask(
                    attack=attack,
                    settings=attack_settings(prepared, attack),
                    training=training.alone(plan.name),
                    hospital=plan.name,
                    knowledge=_knowledge(prepared, attack, plan, surface, wanted.of(prepared.federated.val), size),
                    has_property=has,
                    populations=prepared.config.adversary.populations,
                )
            )
    return tasks


def population_entry(
    prepared: Prepared, attack: str, surface: Surface, found: Sequence[ToldPopulations]
) -> PopulationFigures:
    """The figures of what :func:`population_tasks` gave, at least one."""
    return population_figures(
        attack,
        surface,
        [one.played for one in found],
        property=property_called(prepared.config.adversary.property, prepared.dataset).words,
        shadows=prepared.config.adversary.shadows,
        steps=prepared.hyper.local_steps,
    )


def _knowledge(
    prepared: Prepared, attack: str, plan: HospitalPlan, surface: Surface, has_property: Tensor, size: int
) -> PopulationObservation:
    """What is known of a hospital as large as its populations, before it has answered."""
    progress = round_progress(ROUND, rounds=prepared.hyper.rounds, local_steps=prepared.hyper.local_steps)
    images = as_floats(prepared.federated.val.images)
    public = side_information(prepared, plan, images, progress=progress, steps=prepared.hyper.local_steps)
    return PopulationObservation(
        threat_model=replace(ATTACKS[attack].threat_model, surface=surface),
        architecture=prepared.architecture,
        model_before=prepared.initial,
        public=replace(public, expected_batch=plan.mechanism.sample_rate * size),
        labels=prepared.federated.val.labels,
        has_property=has_property,
        released=(),
    )
