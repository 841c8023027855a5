"""What a consortium can expect, before any training: ``python -m simulations.plan consortium=chest_xray_7``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from hbdp_fed.errors import SettingError, unknown_choice
from hbdp_fed.planning import (
    CALIBRATED,
    GIVEN,
    PROFILE,
    CalibrationJob,
    Consortium,
    Frontier,
    Plan,
    Policy,
    Recommendation,
    Speed,
    check_budgets,
    fastest_processes,
    local_settings,
    make_plan,
    model_size,
    plan_document,
    recommend,
    simulation,
)
from hbdp_fed.strict_json import dumps
from hbdp_fed.training import resolve_device
from hbdp_fed.training.pace import SiteProfile
from simulations.calibrating import Calibration, CalibrationFailed, calibrated
from simulations.compose import compose_run, typed_as
from simulations.consortium_file import chosen_group, example_names, load_consortium, load_sweep
from simulations.plan_table import show_plan, show_recommendation
from simulations.program import OK, error_console, exit_code, make_console
from simulations.run_folder import chosen_folder, create, environment, time_stamp
from simulations.schema import PlanConfig
from simulations.typed_path import check_name

TABLE, JSON = "table", "json"
FORMATS = (TABLE, JSON)
AUTO, ALWAYS, NEVER = "auto", "true", "false"
CALIBRATE = (AUTO, ALWAYS, NEVER)

_LONGEST_CALIBRATION_S = 600.0

HELP = """usage: python -m simulations.plan consortium=FILE [key=value ...]

  python -m simulations.plan consortium=chest_xray_7
  python -m simulations.plan consortium=ours.yaml calibrate=true
  python -m simulations.plan consortium=ours.yaml sweep=runs/20260101-120000_sweep policy.margin=0.02

Nothing is trained and no data is read. Shows what each budget gives each hospital (noise, epsilon, bounds), what
training costs in time, traffic and energy, what a hospital's leaving would do, and who is protected least; with a sweep
also what was measured, and the smallest budget that meets the policy. Everything is written to plan.json.

exit codes: 0 done, whatever the recommendation is; 1 this machine could not be measured; 2 a setting or file cannot be
used; 130 interrupted

All settings with their defaults:
"""


@dataclass(frozen=True)
class Answer:
    """All that is shown and written.

    Attributes:
        plan: What can be said before training.
        calibration: Of this machine; None where nothing was measured.
        frontier: What a sweep measured; None without one.
        recommendation: On it; None without one.
        metric_label: How the frontier's metric is called.
        workers: Of a simulation on this machine.
    """

    plan: Plan
    calibration: Calibration | None
    frontier: Frontier | None
    recommendation: Recommendation | None
    metric_label: str
    workers: int

    def document(self) -> dict[str, Any]:
        """As ``plan.json`` has it."""
        plan = self.plan
        costs = {"round": plan.cost.round, "total": plan.cost.total, "hospitals": plan.cost.hospitals}
        predicted = None
        if self.calibration is not None:
            predicted = simulation(
                plan.consortium,
                self.calibration.together,
                workers=self.workers,
                processors=processors(),
                import_s=self.calibration.import_s,
            )
        return {
            **plan_document(plan),
            "cost": {**costs, "simulation": predicted, "calibration": self.calibration},
            "frontier": None if self.frontier is None else self.frontier.budgets,
            "metric": None if self.frontier is None else self.frontier.metric,
            "recommendation": self.recommendation,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_code(lambda: _main(given), failures=(CalibrationFailed,))


def _main(given: Sequence[str]) -> int:
    if any(argument in {"-h", "--help"} for argument in given):
        return _help()
    return _plan(_composed(given), make_console(), error_console())


def _help() -> int:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(HELP)
    console.print(OmegaConf.to_yaml(compose_run(["consortium=FILE"], config_name="plan")))
    console.print(f"examples of consortia: {', '.join(example_names())}")
    return OK


def _composed(given: Sequence[str]) -> PlanConfig:
    if not any(argument.startswith("consortium=") for argument in given):
        raise SettingError("consortium", f"name a YAML file or one of the examples: {', '.join(example_names())}")
    config = typed_as(PlanConfig, compose_run(given, config_name="plan"))
    # What looks like a truth value is one to the parser of the command line.
    return replace(config, calibrate=config.calibrate.lower())


def _plan(config: PlanConfig, console: Console, errors: Console) -> int:
    _check(config)
    consortium = _with_budgets(load_consortium(config.consortium), config.budgets)
    # What a sweep or a policy has wrong is told before anything is computed.
    frontier, policy, label = _measured(config, consortium)
    name = f"{time_stamp()}_plan-{check_name('consortium', consortium.name)}"
    folder = chosen_folder(config.output, Path("runs").resolve() / name, key="output")
    workers = config.workers or min(len(consortium.hospitals), processors())
    calibration = _calibration(config, consortium, workers, errors)
    plan = make_plan(
        consortium,
        _speeds(consortium, calibration),
        processes=fastest_processes(processors(), consortium),
    )
    recommendation = None
    if frontier is not None:
        refused = {budget.eps: plan.why_not(budget.eps) for budget in frontier.budgets}
        known = {eps: reason for eps, reason in refused.items() if reason is not None}
        differences = _differences(consortium, frontier)
        recommendation = recommend(frontier, policy, metric_label=label, refused=known, differences=differences)
    answer = Answer(plan, calibration, frontier, recommendation, label, workers)
    document = answer.document()
    text = dumps(document, indent=2) + "\n"
    path = create(folder, key="output").path / "plan.json"
    path.write_text(text, encoding="utf-8")
    page = _write_report(path.parent, json.loads(text), config)
    if config.format == JSON:
        sys.stdout.write(text)
        return OK
    show_plan(console, plan, predicted=document["cost"]["simulation"])
    if frontier is not None and recommendation is not None:
        show_recommendation(console, recommendation, frontier, label)
    console.print(f"plan: {path}", soft_wrap=True, markup=False)
    console.print(f"report: {page}", soft_wrap=True, markup=False)
    return OK


def _write_report(folder: Path, document: Mapping[str, Any], config: PlanConfig) -> Path:
    from hbdp_fed.report import render_plan_report  # draws, which takes a second to import

    page = folder / "report.html"
    about = environment(resolve_device(config.device))
    page.write_text(render_plan_report(document, environment=about), encoding="utf-8")
    return page


def _check(config: PlanConfig) -> None:
    if config.format not in FORMATS:
        raise unknown_choice("format", config.format, FORMATS)
    if config.calibrate not in CALIBRATE:
        raise unknown_choice("calibrate", config.calibrate, CALIBRATE)
    if not 0 < config.calibration_s <= _LONGEST_CALIBRATION_S:
        raise SettingError("calibration_s", f"must be above 0 and at most {_LONGEST_CALIBRATION_S:g} seconds")
    if config.workers is not None and config.workers < 1:
        raise SettingError("workers", f"must be at least 1, got {config.workers}")
    if config.group is not None and config.sweep is None:
        raise SettingError("group", "says which group of a sweep: set sweep, too")
    resolve_device(config.device)


def _with_budgets(consortium: Consortium, budgets: Sequence[float] | None) -> Consortium:
    if budgets is None:
        return consortium
    if not budgets:
        raise SettingError("budgets", "must hold at least one number, for example [1,1e12]")
    check_budgets(budgets)
    return consortium.model_copy(update={"budgets": tuple(sorted(budgets))})


def _measured(config: PlanConfig, consortium: Consortium) -> tuple[Frontier | None, Policy, str]:
    """The frontier, the policy with its metric, and the metric's label."""
    policy = _policy(config, consortium)
    if config.sweep is None:
        return None, policy, ""
    # Imported for its words alone, which most plans do not need: it takes seconds.
    from hbdp_fed.audit.wording import label, metric

    sweep = load_sweep(config.sweep)
    name = policy.metric or sweep.deciding
    place = chosen_group(sweep, config.group, hospitals=len(consortium.hospitals))
    frontier = sweep.frontier(place, metric=name, lower_is_better=metric(name).lower_is_better)
    return frontier, replace(policy, metric=name), label(name)


