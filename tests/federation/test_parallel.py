"""Tasks beside the federation: the same results, threads and exceptions wherever they run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from hbdp_fed.errors import SettingError
from hbdp_fed.federation.engine import EngineSettings
from hbdp_fed.federation.parallel import run_tasks

# Tasks are closures: Ray then sends their code, and a worker need not find this file.


def engine(name: str, *, workers: int = 2, threads: int = 1) -> EngineSettings:
    return EngineSettings(name=name, workers=workers, threads_per_client=threads, gpus_per_client=0.0)


def told(number: int, *, done: Path | None = None, after: Path | None = None) -> Callable[[], tuple[int, int, int]]:
    """A task that says its number, with how many threads it ran, and in which process.

    Args:
        number: What it says.
        done: A file that it leaves when it is finished.
        after: A file that it waits for first.
    """

    def task() -> tuple[int, int, int]:
        while after is not None and not after.exists():
            time.sleep(0.01)
        if done is not None:
            done.touch()
        return number, torch.get_num_threads(), os.getpid()

    return task


def raising(kind: type[Exception], *arguments: Any) -> Callable[[], Any]:
    def task() -> Any:
        raise kind(*arguments)

    return task


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))


@pytest.mark.parametrize("name", ["inprocess", "ray"])
def test_every_task_has_its_place_and_its_threads_whatever_the_engine(name: str, tmp_path: Path) -> None:
    # Where there are workers, the first task waits for the others.
    files = [tmp_path / str(place) for place in range(5)]
    tasks = [
        told(10 * place, done=files[place], after=files[4] if place == 0 and name == "ray" else None)
        for place in range(5)
    ]
    before = torch.get_num_threads()
    found = list(run_tasks(tasks, engine=engine(name, threads=before + 1)))
    assert sorted(place for place, _ in found) == list(range(5))
    assert all(number == 10 * place for place, (number, _, _) in found)
    assert {threads for _, (_, threads, _) in found} == {before + 1}
    assert torch.get_num_threads() == before
    here = {pid == os.getpid() for _, (_, _, pid) in found}
    assert here == {name == "inprocess"}
    assert not ray.is_initialized()
    if name == "ray":
        assert [place for place, _ in found][-1] == 0, "results wait for a slower task before them"


@pytest.mark.parametrize(
    ("name", "kind", "arguments", "message"),
    [
        ("inprocess", ZeroDivisionError, ("by none",), "by none"),
        ("inprocess", SettingError, ("data.size", "must be larger"), "data.size: must be larger"),
        # What is made from two arguments and keeps one is what pickle trips over.
        pytest.param(
            "ray",
            SettingError,
            ("data.size", "must be larger"),
            "data.size: must be larger",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_a_task_raises_is_raised_with_its_type_and_nothing_is_left_running(
    name: str, kind: type[Exception], arguments: tuple[str, ...], message: str
) -> None:
    before = torch.get_num_threads()
    with pytest.raises(kind) as raised:
        list(run_tasks([raising(kind, *arguments), told(1)], engine=engine(name, threads=before + 1)))
    assert type(raised.value) is kind
    assert str(raised.value) == message
    assert torch.get_num_threads() == before
    assert not ray.is_initialized()


@pytest.mark.slow
def test_whoever_stops_listening_leaves_no_workers_behind() -> None:
    results = run_tasks([told(0), told(1), told(2)], engine=engine("ray", workers=1))
    assert next(results)[1][0] in {0, 1, 2}
    assert ray.is_initialized()
    results.close()  # type: ignore[attr-defined]
    assert not ray.is_initialized()


@pytest.mark.usefixtures("without_ray")
def test_one_task_alone_does_not_start_ray() -> None:
    [(place, (number, threads, process))] = run_tasks([told(7)], engine=engine("ray", threads=2))
    assert (place, number, threads, process) == (0, 7, 2, os.getpid())


@pytest.mark.usefixtures("without_ray")
def test_no_task_is_no_result() -> None:
    assert list(run_tasks([], engine=engine("ray"))) == []


@pytest.mark.usefixtures("without_ray")
def test_an_engine_that_does_not_exist_is_refused_before_anything_runs(tmp_path: Path) -> None:
    def task() -> None:
        (tmp_path / "ran").touch()

    with pytest.raises(SettingError, match=r"^engine: 'slurm' is not known; choose one of: inprocess, ray, superlink$"):
        list(run_tasks([task, task], engine=engine("slurm")))
    assert not (tmp_path / "ran").exists()
