"""The main job: ``python -m simulations.run clients=5 eps=1e12``.

Deals a data set to hospitals, calibrates each one's noise to the budget, trains with DP-SGD inside Flower client apps,
attacks what the hospitals really sent, and leaves a folder with everything under ``runs/``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from hbdp_fed.errors import HospitalFailure, QuorumLost, SettingError, TrainingDiverged
from hbdp_fed.federation.engine import check_room, kept_ready
from hbdp_fed.models import grouped, title_of, weights_sha256
from hbdp_fed.privacy.ledger import LedgerError
from simulations.assault import Assault
from simulations.assess import noise_summary, privacy_summary
from simulations.attacking import attack_and_audit
from simulations.attendance import clock_summary, participation_summary
from simulations.attendance_plan import always_late, check_attendance
from simulations.compose import choices, compose_run, groups, typed
from simulations.data_cache import reading_line
from simulations.deployment import check_deployment
from simulations.execute import execute
from simulations.headers import last_round
from simulations.multirun import FLAGS, planned_runs
from simulations.old_run import composed_of
from simulations.overlap import overlap_summary
from simulations.preflight import engine_summary
from simulations.prepare import TAKES_LONG, Prepared, check_games, prepare, resolution
from simulations.probe import ProbeCampaign
from simulations.program import OK, exit_code, make_console
from simulations.progress import progress
from simulations.reporting import draw_partition, write_card, write_reports
from simulations.run_folder import RunFolder, create, planned_folder, read_summary
from simulations.screening import screening_summary
from simulations.sites_summary import show_sites, sites_summary
from simulations.terminal import show_overlap, show_partition, show_plan, show_replaced, show_result, show_skipped
from simulations.tracking import Place, Tracker, check_installed, flat_settings, tracked
from simulations.typed_path import typed_path
from simulations.utility import measure_utility, partition_summary, scheme_of

_NAMED = 5

HELP = """usage: python -m simulations.run [key=value ...]

  python -m simulations.run clients=5 eps=1e12
  python -m simulations.run clients=8 eps=inf partition.scheme=dirichlet partition.alpha=0.3
  HBDP_DATA=/path/to/data python -m simulations.run data=pneumoniamnist eps=1e9
  python -m simulations.run --multirun eps=1,1e9,inf seed=0,1      # one after the other; simulations.sweep sums them up

exit codes: 0 done, 1 the run failed, 2 a setting cannot be used, 130 interrupted

All settings with their defaults:
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_code(lambda: _main(given), failures=(HospitalFailure, QuorumLost, TrainingDiverged, LedgerError))


def _main(given: Sequence[str]) -> int:
    if any(argument in {"-h", "--help"} for argument in given):
        return _help([argument for argument in given if not argument.startswith("-")])
    if any(argument in FLAGS for argument in given):
        return _multirun([argument for argument in given if argument not in FLAGS])
    return _run(*_composed(given), make_console())


def _multirun(given: Sequence[str]) -> int:
    console, runs = make_console(), planned_runs(given)
    for number, settings in enumerate(runs):
        console.print(f"run {number + 1} of {len(runs)}: {' '.join(settings)}", soft_wrap=True, markup=False)
        if (code := _run(*_composed(settings), console)) != OK:
            return code
    return OK


def _help(given: Sequence[str]) -> int:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(HELP)
    console.print(OmegaConf.to_yaml(compose_run(given)))
    for group in groups():
        console.print(f"{group}= one of: {', '.join(choices(group))}")
    return OK


def _composed(given: Sequence[str]) -> tuple[DictConfig, RunFolder | None]:
    """The settings, and the folder of the run that they go on with, if there is one.

    Raises:
        SettingError: if there is nothing to go on with, or something else is to be set than where it is computed.
    """
    composed = compose_run(given)
    if composed.resume is None:
        return composed, None
    source = RunFolder(typed_path("resume", composed.resume).resolve())
    others = [text for text in given if not text.startswith("resume=")]
    for text in others:
        if not text.startswith("engine."):
            raise SettingError("resume", f"goes on with a run's own settings; only engine.* can be set, not {text}")
    own = composed_of(source, key="resume", others=others)
    if source.summary_file.exists():
        raise SettingError("resume", f"{source.path} is finished; run its attacks again with simulations.attack")
    return own, source


