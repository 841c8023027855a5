"""Work that has nothing to do with Flower, on the same workers that play the hospitals: the batches of attacks."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import torch

from hbdp_fed.errors import DataFileError, unknown_choice
from hbdp_fed.federation.cluster import cluster, cluster_nodes
from hbdp_fed.federation.deployment import SUPERLINK
from hbdp_fed.federation.engine import IN_PROCESS, EngineSettings

Result = TypeVar("Result")
Task = Callable[[], Result]


def run_tasks(tasks: Sequence[Task[Result]], *, engine: EngineSettings) -> Iterator[tuple[int, Result]]:
    """Run the tasks and yield each one's place and result as it is finished.

    Every task runs with ``engine.threads_per_client`` threads in either engine, so that results are the same.

    Args:
        tasks: What to run. On Ray each is pickled, so it should name files rather than hold them.
        engine: Where.

    Raises:
        SettingError: for an unknown engine.
        Exception: what a task raises.
    """
    if engine.name not in _RUNNERS:
        raise unknown_choice("engine", engine.name, _RUNNERS)
    # One task is not worth the seconds that a cluster takes to start.
    yield from _RUNNERS[engine.name if len(tasks) > 1 else IN_PROCESS](tasks, engine)


def _inprocess(tasks: Sequence[Task[Any]], engine: EngineSettings) -> Iterator[tuple[int, Any]]:
    for place, task in enumerate(tasks):
        yield place, _with_threads(task, engine.threads_per_client)


def _ray(tasks: Sequence[Task[Any]], engine: EngineSettings) -> Iterator[tuple[int, Any]]:
    with cluster(engine.cluster):
        import ray  # takes seconds to import
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = cluster_nodes()
        threads = engine.threads_per_client
        remote = ray.remote(num_cpus=threads, num_gpus=engine.crew(nodes).gpus, max_retries=0)(_with_threads)
        # Tasks name files, and a cluster's other machines need not share this one's disk.
        here = remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(nodes[0].name, soft=False))
        again = set(range(len(tasks))) if len(nodes) > 1 and nodes[0].processors >= threads else set()
        places = {remote.remote(task, threads): place for place, task in enumerate(tasks)}
        try:
            while places:
                done = ray.wait(list(places), num_returns=1)[0][0]
                place = places.pop(done)
                try:
                    result = ray.get(done)
                except ray.exceptions.RayTaskError as error:
                    if place not in again or not isinstance(error.cause, FileNotFoundError | DataFileError):
                        raise error.cause from error
                    again.remove(place)
                    places[here.remote(tasks[place], threads)] = place
                else:
                    yield place, result
        finally:
            # Whoever stops listening leaves nothing running on a cluster that goes on.
            for future in places:
                ray.cancel(future, force=True)


def _with_threads(task: Task[Any], threads: int) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return task()
    finally:
        torch.set_num_threads(before)
        _hand_back()


def _hand_back() -> None:
    """Give the system what the task has freed, where the C library can: tasks come in ever new sizes."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


_RUNNERS: Mapping[str, Callable[[Sequence[Task[Any]], EngineSettings], Iterator[tuple[int, Any]]]] = {
    IN_PROCESS: _inprocess,
    "ray": _ray,
    # Real hospitals' machines are theirs.
    SUPERLINK: _inprocess,
}
