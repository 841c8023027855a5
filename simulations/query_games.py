"""Counting queries to a run's hospitals, and what an adversary makes of the answers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from hbdp_fed.adversary import build_attack
from hbdp_fed.audit.queries import PlayedQueries, QueryFigures, patients_bits, play_queries, query_figures
from hbdp_fed.data import property_called
from hbdp_fed.seeding import generator
from hbdp_fed.types import Accountant, PrivacyBudget, Unit
from simulations.prepare import Prepared


@dataclass(frozen=True)
class QueryTask:
    """The queries to some hospitals.

    Attributes:
        attack: The attack's name.
        bits: By hospital, each patient's bit.
        budget: Of a patient for all answers of a hospital together: the run's own.
        accountant: By which it is meant.
        seed: The run's.
    """

    attack: str
    bits: Mapping[str, Tensor]
    budget: PrivacyBudget
    accountant: Accountant
    seed: int

    def __call__(self) -> AnsweredTask:
        """Ask and attack."""
        started = time.perf_counter()
        played = tuple(
            play_queries(
                bits,
                hospital=hospital,
                attack=build_attack(self.attack),
                budget=self.budget,
                accountant=self.accountant,
                stream=generator(self.seed, "audit", hospital, "queries"),
                adversary=generator(self.seed, "adversary", self.attack, hospital),
            )
            for hospital, bits in self.bits.items()
        )
        return AnsweredTask(played, time.perf_counter() - started)


@dataclass(frozen=True)
class AnsweredTask:
    """Queries with their truth.

    Attributes:
        played: A hospital's game each.
        seconds: How long it took.
    """

    played: tuple[PlayedQueries, ...]
    seconds: float


def query_task(prepared: Prepared, attack: str, hospitals: Sequence[str]) -> QueryTask:
    """The queries to these hospitals."""
    return QueryTask(
        attack=attack,
        bits={name: bits for name, bits in bits_of(prepared).items() if name in hospitals},
        budget=PrivacyBudget(prepared.config.eps, prepared.config.delta),
        accountant=prepared.accountant,
        seed=prepared.config.seed,
    )


def query_entry(prepared: Prepared, attack: str, found: AnsweredTask) -> QueryFigures:
    """The figures of what :func:`query_task` gave."""
    wanted = property_called(prepared.config.adversary.property, prepared.dataset)
    unit: Unit = "record" if prepared.local.records_per_patient is None else "patient"
    return query_figures(attack, found.played, property=wanted.words, unit=unit)


def bits_of(prepared: Prepared) -> dict[str, Tensor]:
    """By hospital which patients have the property that ``adversary.property`` names, or which records."""
    wanted = property_called(prepared.config.adversary.property, prepared.dataset)
    by_patient = prepared.local.records_per_patient is not None
    return {
        hospital.name: patients_bits(wanted.of(hospital.records), hospital.records.groups if by_patient else None)
        for hospital in prepared.federated.hospitals
    }
