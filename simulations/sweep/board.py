"""What people see of a sweep while it works: what is done, what is at work, and the time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

_SPEED_OVER_S = 1e9


class Board(Protocol):
    """Counts jobs."""

    def begin(self, name: str) -> None:
        """A job is at work now."""
        ...

    def end(self, name: str, line: str) -> None:
        """It has ended; ``line`` says how."""
        ...

    def tell(self, line: str) -> None:
        """Something that people should still see when it is over."""
        ...


@contextmanager
def board(console: Console, *, jobs: int) -> Iterator[Board]:
    """A bar with the time left; where the output is no terminal, a line a job."""
    if not console.is_terminal:
        yield _Lines(console, jobs)
        return
    columns = (
        MofNCompleteColumn(),
        BarColumn(16),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
    )
    with Progress(*columns, console=console, transient=True, expand=True, speed_estimate_period=_SPEED_OVER_S) as bar:
        yield _Bar(bar, jobs)


class _Bar:
    def __init__(self, bar: Progress, jobs: int) -> None:
        self._bar, self._at_work = bar, list[str]()
        self._task = bar.add_task("starting", total=jobs)

    def begin(self, name: str) -> None:
        self._at_work.append(name)
        self._bar.update(self._task, description=", ".join(self._at_work))

    def end(self, name: str, line: str) -> None:
        self._at_work.remove(name)
        self._bar.update(self._task, advance=1, description=", ".join(self._at_work))
        self.tell(line)

    def tell(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Lines:
    def __init__(self, console: Console, jobs: int) -> None:
        self._console, self._jobs, self._done = console, jobs, 0

    def begin(self, name: str) -> None:
        """No line: one at its end is enough for a log."""

    def end(self, name: str, line: str) -> None:
        self._done += 1
        self.tell(f"[{self._done}/{self._jobs}] {line}")

    def tell(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
