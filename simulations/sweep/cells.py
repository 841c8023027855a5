"""The runs of a sweep by name: a cell is one setting with one seed, and what is compared with it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbdp_fed.data import POOLED
from simulations.sweep.axes import Asked, Axis, ascending, assignments

ALONE = "alone"
COMPARED = (ALONE, POOLED)
"""What can stand beside the federation."""

_WITHOUT_OTHERS: Mapping[str, str] = {
    # A run that is compared with is about utility.
    "adversary.attack": "none",
    "adversary.hospitals": "[]",
    "evaluation.bootstrap": "0",
    "evaluation.matrix": "0",
    "federation.record": "probes",
    "federation.checkpoints": "1",
    # One place has nobody to sum with, to outvote, to wait for or to lose.
    "federation.secure_aggregation": "false",
    "federation.aggregation": "mean",
    "federation.participation": "1",
    "federation.min_hospitals": "1",
    "federation.deadline_s": "null",
    # Over the outages that sites= may plan.
    "federation.profiles": "{default:{availability:1}}",
    "federation.faults": "[]",
}


@dataclass(frozen=True)
class Cell:
    """One setting with one seed.

    Attributes:
        name: Its folder's, within the sweep's.
        values: By axis.
        seed: The run's.
        settings: All of the run's, as ``key=value``.
    """

    name: str
    values: Mapping[str, str]
    seed: int
    settings: tuple[str, ...]

    def compared_name(self, how: str, hospital: str = "") -> str:
        """The folder of a run that is compared with this one."""
        return _safe(f"{self.name}_{how}{f'-{hospital}' if hospital else ''}")

    def compared_settings(self, own: Sequence[str], *, steps: int | None) -> list[str]:
        """Those of a run that is compared with this one.

        Args:
            own: What sets it apart.
            steps: What the federation's noise is calibrated to; None to leave that to the run.
        """
        others = dict(_WITHOUT_OTHERS)
        if steps is not None:
            others["privacy.steps"] = str(steps)
        changed = {*others, *(text.partition("=")[0] for text in own)}
        kept = [text for text in self.settings if text.partition("=")[0] not in changed]
        return [*kept, *assignments(others), *own]


def cells_of(asked: Asked, seeds: Sequence[int], engine: Sequence[str] = ()) -> list[Cell]:
    """Every cell, a whole table of one seed before the next one's.

    Args:
        asked: What varies, and what does not.
        seeds: Of each combination.
        engine: How runs are computed, as ``key=value``.
    """
    return [
        Cell(
            name=_safe("_".join(f"{key}-{value}" for key, value in (*values.items(), ("seed", str(seed))))),
            values=values,
            seed=seed,
            settings=(*asked.fixed, *assignments(values), f"seed={seed}", *engine),
        )
        for seed in seeds
        for values in asked.combinations()
    ]


def planned_steps(summary: Mapping[str, Any]) -> int | None:
    """The steps that runs beside a finished one are calibrated to, so that their noise is the same.

    None where hospitals take part in some rounds only, and one alone in all of them: more steps than any of them took.
    """
    most = max(int(hospital["steps"]) for hospital in summary["privacy"]["hospitals"])
    training = summary["hyperparameters"]
    return most if most >= int(training["rounds"]) * int(training["local_steps"]) else None


def compared_runs(cell: Cell, summary: Mapping[str, Any], wanted: Sequence[str]) -> list[tuple[str, list[str]]]:
    """What is to be run beside a finished federation: a folder's name and the run's settings each."""
    steps, runs = planned_steps(summary), []
    hospitals = [hospital["name"] for hospital in summary["privacy"]["hospitals"]]
    if len(hospitals) < 2:
        return []
    if POOLED in wanted:
        runs.append((cell.compared_name(POOLED), cell.compared_settings(["federation.pooled=true"], steps=steps)))
    if ALONE in wanted:
        runs += [
            (
                cell.compared_name(ALONE, name),
                cell.compared_settings([f'federation.members=["{name}"]'], steps=steps),
            )
            for name in hospitals
        ]
    return runs


def is_finished(folder: Path) -> bool:
    """Whether a run came to its end."""
    return (folder / "summary.json").is_file()


def extended(before: Sequence[Axis], after: Sequence[Axis]) -> tuple[Axis, ...] | None:
    """Axes with the values of both; None where it is not the same settings that vary."""
    if [axis.key for axis in before] != [axis.key for axis in after]:
        return None
    joined = [
        Axis(old.key, tuple(dict.fromkeys((*old.values, *new.values)))) for old, new in zip(before, after, strict=True)
    ]
    return (*joined[:-1], ascending(joined[-1]))


def _safe(name: str) -> str:
    """As a folder may be called."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-")
