"""How well a hospital of which 20% have a property is told from one of which 80% have it, by its first update.

    HBDP_DATA=/path/to/data python -m scripts.attacks.property_inference
    python -m scripts.attacks.property_inference --budgets inf 8 --hospitals 2 -- data=phantom training.local_steps=5

Plays the game of a run (see :mod:`hbdp_fed.audit.populations`) without training one: populations are drawn from each
hospital's records, take the first round as the hospital would, under each budget, and are told apart by an adversary
who trains shadow hospitals on the public records (Ateniese et al. 2015, arXiv 1306.4447). What follows ``--`` are
settings of a run.

Prints a table as Markdown: the area under the curve with its 95% interval over populations, the share of them on the
right side, and sigma. The control is the same game about a property that every record has or has not by lot, so that
updates say nothing of it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from hbdp_fed.audit.populations import PopulationFigures, population_size
from hbdp_fed.errors import SettingError
from hbdp_fed.seeding import generator
from hbdp_fed.types import Surface
from simulations.compose import compose_run, typed
from simulations.population_games import PopulationTask, population_entry, population_tasks
from simulations.prepare import Prepared, prepare
from simulations.program import OK, exit_code
from simulations.simulated import simulated_training

ATTACK = "property_inference"
DEFAULTS = ("data=pneumoniamnist", "model=cnn", "clients=5", "adversary.attack=none")


def by_lot(task: PopulationTask) -> PopulationTask:
    """The same game about a property that nothing shows."""
    public = generator(task.training.seed, "audit", "control", "public")
    own = generator(task.training.seed, "audit", "control", task.hospital)
    there = torch.rand(len(task.has_property), generator=own) < 0.5
    knowledge = replace(
        task.knowledge,
        has_property=torch.rand(len(task.knowledge.has_property), generator=public) < 0.5,
        public=replace(
            task.knowledge.public,
            expected_batch=task.knowledge.public.mechanism.sample_rate * population_size(there),
        ),
    )
    return replace(task, has_property=there, knowledge=knowledge)


def play(prepared: Prepared, surface: Surface, hospitals: int, *, control: bool) -> PopulationFigures:
    """The figures of one setting.

    Raises:
        SettingError: if none of the hospitals has enough records with the property and without it.
    """
    names = [plan.name for plan in prepared.plans[:hospitals]]
    tasks = population_tasks(prepared, simulated_training(prepared), ATTACK, surface, names)
    if not tasks:
        raise SettingError("adversary.property", "must be one that enough records of a hospital have, and have not")
    return population_entry(prepared, ATTACK, surface, [by_lot(task)() if control else task() for task in tasks])


def rows(options: Any) -> Iterator[str]:
    """A line a budget, surface and property."""
    for budget in options.budgets:
        prepared = prepare(typed(compose_run([*DEFAULTS, f"eps={budget}", *options.settings])))
        for surface in options.surfaces:
            for control in (False, True) if options.control else (False,):
                started = time.perf_counter()
                found = play(prepared, surface, options.hospitals, control=control)
                sigma = min(plan.mechanism.noise_multiplier for plan in prepared.plans)
                yield (
                    f"| {budget} | {sigma:.4g} | {surface} | {'by lot' if control else found.property} | "
                    f"{found.auc:.3f} ({found.auc_ci95[0]:.3f} to {found.auc_ci95[1]:.3f}) | "
                    f"{found.success_rate:.1%} | {found.records} of {found.population} | {found.steps} | "
                    f"{time.perf_counter() - started:.0f} |"
                )


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--budgets", nargs="+", default=["inf", "1e9", "8"], help="epsilons of the run")
    found.add_argument("--surfaces", nargs="+", default=["update"], choices=("gradient", "update"))
    found.add_argument("--hospitals", type=int, default=1, help="how many of the run's hospitals")
    found.add_argument("--no-control", dest="control", action="store_false", help="leave the control out")
    found.add_argument("settings", nargs="*", help="of a run, after --")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    return exit_code(lambda: _main(options))


def _main(options: Any) -> int:
    print("| epsilon | sigma | sees | property | area under the curve | right | populations | steps | seconds |")
    print("|--:|--:|:--|:--|--:|--:|--:|--:|--:|")
    for line in rows(options):
        print(line, flush=True)
    return OK


if __name__ == "__main__":
    sys.exit(main())