def _differences(consortium: Consortium, frontier: Frontier) -> list[str]:
    """How the sweep's federation differs from the consortium: its answer was not measured for these hospitals."""
    pairs = (
        ("task", consortium.task, frontier.task),
        ("data set", consortium.dataset, frontier.dataset),
        ("model", consortium.model.name, frontier.model),
        ("number of hospitals", len(consortium.hospitals), frontier.clients),
    )
    return [
        f"this consortium's {name}: the sweep measured {measured}, and {planned} is planned"
        for name, planned, measured in pairs
        if planned is not None and measured is not None and planned != measured
    ]


def _policy(config: PlanConfig, consortium: Consortium) -> Policy:
    """What was typed, else the consortium's target, else the defaults."""
    asked = {name: value for name, value in vars(config.policy).items() if value is not None}
    target = {name: value for name, value in consortium.target.model_dump().items() if value is not None}
    return Policy(**{**target, **asked})


def _calibration(config: PlanConfig, consortium: Consortium, workers: int, errors: Console) -> Calibration | None:
    lacking = [hospital.name for hospital in consortium.hospitals if hospital.records_per_s is None]
    if config.calibrate == NEVER or (config.calibrate == AUTO and not lacking):
        return None
    job = CalibrationJob(
        architecture=model_size(consortium).architecture,
        image_shape=consortium.image.shape,
        task=consortium.task,
        classes=consortium.classes,
        local=local_settings(consortium),
        batch=max(consortium.expected_batch(hospital) for hospital in consortium.hospitals),
        steps=consortium.training.local_steps,
        seconds=config.calibration_s,
        device=config.device,
        threads=1,
    )
    if errors.is_terminal:
        with errors.status("measuring this machine"):
            return calibrated(job, workers=workers)
    return calibrated(job, workers=workers)


def _speeds(consortium: Consortium, calibration: Calibration | None) -> Mapping[str, Speed]:
    found = {}
    for hospital in consortium.hospitals:
        if hospital.records_per_s is not None:
            speed = Speed(hospital.records_per_s, GIVEN)
        elif calibration is None:
            speed = Speed(SiteProfile().records_per_s, PROFILE)
        else:
            own = calibration.alone.records_per_s(
                steps=consortium.training.local_steps,
                batch=consortium.expected_batch(hospital),
                views=consortium.training.multiplicity,
            )
            speed = Speed(own, CALIBRATED)
        found[hospital.name] = speed
    return found


def processors() -> int:
    """Those of this machine that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
