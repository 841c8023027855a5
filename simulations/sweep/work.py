"""Works a sweep's jobs off: some processes at a time, each with its share of the processors and a log of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from simulations.program import INTERRUPTED, OK

_LOOK_S = 0.1
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """A process of a sweep.

    Attributes:
        cell: Which cell it works at.
        part: ``federation``, or ``compared`` for what stands beside it.
    """

    cell: str
    part: str

    @property
    def name(self) -> str:
        """What people read, and its log is called by."""
        return self.cell if self.part == "federation" else f"{self.cell}_compared"


@dataclass(frozen=True)
class Ended:
    """How a job ended.

    Attributes:
        job: Which one.
        code: Its exit code.
        reason: Of a failure, in a line.
        seconds: How long it took.
    """

    job: Job
    code: int
    reason: str
    seconds: float


@dataclass(frozen=True)
class Quota:
    """What jobs may take.

    Attributes:
        parallel: How many at a time.
        threads: Of the numerical libraries in each.
        engine: How its runs compute, as ``key=value``.
    """

    parallel: int
    threads: int
    engine: tuple[str, ...]


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    log: Path
    said_before: int
    started: float = field(default_factory=time.perf_counter)


def work(
    folder: Path,
    jobs: Sequence[Job],
    quota: Quota,
    *,
    lock: int,
    ready: Callable[[Job], bool],
    on_begin: Callable[[Job], None],
    on_end: Callable[[Ended], None],
    on_stop: Callable[[], None],
) -> bool:
    """Run every job that becomes ready, the next one as soon as there is room.

    The first SIGINT or SIGTERM is handed on to the jobs, which end after their round; the next one ends them at once.

    Args:
        folder: The sweep's.
        jobs: In their order.
        quota: What they may take.
        lock: A file descriptor that they keep open (see :func:`simulations.sweep.request.held`).
        ready: Whether a job can begin, now that others have ended. What is never ready is never begun.
        on_begin: Told of each that begins.
        on_end: Told of each that ends.
        on_stop: Told once when no more are begun.

    Returns:
        False if it was ended by a signal.
    """
    waiting, running = list(jobs), list[_Running]()
    (folder / "logs").mkdir(exist_ok=True)
    with _stopping(running, on_stop) as stop:
        while True:
            while not stop and len(running) < quota.parallel:
                job = next((job for job in waiting if ready(job)), None)
                if job is None:
                    break
                waiting.remove(job)
                running.append(_begin(folder, job, quota, lock))
                on_begin(job)
            if not running:
                return not stop
            time.sleep(_LOOK_S)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                ended = _ended(one)
                # A signal reaches whom it is meant for in between: who was told to end has not failed.
                if not (stop and ended.code in (INTERRUPTED, -signal.SIGTERM, -signal.SIGINT)):
                    on_end(ended)


def _begin(folder: Path, job: Job, quota: Quota, lock: int) -> _Running:
    log = folder / "logs" / f"{job.name}.log"
    said_before = log.stat().st_size if log.exists() else 0
    command = [sys.executable, "-m", "simulations.sweep.job", str(folder), job.cell, job.part, *quota.engine]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            # Nothing is ever written: its end tells the job that the sweep is gone.
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **dict.fromkeys(_THREADS, str(quota.threads))},
            pass_fds=(lock,),
            # Ctrl-C in a terminal goes to everybody in its session; the sweep hands it on itself, once.
            start_new_session=True,
        )
    return _Running(job, process, log, said_before)


def _ended(one: _Running) -> Ended:
    assert one.process.stdin is not None
    one.process.stdin.close()
    code = one.process.returncode
    reason = "" if code == OK else _reason(one.log.read_bytes()[one.said_before :].decode(errors="replace"), code)
    return Ended(one.job, code, reason, time.perf_counter() - one.started)


def _reason(said: str, code: int) -> str:
    """The last thing that the job said of what went wrong."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1].removeprefix("error: ")
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return lines[-1] if lines else f"exit code {code}"


@contextmanager
def _stopping(running: Sequence[_Running], on_stop: Callable[[], None]) -> Iterator[list[bool]]:
    """A list that is empty until somebody asks for an end."""
    stop: list[bool] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        if not stop:
            on_stop()
        stop.append(True)
        for one in running:
            one.process.terminate()

    before: Mapping[int, object] = {n: signal.signal(n, hand_on) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
