"""A federation's processes on one machine: started with a log and a file of their number, and stopped by it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_GRACE_S = 15.0

_AGAIN = 'while :; do "$@"; test $? = 0 && exit; sleep 5; done'
"""A shell that starts a program again until it ends well."""


@dataclass(frozen=True)
class Process:
    """A process that may run, known by a folder.

    Attributes:
        folder: Where its log and its number are.
        name: What the files are called.
    """

    folder: Path
    name: str

    @property
    def log_file(self) -> Path:
        """What it prints."""
        return self.folder / f"{self.name}.log"

    @property
    def number_file(self) -> Path:
        """Its number, while it runs."""
        return self.folder / f"{self.name}.pid"

    @property
    def number(self) -> int | None:
        """Its process group's number; None if nothing of the group runs any more."""
        try:
            number = int(self.number_file.read_text())
            _reap(number)
            os.killpg(number, 0)
        except (OSError, ValueError):
            return None
        return number

    def start(self, command: Sequence[str], environment: Mapping[str, str], *, again: bool = False) -> None:
        """Start it in a process group of its own, unless it runs already.

        Args:
            command: Program and arguments.
            environment: Beside this process's own.
            again: Whether it is started again when it ends by itself with an error, as a service would be.
        """
        if self.number is not None:
            return
        if again:
            command = ["/bin/sh", "-c", _AGAIN, self.name, *command]
        with self.log_file.open("ab") as log:
            started = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        self.number_file.write_text(str(started.pid))

    def stop(self, *, kill: bool = False) -> None:
        """End it and all that it started. Politely first, unless ``kill``: as in a power cut."""
        number = self.number
        if number is not None and not kill:
            self._signal(number, signal.SIGTERM)
            deadline = time.monotonic() + _GRACE_S
            while self.number is not None and time.monotonic() < deadline:
                time.sleep(0.1)
        if number is not None:
            self._signal(number, signal.SIGKILL)
        self.number_file.unlink(missing_ok=True)

    def _signal(self, number: int, kind: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(number, kind)


def _reap(number: int) -> None:
    """A child that has ended keeps its number until its parent has asked about it."""
    with suppress(ChildProcessError):
        os.waitpid(number, os.WNOHANG)


def flower_environment(home: Path) -> dict[str, str]:
    """What Flower's programs are told: keep your things here, call nobody, install nothing."""
    return {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "RAY_USAGE_STATS_ENABLED": "0",
        # A server answers from dozens of threads, and each would keep what it once needed for messages to itself.
        "MALLOC_ARENA_MAX": "2",
    }
