"""A consortium's plan: everything that can be said before any training, in one frozen value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hbdp_fed.models import title_of
from hbdp_fed.planning.consortium import Consortium, HospitalEntry
from hbdp_fed.planning.cost import Cost, Speed, cost
from hbdp_fed.planning.leaving import Leaving, leaving
from hbdp_fed.planning.model_size import ModelSize, model_size
from hbdp_fed.planning.protecting import Table, Weakest, protections, refusals, sample_rate, weakest


@dataclass(frozen=True)
class Plan:
    """What a consortium can expect.

    Attributes:
        consortium: What was asked.
        size: Of its model.
        speeds: Of each hospital, by name.
        table: Every budget at every hospital.
        cost: Of training.
        leaving: What each hospital's leaving would do.
        weakest: Who is protected least.
    """

    consortium: Consortium
    size: ModelSize
    speeds: Mapping[str, Speed]
    table: Table
    cost: Cost
    leaving: tuple[Leaving, ...]
    weakest: Weakest

    @property
    def refused(self) -> Mapping[float, str]:
        """The budgets that the consortium cannot have, with the first hospital's reason."""
        return refusals(self.table)

    def why_not(self, eps: float) -> str | None:
        """Why the consortium cannot have a budget, whether it is one of the plan's or not; None where it can."""
        if eps in self.consortium.budgets:
            return self.refused.get(eps)
        for hospital in self.consortium.hospitals:
            if hospital.ceiling is not None and eps > hospital.ceiling:
                return f"{hospital.name} refuses: its ceiling is {hospital.ceiling:g}"
        return None


def make_plan(consortium: Consortium, speeds: Mapping[str, Speed], *, processes: int = 1) -> Plan:
    """Compute all of it.

    Args:
        consortium: A checked one.
        speeds: By hospital.
        processes: How many compute at the same time; more than 1 forks this process.

    Raises:
        SettingError: if the model does not suit the images or the task.
    """
    size = model_size(consortium)
    table = protections(consortium, processes=processes)
    return Plan(
        consortium=consortium,
        size=size,
        speeds=speeds,
        table=table,
        cost=cost(consortium, size, speeds),
        leaving=leaving(consortium, size, speeds, table),
        weakest=weakest(consortium, table),
    )


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan as ``plan.json`` has it, but for what depends on this machine or on a sweep."""
    consortium, training = plan.consortium, plan.consortium.training
    return {
        "schema": 1,
        "kind": "plan",
        "name": consortium.name,
        "description": consortium.description,
        "task": consortium.task,
        "dataset": consortium.dataset,
        "model": title_of(plan.size.architecture),
        "image_shape": consortium.image.shape,
        "parameters": plan.size.parameters,
        "delta": consortium.delta,
        "accountant": consortium.accountant,
        "prior": consortium.prior,
        "training": {**training.model_dump(), "steps": training.steps},
        "hospitals": [_hospital(plan, hospital) for hospital in consortium.hospitals],
        "refused": [{"eps": eps, "problem": problem} for eps, problem in sorted(plan.refused.items())],
        "leaving": plan.leaving,
        "weakest": plan.weakest,
    }


def _hospital(plan: Plan, hospital: HospitalEntry) -> dict[str, Any]:
    rate = sample_rate(plan.consortium, hospital)
    return {
        **hospital.model_dump(exclude={"records_per_s"}),
        "speed": plan.speeds[hospital.name],
        "sample_rate": rate,
        "expected_batch": rate * hospital.records,
        "steps": plan.consortium.training.steps,
        "budgets": plan.table[hospital.name],
    }


def fastest_processes(processors: int, consortium: Consortium) -> int:
    """How many processes a plan's figures are worth: below some dozens, forking costs more than it saves."""
    few = 8
    distinct = {(h.records, consortium.expected_batch(h)) for h in consortium.hospitals}
    finite = sum(math.isfinite(eps) for eps in consortium.budgets)
    return processors if len(distinct) * finite > few else 1
