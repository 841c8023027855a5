"""Command lines that nobody should type: each is taken or refused in one line, and nothing else happens."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from simulations import attack, budget, checks, compare, plan, predict, run
from simulations.compose import typed
from simulations.consortium_file import load_consortium
from simulations.output import output_file
from simulations.prepare import prepare
from simulations.program import OK
from simulations.run_folder import RunFolder, chosen_folder, planned_folder
from simulations.sweep import __main__ as sweep
from simulations.tracking import check_installed
from tests.simulations.drawn_settings import arguments, names_of
from tests.simulations.small_runs import SMALL
from tests.simulations.watching import check_ending, ended, flat_memory


@dataclass(frozen=True)
class Program:
    """A program up to where its work begins.

    Attributes:
        module: Its module, which has a ``main``.
        begins: By name, what of the module takes the place of work.
        config: Of its configuration.
        examples: How many command lines it is given, of the few hundred of all programs.
        needs: What has to be on its command line.
        also: Configurations whose settings it takes besides.
    """

    module: Any
    begins: Mapping[str, Callable[..., Any]]
    config: str
    examples: int
    needs: Sequence[str] = ()
    also: Sequence[str] = ()

    def cut(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the program end where its work begins."""
        for name, value in self.begins.items():
            monkeypatch.setattr(self.module, name, value)


def _begin_run(composed: Any, source: RunFolder | None, console: Any) -> int:
    config = typed(composed)
    if source is None:
        planned_folder(config.run_dir, config.name)
    check_installed(config.tracking)
    checks.check(config)
    return OK


def _prepared(composed: Any, source: RunFolder | None, console: Any) -> int:
    prepare(typed(composed))
    return OK


def _begin_budget(config: Any, errors: Any) -> int:
    budget.check(config)
    output_file(config.output)
    return OK


def _begin_plan(config: Any, console: Any, errors: Any) -> int:
    plan._check(config)
    plan._measured(config, plan._with_budgets(load_consortium(config.consortium), config.budgets))
    chosen_folder(config.output, Path("nosuch"), key="output")
    return OK


def _nothing(*_: Any, **__: Any) -> Any:
    return OK


PROGRAMS = {
    "run": Program(run, {"_run": _begin_run}, "run", examples=25),
    "prepared": Program(run, {"_run": _prepared}, "run", needs=SMALL, examples=3),
    "multirun": Program(run, {"_run": _begin_run}, "run", needs=["--multirun"], examples=8),
    "sweep": Program(
        sweep,
        {"_sweep": _nothing, "prepare": _nothing, "check_games": _nothing, "create": lambda path, key: RunFolder(path)},
        "sweep",
        also=["run"],
        examples=2,
    ),
    "budget": Program(budget, {"_budget": _begin_budget}, "budget", examples=10),
    "attack": Program(attack, {"_attack": _nothing}, "attack", needs=["run=nosuch"], examples=10),
    "compare": Program(compare, {}, "compare", needs=["nosuch/a", "nosuch/b"], examples=10),
    "predict": Program(predict, {}, "predict", needs=["nosuch/a", "nosuch/b"], examples=10),
    "plan": Program(plan, {"_plan": _begin_plan}, "plan", needs=["consortium=dermatology_4"], examples=10),
}


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, which is the home folder, too; no data set lies anywhere."""
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "HBDP_DATA"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("times", [0.25, pytest.param(80, marks=pytest.mark.slow)])
def test_whatever_is_typed_is_taken_or_refused_in_one_line(
    times: float, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in PROGRAMS.values():  # what is imported late is in memory from then on
        with monkeypatch.context() as patched:
            program.cut(patched)
            program.module.main(program.needs)
    with flat_memory():
        for program in PROGRAMS.values():
            with monkeypatch.context() as patched:
                program.cut(patched)
                _type_anything(program, nowhere, examples=math.ceil(times * program.examples))


def _type_anything(program: Program, nowhere: Path, *, examples: int) -> None:
    @settings(max_examples=examples, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(arguments(names_of(program.config, *program.also)))
    def check(given: list[str]) -> None:
        check_ending(ended(program.module.main, [*program.needs, *given]))
        assert list(nowhere.iterdir()) == []

    check()
