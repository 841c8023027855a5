"""Which budget? ``python -m simulations.sweep eps=[1,1e9,inf] seeds=3`` runs them all and sets them side by side."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from hbdp_fed.audit import wording
from hbdp_fed.audit.numbers import show_duration
from hbdp_fed.errors import SettingError
from simulations import checks
from simulations.compose import compose_run, typed, typed_as
from simulations.interrupt import Interrupted
from simulations.prepare import check_games, prepare
from simulations.program import FAILED, OK, exit_code, make_console
from simulations.run_folder import chosen_folder, create, read_summary, time_stamp
from simulations.schema import SweepConfig
from simulations.sweep.axes import BUDGET, Asked, take_apart
from simulations.sweep.board import Board, board
from simulations.sweep.cells import Cell, compared_runs, is_finished
from simulations.sweep.engines import check_quota, quota
from simulations.sweep.request import FILE, Request, held, read_request, requested, write_request
from simulations.sweep.results import write_results
from simulations.sweep.work import Ended, Job, work
from simulations.typed_path import check_name, typed_path

HELP = """usage: python -m simulations.sweep [key=value ...]

  python -m simulations.sweep                                  # eight budgets, three seeds, the embedded data set
  python -m simulations.sweep eps=[1,1e9,inf] seeds=5 data=pneumoniamnist
  python -m simulations.sweep eps=[1e9,inf] clients=[3,10] training.local_steps=[5,15]
  python -m simulations.sweep resume=runs/<a sweep>

Every setting of simulations.run can be set; one that is given several values varies. Finished runs are never repeated:
the same command with the same sweep_dir, or resume=, goes on where it stopped.

exit codes: 0 done, 1 a run failed (the others are done), 2 a setting cannot be used, 130 interrupted

