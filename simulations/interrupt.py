"""Ctrl-C, and the signal by which machines ask a program to end: the round in hand is finished first."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and did so after a round; nothing is lost.

    Args:
        round: The last one that is done.
    """

    def __init__(self, round: int) -> None:
        super().__init__(f"interrupted after round {round}")
        self.round = round


@dataclass
class Request:
    """Whether anybody has asked for an end."""

    made: bool = False


@contextmanager
def stopping_between_rounds(say: Callable[[str], None]) -> Iterator[Request]:
    """While this lasts, the first SIGINT or SIGTERM only makes a request; the next one interrupts at once.

    Args:
        say: Tells people what goes on.
    """
    request = Request()

    def first(number: int, frame: FrameType | None) -> None:
        if request.made:
            raise KeyboardInterrupt
        request.made = True
        say("finishing this round; once more stops at once")

    before = {number: signal.signal(number, first) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