def _run(composed: DictConfig, source: RunFolder | None, console: Console) -> int:
    started = time.perf_counter()
    config = typed(composed)
    path = planned_folder(config.run_dir, config.name) if source is None else source.path
    check_installed(config.tracking)
    check_deployment(config)
    console.print(reading_line(config.data), soft_wrap=True, markup=False)
    prepared = prepare(config)
    check_room(prepared.engine)
    check_attendance(prepared)
    if source is None:
        check_games(prepared)
    # Not sooner: whoever made a mistake would wait for an engine to start.
    with kept_ready(prepared.engine):
        return _begin(prepared, path, composed, source, console, started=started)


def _begin(
    prepared: Prepared, path: Path, composed: DictConfig, source: RunFolder | None, console: Console, *, started: float
) -> int:
    campaign = ProbeCampaign.planned(prepared)
    # From here on nothing is refused any more: the folder is made, and everything that happens is written into it.
    folder = source or create(path)
    if source is None:
        folder.write_config(composed)
        folder.write_environment(device=prepared.device)
    folder.forget_ending()
    show_skipped(console, prepared.dataset.skipped)
    show_left_out(console, prepared)
    show_late(console, prepared)
    partition = partition_summary(prepared)
    show_partition(console, partition)
    draw_partition(prepared, folder, partition)
    show_replaced(console, prepared.architecture, prepared.replaced, error=prepared.gradient_error)
    if prepared.fresh:
        weights = prepared.config.model.weights
        console.print(f"not in {weights}, so freshly drawn: {', '.join(prepared.fresh)}", soft_wrap=True)
    show_sites(console, prepared)
    show_plan(
        console,
        prepared.plans,
        title=_plan_title(prepared),
        noise_to_resolution=resolution(prepared),
        unit=prepared.units.word,
    )
    show_overlap(console, overlap_summary(prepared))
    try:
        begun = time.perf_counter()
        with tracked(prepared.config.tracking, _place(prepared, folder, console)) as tracker:
            return _train_and_assess(prepared, folder, campaign, console, tracker, started=started, begun=begun)
    except BaseException as problem:
        folder.write_ending(problem, rounds=prepared.hyper.rounds)
        console.print(f"not finished; what was computed so far is in {folder.path}", soft_wrap=True)
        console.print(f"go on with: python -m simulations.run resume={folder.path}", soft_wrap=True)
        raise


