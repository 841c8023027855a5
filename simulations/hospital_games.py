"""The games about whole hospitals: their tasks, and the entries that come of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hbdp_fed.adversary import ATTACKS
from simulations.adversary_plan import ALONE
from simulations.assault import Assault
from simulations.population_games import PopulationTask, population_entry, population_tasks
from simulations.query_games import QueryTask, query_entry, query_task

HospitalTask = PopulationTask | QueryTask


def hospital_tasks(assault: Assault) -> list[HospitalTask]:
    """The tasks of all attacks of these kinds."""
    tasks: list[HospitalTask] = []
    for name in assault.attacks:
        kind = ATTACKS[name].kind
        if kind == "property":
            for surface in (surface for surface in assault.surfaces if surface in ALONE):
                tasks += population_tasks(assault.prepared, assault.training, name, surface, assault.hospitals())
        elif kind == "queries":
            tasks.append(query_task(assault.prepared, name, assault.hospitals()))
    return tasks


def hospital_entries(assault: Assault, done: Sequence[tuple[HospitalTask, Any]]) -> Iterator[tuple[str, Any, float]]:
    """Name, entry and seconds of each attack and surface.

    Args:
        assault: What was attacked.
        done: The tasks with their results.
    """
    populations = [(task, result) for task, result in done if isinstance(task, PopulationTask)]
    for name, surface in dict.fromkeys((task.attack, task.surface) for task, _ in populations):
        found = [result for task, result in populations if (task.attack, task.surface) == (name, surface)]
        entry = population_entry(assault.prepared, name, surface, found)
        yield name, entry, sum(result.seconds for result in found)
    for task, result in done:
        if isinstance(task, QueryTask):
            yield task.attack, query_entry(assault.prepared, task.attack, result), result.seconds


def without_population(assault: Assault, tasks: Sequence[HospitalTask]) -> Iterator[str]:
    """A line an attack that no hospital has records enough for."""
    for name in assault.attacks:
        if ATTACKS[name].kind == "property" and not any(task.attack == name for task in tasks):
            yield f"attack left out: {name}: no hospital has enough records with the property and without it"


def told(task: HospitalTask) -> str:
    """A task, for people."""
    if isinstance(task, QueryTask):
        return f"queries to {len(task.bits)} hospitals"
    return f"populations of {task.hospital} on {task.surface}"