A sweep's own settings with their defaults:
"""

_WHILE_RESUMING = ("resume", "parallel", "cpus_per_run")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_code(lambda: _main(given))


def _main(given: Sequence[str]) -> int:
    if any(argument in {"-h", "--help"} for argument in given):
        console = Console(highlight=False, markup=False, soft_wrap=True)
        console.print(HELP)
        console.print(OmegaConf.to_yaml(compose_run([], config_name="sweep")))
        return OK
    asked = take_apart(given)
    config = typed_as(SweepConfig, compose_run(asked.own, config_name="sweep"))
    if config.resume is not None:
        folder, request = _resumed(config.resume, given)
        check_quota(config, request.fixed)
    else:
        check_quota(config, asked.fixed)
        folder, request = _begun(asked, config)
    return _sweep(folder, request, config, make_console())


def _resumed(resume: str, given: Sequence[str]) -> tuple[Path, Request]:
    """The folder of a sweep to go on with.

    Raises:
        SettingError: if there is none, or something else is to be set than how it is computed.
    """
    for text in given:
        if text.partition("=")[0] not in _WHILE_RESUMING:
            raise SettingError("resume", f"goes on with a sweep's own settings; {text} cannot be set beside it")
    folder = typed_path("resume", resume).resolve()
    return folder, read_request(folder)


def _begun(asked: Asked, config: SweepConfig) -> tuple[Path, Request]:
    """The folder of a new sweep, or of one that this extends, after a look at what can be looked at.

    Raises:
        UserError: for everything that a user can mend.
    """
    request = requested(asked, config)
    configs = [(key, typed(compose_run(settings))) for key, settings in asked.samples()]
    for _, one in configs:
        checks.check(one)
    for key, one in configs:
        # Whether there is a data set with enough records; a budget asks for nothing more of it.
        if key != BUDGET:
            check_games(prepare(one))
    named = None if config.sweep_dir is None else typed_path("sweep_dir", config.sweep_dir).resolve()
    if named is not None and (named / FILE).is_file():
        return named, read_request(named, key="sweep_dir").joined(request)
    name = check_name("name", config.name)
    folder = chosen_folder(config.sweep_dir, Path("runs").resolve() / f"{time_stamp()}_{name}", key="sweep_dir")
    return create(folder, key="sweep_dir").path, request


def _sweep(folder: Path, request: Request, config: SweepConfig, console: Console) -> int:
    started = time.perf_counter()
    failures: dict[str, dict[str, Any]] = {}
    with held(folder, key="sweep_dir" if config.resume is None else "resume") as lock:
        write_request(folder, request)
        cells = {cell.name: cell for cell in request.cells()}
        jobs = _jobs(folder, request)
        console.print(_opening(request, jobs, folder), soft_wrap=True, markup=False)
        whole, together = True, config.parallel
        if jobs:
            with quota(config, request.fixed) as allowed, board(console, jobs=len(jobs)) as shown:
                together = allowed.parallel

                def on_end(ended: Ended) -> None:
                    cell = cells[ended.job.cell]
                    if ended.code != OK:
                        failures[ended.job.name] = _failure(ended, cell)
                    shown.end(ended.job.name, _line(folder, ended))

                whole = work(
                    folder,
                    jobs,
                    allowed,
                    lock=lock,
                    ready=lambda job: job.part == "federation" or is_finished(folder / job.cell),
                    on_begin=lambda job: shown.begin(job.name),
                    on_end=on_end,
                    on_stop=lambda: _stopping(shown),
                )
        wall = {"wall_s": time.perf_counter() - started, "parallel": together}
        write_results(folder, request, list(failures.values()), wall, console)
    if not whole:
        console.print(f"go on with: python -m simulations.sweep resume={folder}", soft_wrap=True)
        raise Interrupted(0)
    return FAILED if failures else OK


def _jobs(folder: Path, request: Request) -> list[Job]:
    """What is not done yet: the federations first, so that the table is there early."""
    cells = request.cells()
    federations = [Job(cell.name, "federation") for cell in cells if not is_finished(folder / cell.name)]
    return federations + [Job(cell.name, "compared") for cell in cells if not _is_compared(folder, cell, request)]


def _is_compared(folder: Path, cell: Cell, request: Request) -> bool:
    if not request.compared:
        return True
    if not is_finished(folder / cell.name):
        return False
    wanted = compared_runs(cell, read_summary(folder / cell.name), request.compared)
    return all(is_finished(folder / name) for name, _ in wanted)


def _opening(request: Request, jobs: Sequence[Job], folder: Path) -> str:
    axes = ", ".join(f"{axis.key}=[{','.join(axis.values)}]" for axis in request.axes)
    done = len(request.cells()) - sum(job.part == "federation" for job in jobs)
    before = f", {done} done before" if done else ""
    return f"{len(request.cells())} runs: {axes}, seeds {', '.join(map(str, request.seeds))}{before}\nsweep: {folder}"


def _stopping(shown: Board) -> None:
    shown.tell("every run that is at work finishes its round; once more stops at once")


def _failure(ended: Ended, cell: Cell) -> dict[str, Any]:
    return {
        "run": ended.job.name,
        BUDGET: float(cell.values[BUDGET]),
        "seed": cell.seed,
        "reason": ended.reason,
    }


def _line(folder: Path, ended: Ended) -> str:
    if ended.code != OK:
        return f"{ended.job.name} failed: {ended.reason} (logs/{ended.job.name}.log)"
    if ended.job.part != "federation":
        return f"{ended.job.name}: {show_duration(ended.seconds)}"
    summary = read_summary(folder / ended.job.cell)
    metric = wording.selection_of(summary)[0]
    rates = [
        f"{attack['name'].replace('_', ' ')} {attack['success_rate']:.1%}"
        for entry in summary["risk"].values()
        for attack in entry["attacks"]
        if attack["success_rate"] is not None
    ]
    utility = f"{wording.label(metric)} {wording.written(metric, summary['utility'].get(metric))}"
    return f"{ended.job.name}: {', '.join([utility, *rates])}; {show_duration(ended.seconds)}"


if __name__ == "__main__":
    sys.exit(main())
