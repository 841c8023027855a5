"""A program while it is watched: what it says, how it ends, how long it takes, and what it touches."""

from __future__ import annotations

import gc
import io
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbdp_fed.errors import shown
from simulations.program import BAD_INPUT, OK

LONGEST_CPU_S = 20.0
"""Of one command line or file. The slowest that is right takes about a second; other people's load does not count."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_TOUCHING = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod"}
_LEAVING = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect"}


class TookTooLong(BaseException):
    """Nobody who catches exceptions catches this."""


@dataclass
class Watched:
    """What was touched outside the allowed folder while somebody watched.

    Attributes:
        allowed: The folder that may be written into.
        seen: By what is wrong, in words.
    """

    allowed: Path | None = None
    seen: list[str] = field(default_factory=list)


_watched: list[Watched] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    """Python tells it of every file that is opened and of every process that is started, whoever does it."""
    if not _watched:
        return
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, str | bytes) or not flags & _WRITING:
            return
    elif event in _TOUCHING:
        path = arguments[0]
    elif event in _LEAVING:
        _watched[-1].seen.append(f"{event} {arguments[:2]}")
        return
    else:
        return
    place = Path.cwd() / os.fsdecode(path)
    allowed = _watched[-1].allowed
    if place != Path(os.devnull) and not (allowed and place.is_relative_to(allowed)):
        _watched[-1].seen.append(f"{event} {place}")


sys.addaudithook(_hook)  # there is no way to take it off again, and without anybody watching it does nothing


@contextmanager
def watched(allowed: Path | None = None) -> Iterator[Watched]:
    """While this lasts, what is written, moved, started or called outside ``allowed`` is written down."""
    found = Watched(allowed)
    _watched.append(found)
    try:
        yield found
    finally:
        _watched.remove(found)


@contextmanager
def limited(seconds: float = LONGEST_CPU_S) -> Iterator[None]:
    """Ends with :class:`TookTooLong` what takes longer. Seconds of this process's own, whatever else runs here."""

    def stop(*_: object) -> None:
        raise TookTooLong(f"more than {seconds:g} s of computing")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code and all that it said."""

    code: int
    out: str
    err: str


def ended(main: Callable[[Sequence[str]], int], arguments: Sequence[str], *, allowed: Path | None = None) -> Ended:
    """Run a program's ``main`` in this process, within its time, and hold it to touching nothing it should not."""
    out, err = io.StringIO(), io.StringIO()
    with watched(allowed) as found, limited(), redirect_stdout(out), redirect_stderr(err):
        code = main(arguments)
    assert not found.seen, found.seen
    return Ended(code, out.getvalue(), err.getvalue())


def check_ending(found: Ended, *, codes: Sequence[int] = (OK, BAD_INPUT)) -> None:
    """That a program did its work, or said in one line for people what it cannot use."""
    said = found.out + found.err
    assert found.code in codes, said[-2000:]
    assert "Traceback" not in said, said[-2000:]
    assert shown(said) == said
    if found.code != OK:
        assert found.err.startswith("error: "), found.err
        assert found.err.count("\n") == 1, found.err
        assert len(found.err) < 5000


@contextmanager
def flat_memory(most: int = 100 * 2**20) -> Iterator[None]:
    """While this lasts, memory must not grow by more than ``most`` bytes, and for a moment by four times as many.

    A setting may ask for a larger model or for more rounds, which take their own memory until they are let go.
    """
    gc.collect()
    start, peak = resident(), _peak()
    yield
    gc.collect()
    grown, more = resident() - start, _peak() - max(start, peak)
    print(f"memory: {start / 2**20:.0f} MiB, {grown / 2**20:+.0f} MiB at the end, {more / 2**20:+.0f} MiB at the peak")
    assert grown < most
    assert more < 4 * most


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
