"""The engine on Ray: a pool of warm worker processes that take turns at playing the hospitals.

Flower's own simulation runtime would do the same by way of its message queues, which are polled ten times a second, and
puts a worker that died back into its pool. Here a worker is handed its next message as soon as it has answered, what
all hospitals are sent is placed in Ray's object store once, and a worker that is lost is named and replaced.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from flwr.app import Context, Error, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp

from hbdp_fed.federation.simulated_grid import LOST, TIMED_OUT, Answered, Job


class _Worker:
    """A process that plays one hospital at a time."""

    def __init__(self, app: ClientApp, threads: int) -> None:
        torch.set_num_threads(threads)
        self._app = app

    def ready(self) -> None:
        """Nothing; that it answers says that everything is imported."""

    def answer(self, content: RecordDict, metadata: Metadata, context: Context) -> tuple[Message, RecordDict]:
        reply = self._app(Message(content=content, metadata=metadata), context)  # type: ignore[call-overload]
        return reply, context.state


@dataclass
class _Seat:
    """A worker process with the jobs it was handed, the one it works at first.

    A second job waits in the process itself, so that it never idles while the server deals with its last answer.

    Attributes:
        actor: The process.
        ready: Is there once it has started: importing takes seconds, which are not the hospital's.
        jobs: With the futures of their answers.
        since: When it began with the first job; None while it is starting.
    """

    actor: Any
    ready: Any
    jobs: deque[tuple[Any, Job]] = field(default_factory=deque)
    since: float | None = None


class RayPlayers:
    """Plays the nodes on a pool of worker processes; see :data:`hbdp_fed.federation.simulated_grid.Players`.

    Args:
        app: The app of every node; pickled once.
        workers: How many processes, at least 1. Ray has to be there (see :mod:`hbdp_fed.federation.cluster`).
        threads: PyTorch threads of each, and the processors it is given.
        gpus: Share of a GPU that each is given.
    """

    def __init__(self, app: ClientApp, *, workers: int, threads: int, gpus: float) -> None:
        self._app = ray.put(app)
        self._threads = threads
        self._actor: Any = ray.remote(num_cpus=threads, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_Worker)
        self._seats = [_Seat(*self._start()) for _ in range(workers)]
        self._placed: tuple[RecordDict, Any] | None = None

    def __call__(self, jobs: Iterable[Job], timeout_s: float | None) -> Iterator[Answered]:
        """Answer the jobs in the order in which they are done; each is given ``timeout_s`` seconds from its start."""
        waiting, again = iter(jobs), deque[Job]()
        try:
            while True:
                self._hand_out(waiting, again)
                if not any(seat.jobs for seat in self._seats):
                    return
                self._wait(timeout_s)
                for seat in self._seats:
                    yield from self._collect(seat, again, timeout_s)
        finally:
            for seat in self._seats:
                if seat.jobs:  # whoever listened has stopped
                    self._replace(seat)
                    seat.jobs.clear()

    def close(self) -> None:
        """End the processes, so that other work finds their processors free."""
        for seat in self._seats:
            ray.kill(seat.actor)
        self._seats.clear()

    def _start(self) -> tuple[Any, Any]:
        actor = self._actor.remote(self._app, self._threads)
        return actor, actor.ready.remote()

    def _replace(self, seat: _Seat) -> None:
        ray.kill(seat.actor)
        (seat.actor, seat.ready), seat.since = self._start(), None

    def _hand_out(self, waiting: Iterator[Job], again: deque[Job]) -> None:
        """To every process one job, then to every process a second one."""
        for depth in (1, 2):
            for seat in self._seats:
                if len(seat.jobs) >= depth:
                    continue
                job = again.popleft() if again else next(waiting, None)
                if job is None:
                    return
                if not seat.jobs and seat.since is not None:
                    seat.since = time.monotonic()
                message = job.message
                future = seat.actor.answer.remote(self._content(message.content), message.metadata, job.context)
                seat.jobs.append((future, job))

    def _content(self, content: RecordDict) -> Any:
        """A reference to it in the object store, where the one that everybody is sent is placed once."""
        if self._placed is None or self._placed[0] is not content:
            self._placed = content, ray.put(content)
        return self._placed[1]

    def _wait(self, timeout_s: float | None) -> None:
        """Until a process has answered, or one has run out of time."""
        busy = [seat for seat in self._seats if seat.jobs]
        starting = [seat for seat in busy if seat.since is None]
        begun = [seat.since for seat in busy if seat.since is not None]
        left = max(0.0, min(begun) + timeout_s - time.monotonic()) if timeout_s is not None and begun else None
        ray.wait([*(seat.jobs[0][0] for seat in busy), *(seat.ready for seat in starting)], num_returns=1, timeout=left)
        for seat in starting:
            if ray.wait([seat.ready], timeout=0)[0]:
                seat.since = time.monotonic()

    def _collect(self, seat: _Seat, again: deque[Job], timeout_s: float | None) -> Iterator[Answered]:
        """What a process has answered; if it is lost or late, that is said and another process takes its place."""
        while seat.jobs:
            future, job = seat.jobs[0]
            late = timeout_s is not None and seat.since is not None and time.monotonic() - seat.since >= timeout_s
            if not ray.wait([future], timeout=0)[0]:
                if late:
                    yield self._given_up(seat, again, TIMED_OUT, f"no answer within {timeout_s:g} s")
                return
            try:
                reply, state = ray.get(future)
            except ray.exceptions.RayError as error:
                yield self._given_up(seat, again, LOST, f"its process ended: {_first_line(error)}")
                return
            seat.jobs.popleft()
            seat.since = time.monotonic()
            yield Answered(job, reply, state)

    def _given_up(self, seat: _Seat, again: deque[Job], code: int, reason: str) -> Answered:
        self._replace(seat)
        _, job = seat.jobs.popleft()
        # What was waiting behind it has not begun.
        again.extend(other for _, other in seat.jobs)
        seat.jobs.clear()
        return Answered(job, Message(Error(code=code, reason=reason), reply_to=job.message), None)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
