"""What goes on, while it goes on: the round, how many hospitals have answered in it, and the time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

_BAR_WIDTH = 16
# The time left goes by the last thousand answers (Rich keeps no more), however long they took.
_SPEED_OVER_S = 1e9


class ProgressLine(Protocol):
    """Counts rounds and answers and says what is going on."""

    def start(self, done: int) -> None:
        """The hospitals are ready; the clock starts. So many rounds were ``done`` before, by a run that goes on."""
        ...

    def ask(self, what: str, hospitals: int) -> None:
        """A round or probe (``what``) begins, in which so many hospitals are asked."""
        ...

    def answered(self) -> None:
        """One more of them has answered, or failed to."""
        ...

    def advance(self, note: str) -> None:
        """One more round is done."""
        ...

    def say(self, note: str) -> None:
        """Something begins that takes a while."""
        ...

    def tell(self, line: str) -> None:
        """Something happened that people should still see when it is over."""
        ...


class _Silent:
    """Shows nothing."""

    def start(self, done: int) -> None: ...

    def ask(self, what: str, hospitals: int) -> None: ...

    def answered(self) -> None: ...

    def advance(self, note: str) -> None: ...

    def say(self, note: str) -> None: ...

    def tell(self, line: str) -> None: ...


SILENT: ProgressLine = _Silent()
"""For whom nobody waits."""


@contextmanager
def progress(console: Console, *, rounds: int) -> Iterator[ProgressLine]:
    """Live progress with the time left; plain lines where the output is not a terminal.

    Args:
        console: Where to.
        rounds: How many rounds and probes there will be; 0 where there is something else to wait for.
    """
    if not console.is_terminal:
        yield _Lines(console, rounds)
        return
    columns = _columns(has_rounds=rounds > 0)
    with Progress(*columns, console=console, transient=True, expand=True, speed_estimate_period=_SPEED_OVER_S) as bar:
        yield _Bar(bar, rounds)


def _columns(*, has_rounds: bool) -> tuple[ProgressColumn, ...]:
    """What comes last gives way where the terminal is narrow."""
    note = TextColumn(
        "{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
    )
    if not has_rounds:
        return BarColumn(_BAR_WIDTH), TimeElapsedColumn(), note
    return (
        TextColumn("{task.fields[done]}/{task.total:.0f}", markup=False),
        BarColumn(_BAR_WIDTH),
        TextColumn("{task.fields[answers]}", markup=False, table_column=Column(no_wrap=True)),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        note,
    )


class _Bar:
    """The bar moves with every answer; it is drawn ten times a second, however many answers come."""

    def __init__(self, bar: Progress, rounds: int) -> None:
        self._bar = bar
        self._done, self._what, self._asked, self._heard = 0, "", 0, 0
        self._task = bar.add_task("starting the hospitals", total=rounds or None, done=0, answers="")

    def start(self, done: int) -> None:
        self._done = done
        self._bar.reset(self._task, completed=done, description="training", done=done, answers="")

    def ask(self, what: str, hospitals: int) -> None:
        self._what, self._asked, self._heard = what, hospitals, 0
        self._bar.update(self._task, answers=self._answers())

    def answered(self) -> None:
        self._heard += 1
        completed = self._done + min(1.0, self._heard / max(1, self._asked))
        self._bar.update(self._task, completed=completed, answers=self._answers())

    def advance(self, note: str) -> None:
        self._done += 1
        self._bar.update(self._task, completed=self._done, done=self._done, description=note)

    def say(self, note: str) -> None:
        self._bar.update(self._task, description=note)

    def tell(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _answers(self) -> str:
        return f"{self._what}: {self._heard} of {self._asked} answered"


class _Lines:
    """About ten lines a run, so that a log file stays readable."""

    def __init__(self, console: Console, rounds: int) -> None:
        self._console, self._rounds, self._done = console, rounds, 0

    def start(self, done: int) -> None:
        self._done = done
        before = f", after {done} of {self._rounds} rounds that were done before" if done else ""
        self.say(f"training{before}")

    def ask(self, what: str, hospitals: int) -> None:
        """No line."""

    def answered(self) -> None:
        """No line: there may be a thousand hospitals."""

    def advance(self, note: str) -> None:
        self._done += 1
        if self._done == self._rounds or self._done % max(1, self._rounds // 10) == 0:
            self.tell(f"[{self._done}/{self._rounds}] {note}")

    def say(self, note: str) -> None:
        self.tell(note)

    def tell(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
