"""The engine on Ray: a pool of warm worker processes that take turns at playing the hospitals.

Flower's own simulation runtime would do the same by way of its message queues, which are polled ten times a second, and
puts a worker that died back into its pool. Here a worker is handed its next message as soon as it has answered, what
all hospitals are sent is placed in Ray's object store once, and a worker that is lost is named and replaced.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from flwr.app import Context, Error, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hbdp_fed.errors import HospitalFailure
from hbdp_fed.federation.client_app import SHARD
from hbdp_fed.federation.crew import Crew, Node
from hbdp_fed.federation.preflight import Need, Rehearsal, out_of_memory, rehearse
from hbdp_fed.federation.shelf import Shelf
from hbdp_fed.federation.simulated_grid import LOST, TIMED_OUT, Answered, Job

_STARTING_S = 300.0
"""How long the first process may take to start. On a cluster of others' it waits for its turn, too."""

logger = logging.getLogger(__name__)

Shards = Sequence[tuple[str, Path]]
"""By hospital, where the settings say that it keeps its records, and where the driver has them."""


class _Worker:
    """A process that plays one hospital at a time."""

    def begin(self, app: ClientApp, threads: int, shards: tuple[Shards, str] | None) -> None:
        """Learn what there is to do. That it answers says that everything is imported.

        Args:
            app: The hospitals'.
            threads: PyTorch's.
            shards: The paths of the hospitals' records, and the node that has them where others may lack them.
        """
        torch.set_num_threads(threads)
        self._app, self._shards, self._shelf = app, shards, Shelf(self._fetch)

    def rehearse(self, step: Rehearsal) -> Need:
        return rehearse(step)

    def answer(self, content: RecordDict, metadata: Metadata, context: Context) -> tuple[Message, RecordDict]:
        if self._shards is not None:
            place = int(context.node_config["partition-id"])
            context.node_config[SHARD] = self._shelf.find(place, self._shards[0][place][0])
        reply = self._app(Message(content=content, metadata=metadata), context)  # type: ignore[call-overload]
        return reply, context.state

    def _fetch(self, place: int) -> Any:
        assert self._shards is not None
        shards, node = self._shards
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        return ray.get(_bytes_of.options(scheduling_strategy=there).remote(shards[place][1]))


@ray.remote(num_cpus=0)
def _bytes_of(path: Path) -> Any:
    """A file's bytes; as an array they travel through the object store without further copies."""
    return np.fromfile(path, dtype=np.uint8)


_EARLY: list[tuple[Crew, int, list[Any]]] = []


def start_early(crew: Crew, *, threads: int) -> None:
    """Start processes before it is known what they are to do; the next players of such a crew take them over.

    Ray has to be there, and :func:`forget_early` comes before its end.
    """
    _EARLY.append((crew, threads, [_started(crew, node, threads) for node in crew.nodes]))


def forget_early() -> None:
    """End processes that nobody has taken over."""
    while _EARLY:
        for actor in _EARLY.pop()[2]:
            ray.kill(actor)


def _taken_over(crew: Crew, threads: int) -> list[Any]:
    found = _EARLY.pop()[2] if _EARLY and _EARLY[-1][:2] == (crew, threads) else None
    forget_early()
    return [_started(crew, node, threads) for node in crew.nodes] if found is None else found


def _started(crew: Crew, node: Node, threads: int) -> Any:
    actor: Any = ray.remote(num_cpus=threads, num_gpus=crew.gpus, max_restarts=0, max_task_retries=0)(_Worker)
    # If the node is lost, any other will do.
    return actor.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.name, soft=True)).remote()


@dataclass
class _Seat:
    """A worker process with the jobs it was handed, the one it works at first.

    A second job waits in the process itself, so that it never idles while the server deals with its last answer.

    Attributes:
        node: Where it is to be.
        actor: The process.
        ready: Is there once it has started: importing takes seconds, which are not the hospital's.
        jobs: With the futures of their answers.
        since: When it began with the first job; None while it is starting, when it has none.
    """

    node: Node
    actor: Any
    ready: Any
    jobs: deque[tuple[Any, Job]] = field(default_factory=deque)
    since: float | None = None