def _train_and_assess(
    prepared: Prepared,
    folder: RunFolder,
    campaign: ProbeCampaign | None,
    console: Console,
    tracker: Tracker,
    *,
    started: float,
    begun: float,
) -> int:
    with progress(console, rounds=prepared.hyper.rounds + prepared.probes) as line:
        chosen, course = execute(prepared, folder, line, campaign, begun=begun, tracker=tracker)
        line.say("judging the released model on the test split")
        utility = measure_utility(prepared, chosen, folder)
        started_attacks = time.perf_counter()
        assault = Assault(prepared, folder, prepared.attacks.attacks, line.say)
        risk = attack_and_audit(assault, folder.reconstructions)
        attack_s = time.perf_counter() - started_attacks
        screening = screening_summary(prepared, campaign, chosen.weights)
    assert course.sizing is not None
    summary = {
        "schema": 1,
        "task": prepared.dataset.task,
        "dataset": prepared.dataset.name,
        "class_names": prepared.dataset.class_names,
        "metrics": prepared.task.metrics,
        "selection": prepared.task.selection,
        "units": {"hd95": "mm"} if prepared.dataset.spacing is not None else {},
        "model": title_of(prepared.architecture),
        "model_replaced": grouped(prepared.replaced),
        "model_gradient_error": prepared.gradient_error,
        "clients": len(prepared.plans),
        "rounds": prepared.hyper.rounds,
        "seed": prepared.config.seed,
        "model_sha256": weights_sha256(chosen.weights),
        "privacy": privacy_summary(prepared),
        "secure_aggregation": course.sums.summary(seeded=not prepared.config.privacy.secure_noise),
        **utility,
        "utility_validation": chosen.validation,
        "validation_history": [{"round": number, **figures} for number, figures in chosen.history],
        "partition": partition_summary(prepared),
        "sites": sites_summary(prepared),
        "skipped": prepared.dataset.skipped,
        "risk": risk.summary,
        "screening": screening,
        "participation": participation_summary(prepared, folder, course),
        "ledger": course.ledger,
        "hyperparameters": {**vars(prepared.config.training), **vars(prepared.hyper)},
        "noise_to_resolution": noise_summary(prepared, course.clipped_sum),
        "engine": engine_summary(prepared.engine, course.sizing),
        "time": {
            "total_s": time.perf_counter() - started,
            "startup_s": course.startup_s,
            "rounds_s": course.rounds_s,
            "client_compute_s": course.client_compute_s,
            **clock_summary(prepared, folder),
            "attack_s": attack_s,
            "attacks_s": risk.seconds,
            "engine_efficiency": course.client_compute_s / (course.sizing.workers * course.rounds_s),
        },
    }
    folder.write_summary(summary)
    plain = read_summary(folder.path)
    write_card(prepared, folder, plain)
    tracker.finish(plain)
    reports = write_reports(prepared, folder, plain, risk.pictures)
    show_result(console, plain)
    for text in risk.left_out:
        console.print(text, soft_wrap=True, markup=False, highlight=False)
    for picture in risk.pictures.values():
        console.print(f"best reconstructions: {picture}", soft_wrap=True)
    for report in reports:
        console.print(f"report: {report}", soft_wrap=True)
    console.print(f"run folder: {folder.path}", soft_wrap=True)
    return OK


def _place(prepared: Prepared, folder: RunFolder, console: Console) -> Place:
    return Place(
        folder=folder.path,
        name=prepared.config.name,
        settings=flat_settings(prepared.config, prepared.hyper),
        after=last_round(folder.standing_file),
        say=lambda line: console.print(line, soft_wrap=True, markup=False, highlight=False),
    )


def show_left_out(console: Console, prepared: Prepared) -> None:
    """Attacks that would apply and are not run, with what stands in their way."""
    lines = [f"attack left out: {line}" for line in prepared.attacks.left_out]
    if prepared.config.federation.secure_aggregation and len(prepared.plans) <= prepared.config.evaluation.matrix:
        lines.append(
            "left out: each hospital's own model at every hospital (evaluation.matrix): under "
            "federation.secure_aggregation nobody sees a single hospital's model"
        )
    if prepared.unplayed:
        lines.append(
            f"attack left out: {', '.join(prepared.unplayed)}: {TAKES_LONG}; adversary.observed_rounds=1 runs them on "
            "the last round"
        )
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def show_late(console: Console, prepared: Prepared) -> None:
    """The hospitals that no training round waits for: a deadline that was meant for few may shut out many."""
    found = always_late(prepared)
    if found:
        slow = [f"{name} ({seconds:.3g} s)" for name, seconds in list(found.items())[:_NAMED]]
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        deadline = prepared.config.federation.deadline_s
        console.print(
            f"late in every training round, by federation.deadline_s={deadline:g}: {', '.join(slow)}{more}",
            soft_wrap=True,
            markup=False,
        )


def _plan_title(prepared: Prepared) -> str:
    config, hyper = prepared.config, prepared.hyper
    steps = f"{hyper.rounds} rounds x {hyper.local_steps} steps + {prepared.probes} probe steps"
    budget = f"eps={config.eps:g} per {prepared.units.word}, delta={config.delta:g}"
    return (
        f"Plan: {prepared.dataset.name}, {len(prepared.plans)} hospitals ({scheme_of(config)}), "
        f"{budget}, {steps}, {prepared.engine.name} on {prepared.device.type}"
    )


if __name__ == "__main__":
    sys.exit(main())
