"""Time this machine as a run would use it: several processes beside each other, each of them a hospital's.

``python -m simulations.calibrating`` is such a process. It reads its job, says that it is ready, waits for a line, and
answers with what it measured; only its parent calls it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import IO

from pydantic import TypeAdapter

from hbdp_fed.planning.calibration import CalibrationJob, Throughput, mean_throughput, prepare_measuring
from hbdp_fed.strict_json import dumps

_READY = "ready"
_OWN_SHARE = 0.5
"""Of the time, for one process alone; the rest is for all of them together."""


class CalibrationFailed(RuntimeError):
    """A process that was to measure did not. The plan can be made without (exit code 1)."""


@dataclass(frozen=True)
class Calibration:
    """What was measured.

    Attributes:
        alone: By one process with nothing beside it, as at a hospital.
        together: By as many processes as a simulation has workers, as in a simulation; their mean.
        workers: How many those were.
        import_s: Seconds until all of them had started, imported everything and taken a first step.
        seconds: That all of it took.
    """

    alone: Throughput
    together: Throughput
    workers: int
    import_s: float
    seconds: float


def calibrated(job: CalibrationJob, *, workers: int) -> Calibration:
    """Measure this machine.

    Args:
        job: What to time, and how long in all.
        workers: Processes of a simulation, at least 1.

    Raises:
        CalibrationFailed: with what the process said.
    """
    started = time.perf_counter()
    share = dumps({**vars(job), "seconds": job.seconds * (_OWN_SHARE if workers > 1 else 1.0)})
    with ExitStack() as stack:
        processes = [stack.enter_context(_process()) for _ in range(workers)]
        for process in processes:
            _write(process.stdin, share)
        # All of them are there before the first one measures, and nothing disturbs it.
        for process in processes:
            _wait_until_ready(process)
        imported = time.perf_counter() - started
        alone = _measured(processes[:1])
        together = _measured(processes) if workers > 1 else alone
        for process in processes:
            _write(process.stdin, "")
    return Calibration(alone, together, workers, imported, time.perf_counter() - started)


def _process() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "simulations.calibrating"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where sessions share the processors, each has a share of its own, like a machine that nobody else uses.
        start_new_session=True,
    )


def _write(stream: IO[str] | None, line: str) -> None:
    assert stream is not None
    # Of a process that is gone, its own words say more: the next line that is read of it tells them.
    with suppress(BrokenPipeError):
        stream.write(f"{line}\n")
        stream.flush()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        assert process.stderr is not None
        said = process.stderr.read().strip().splitlines() or ["it ended without a word"]
        raise CalibrationFailed(f"this machine could not be measured: {said[-1]}")
    return line


def _wait_until_ready(process: subprocess.Popen[str]) -> None:
    if (line := _line(process).strip()) != _READY:
        raise CalibrationFailed(f"this machine could not be measured: {line}")


def _measured(processes: Sequence[subprocess.Popen[str]]) -> Throughput:
    for process in processes:
        _write(process.stdin, "go")
    return mean_throughput([Throughput(**json.loads(_line(process))) for process in processes])


def main() -> None:
    """What a measuring process does; an empty line, or the end of its input, ends it."""
    job = TypeAdapter(CalibrationJob).validate_json(sys.stdin.readline())
    measure = prepare_measuring(job)
    _write(sys.stdout, _READY)
    while sys.stdin.readline().strip():
        _write(sys.stdout, dumps(measure()))


if __name__ == "__main__":
    main()