class _Queue:
    """Jobs that nobody has begun with; what came back is handed out first."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._new, self._back = iter(jobs), deque[Job]()

    def take(self) -> Job | None:
        return self._back.popleft() if self._back else next(self._new, None)

    def put_back(self, jobs: Iterable[Job]) -> None:
        self._back.extend(jobs)

    @property
    def empty(self) -> bool:
        if not self._back and (job := next(self._new, None)) is not None:
            self._back.append(job)
        return not self._back


class RayPlayers:
    """Plays the nodes on a pool of worker processes; see :data:`hbdp_fed.federation.simulated_grid.Players`.

    Args:
        app: The app of every node; pickled once.
        crew: The workers. Ray has to be there (see :mod:`hbdp_fed.federation.cluster`).
        threads: PyTorch threads of each, and the processors it is given.
        shards: The hospitals' records, on a cluster whose other machines may not have these files; a worker that
            lacks one has it sent from this machine.
    """

    def __init__(self, app: ClientApp, crew: Crew, *, threads: int, shards: Shards | None = None) -> None:
        self._app, self._crew, self._threads = ray.put(app), crew, threads
        self._shards = None if shards is None else ray.put((shards, ray.get_runtime_context().get_node_id()))
        actors = _taken_over(crew, threads)
        self._seats = [_Seat(node, *self._begun(actor)) for node, actor in zip(crew.nodes, actors, strict=True)]
        self._placed: tuple[RecordDict, Any] | None = None

    def __call__(self, jobs: Iterable[Job], timeout_s: float | None) -> Iterator[Answered]:
        """Answer the jobs in the order in which they are done; each is given ``timeout_s`` seconds from its start.

        Raises:
            HospitalFailure: if no process could be started.
        """
        queue = _Queue(jobs)
        try:
            while True:
                self._hand_out(queue)
                if not any(seat.jobs for seat in self._seats):
                    if queue.empty:
                        return
                    self._first_ready()
                    continue
                self._wait(timeout_s)
                for seat in self._seats:
                    yield from self._collect(seat, queue, timeout_s)
        finally:
            for seat in self._seats:
                if seat.jobs:  # whoever listened has stopped
                    self._replace(seat)
                    seat.jobs.clear()

    def rehearse(self, step: Rehearsal) -> Need | None:
        """What the process that is up first needs for the step; None if it did not live through it.

        Raises:
            HospitalFailure: if no process could be started.
        """
        seat = self._first_ready()
        try:
            need: Need = ray.get(seat.actor.rehearse.remote(step))
            return need
        except ray.exceptions.RayTaskError as error:
            if not out_of_memory(error.cause):
                raise error.cause from error
        except ray.exceptions.RayError as error:
            logger.debug("the rehearsal ended its process: %s", error)
        self._replace(seat)
        return None

    def keep(self, nodes: Sequence[Node]) -> None:
        """Go on with so many processes on these nodes, those that are up first; end the others before they get work."""
        left: Mapping[str, int] = Counter(node.name for node in nodes)
        kept = Counter[str]()
        for seat in sorted(self._seats, key=lambda seat: not self._is_up(seat)):
            kept[seat.node.name] += 1
            if kept[seat.node.name] > left.get(seat.node.name, 0):
                ray.kill(seat.actor)
                self._seats.remove(seat)

    def close(self) -> None:
        """End the processes, so that other work finds their processors free."""
        for seat in self._seats:
            ray.kill(seat.actor)
        self._seats.clear()

    def _begun(self, actor: Any) -> tuple[Any, Any]:
        return actor, actor.begin.remote(self._app, self._threads, self._shards)

    def _replace(self, seat: _Seat) -> None:
        ray.kill(seat.actor)
        (seat.actor, seat.ready), seat.since = self._begun(_started(self._crew, seat.node, self._threads)), None

    def _is_up(self, seat: _Seat) -> bool:
        if seat.since is None and ray.wait([seat.ready], timeout=0)[0]:
            seat.since = time.monotonic()
        return seat.since is not None

    def _first_ready(self) -> _Seat:
        done, _ = ray.wait([seat.ready for seat in self._seats], num_returns=1, timeout=_STARTING_S)
        if not done:
            reason = (
                f"no worker process could be started within {_STARTING_S:g} s; is the cluster busy with other work?"
            )
            raise HospitalFailure("the federation", reason)
        return next(seat for seat in self._seats if self._is_up(seat))

    def _hand_out(self, queue: _Queue) -> None:
        """To every process that is up one job, then to each a second one."""
        for depth in (1, 2):
            for seat in self._seats:
                if len(seat.jobs) >= depth or not self._is_up(seat):
                    continue
                job = queue.take()
                if job is None:
                    return
                if not seat.jobs:
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
        """Until a process has answered or come up, or one has run out of time."""
        busy = [seat for seat in self._seats if seat.jobs]
        starting = [seat.ready for seat in self._seats if seat.since is None]
        begun = [seat.since for seat in busy if seat.since is not None]
        left = max(0.0, min(begun) + timeout_s - time.monotonic()) if timeout_s is not None else None
        ray.wait([*(seat.jobs[0][0] for seat in busy), *starting], num_returns=1, timeout=left)

    def _collect(self, seat: _Seat, queue: _Queue, timeout_s: float | None) -> Iterator[Answered]:
        """What a process has answered; if it is lost or late, that is said and another process takes its place."""
        while seat.jobs:
            future, job = seat.jobs[0]
            late = timeout_s is not None and seat.since is not None and time.monotonic() - seat.since >= timeout_s
            if not ray.wait([future], timeout=0)[0]:
                if late:
                    yield self._given_up(seat, queue, TIMED_OUT, f"no answer within {timeout_s:g} s")
                return
            try:
                reply, state = ray.get(future)
            except ray.exceptions.RayError as error:
                yield self._given_up(seat, queue, LOST, f"its process ended: {_first_line(error)}")
                return
            seat.jobs.popleft()
            seat.since = time.monotonic()
            yield Answered(job, reply, state)

    def _given_up(self, seat: _Seat, queue: _Queue, code: int, reason: str) -> Answered:
        self._replace(seat)
        _, job = seat.jobs.popleft()
        # What was waiting behind it has not begun.
        queue.put_back(other for _, other in seat.jobs)
        seat.jobs.clear()
        return Answered(job, Message(Error(code=code, reason=reason), reply_to=job.message), None)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
