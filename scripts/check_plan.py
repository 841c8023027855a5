"""Hold a plan's predictions against a run: the noise of every hospital, and the time on this machine.

    python scripts/check_plan.py -- clients=3 eps=8 partition.sizes=power_law training.rounds=20

Deals the records as the run does, writes down the consortium that this makes, lets ``simulations.plan`` measure this
machine and predict, runs ``simulations.run`` without attacks, lets the plan measure once more, and prints both. Where
the two predictions differ, others were at work on the machine, and the mean of them is compared. The exit code is 1 if
a sigma differs or the time in all is off by more than ``--tolerance``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from simulations.compose import compose_run, typed
from simulations.prepare import Prepared, prepare


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tolerance", type=float, default=0.3, help="largest relative error of the time in all")
    parser.add_argument("--repeats", type=int, default=1, help="how often to plan and run")
    parser.add_argument("settings", nargs="*", help="settings of simulations.run")
    arguments = parser.parse_args()
    settings = [*arguments.settings, "adversary.attack=none"]
    prepared = prepare(typed(compose_run(settings)))
    bad = 0
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory(prefix="hbdp_fed_check_plan_") as folder:
            bad += not _checked(prepared, settings, Path(folder), arguments.tolerance)
    return 1 if bad else 0


def _checked(prepared: Prepared, settings: list[str], folder: Path, tolerance: float) -> bool:
    plan = _planned(prepared, folder / "before")
    summary = _run(settings, folder / "run")
    after = _planned(prepared, folder / "after")
    planned = {own["name"]: own["budgets"][0]["noise_multiplier"] for own in plan["hospitals"]}
    used = {own["name"]: own["noise_multiplier"] for own in summary["privacy"]["hospitals"]}
    same = planned == used
    print(f"sigma: {'equal to the last bit' if same else f'DIFFERS: planned {planned}, used {used}'}")
    predictions, took = [found["cost"]["simulation"] for found in (plan, after)], summary["time"]
    fine = same
    rest = took["total_s"] - took["startup_s"] - took["rounds_s"]
    for name, key, measured in (
        ("start", "startup_s", took["startup_s"]),
        ("rounds", "rounds_s", took["rounds_s"]),
        ("reading and judging", "judging_s", rest),
        ("in all", "seconds", took["total_s"]),
    ):
        before, later = (found[key] for found in predictions)
        off = (before + later) / 2 / measured - 1
        print(f"{name}: predicted {before:.2f} s and {later:.2f} s, measured {measured:.2f} s ({off:+.0%})")
        if key == "seconds":
            fine = fine and abs(off) <= tolerance
    return fine


def consortium_of(prepared: Prepared) -> dict[str, Any]:
    """The consortium of a run, as it would be written down."""
    config, hyper, dataset = prepared.config, prepared.hyper, prepared.dataset
    steps = {plan.mechanism.steps for plan in prepared.plans}
    if len(steps) > 1:
        raise SystemExit("a plan knows one number of steps for all hospitals: leave federation.participation at 1")
    return {
        "name": config.name,
        "task": dataset.task,
        "classes": len(dataset.class_names),
        "image": {"size": list(dataset.train.images.shape[2:]), "channels": dataset.train.images.shape[1]},
        "model": {
            "name": prepared.architecture.name,
            **{
                name: value
                for name, value in prepared.architecture.args.items()
                if name not in {"in_channels", "num_classes", "spatial_dims"}
            },
        },
        "training": {
            "rounds": hyper.rounds,
            "local_steps": hyper.local_steps,
            "expected_batch": hyper.expected_batch,
            "batch_per": hyper.batch_per,
            "max_grad_norm": hyper.max_grad_norm,
            "multiplicity": prepared.local.multiplicity,
            "spare_steps": steps.pop() - hyper.rounds * hyper.local_steps,
            "optimizer": prepared.local.optimizer.name,
            "precision": prepared.local.precision,
            "augmentation": prepared.local.augmentation,
        },
        "judging": {
            "validation_records": len(dataset.val),
            "test_records": len(dataset.test),
            "every": config.evaluation.every,
        },
        "delta": config.delta,
        "budgets": [config.eps],
        "accountant": config.privacy.accountant,
        "hospitals": [{"name": plan.name, "records": plan.num_records} for plan in prepared.plans],
    }


def _planned(prepared: Prepared, folder: Path) -> dict[str, Any]:
    file, output = folder / "consortium.yaml", folder / "plan"
    folder.mkdir()
    file.write_text(yaml.safe_dump(consortium_of(prepared)))
    _program("plan", f"consortium={file}", "calibrate=true", f"output={output}")
    plan: dict[str, Any] = json.loads((output / "plan.json").read_text())
    return plan


def _run(settings: list[str], folder: Path) -> dict[str, Any]:
    _program("run", *settings, f"run_dir={folder}")
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def _program(name: str, *arguments: str) -> None:
    command = [sys.executable, "-m", f"simulations.{name}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
