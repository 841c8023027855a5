"""Reads what a deployed server writes down while it writes it, and passes it on.

Whoever follows hears the same events, in the same order, as the listeners of a simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from hbdp_fed.federation.answers import Failure
from hbdp_fed.federation.clock import Attendance
from hbdp_fed.federation.codec import RoundReport
from hbdp_fed.federation.revealed import RevealedSum
from hbdp_fed.federation.rounds import Listener
from hbdp_fed.federation.secure_sum import FixedPoint
from hbdp_fed.federation.server_app import Standing
from hbdp_fed.federation.server_folder import Line, ServerFolder
from hbdp_fed.models import read_weights
from hbdp_fed.types import ModelUpdate, Weights

_ATTENDANCES, _FAILURES = TypeAdapter(Attendance), TypeAdapter(Failure)
_Updates = Callable[[Mapping[str, Any]], ModelUpdate]


@dataclass(frozen=True)
class Told:
    """Where a follower passes things on.

    Attributes:
        listener: Hears of answers.
        on_ready: Called when all hospitals have answered the roll-call.
        on_round: Gets where the federation stands after each round.
    """

    listener: Listener
    on_ready: Callable[[], None]
    on_round: Callable[[Standing], None]


class Follower:
    """Reads a journal while it is written, and tells each round once.

    Args:
        folder: The server's.
        told: Whom.
        after: The last round that is known already.
        like: Weights in the model's order.

    Attributes:
        after: The last round that was told, or was known before.
        ending: Why the server ended, if it has: its last line of that kind, and nothing after it.
        stopped: What stopped the server last; empty if nothing did.
        done: Whether all rounds are done and told.
    """

    def __init__(self, folder: ServerFolder, told: Told, *, after: int | None, like: Weights) -> None:
        self.ending: Mapping[str, Any] | None = None
        self.stopped = ""
        self.done = False
        self.after = after
        self._folder, self._told, self._like = folder, told, like
        self._read = 0
        self._waiting: list[dict[str, Any]] = []
        self._is_ready = False

    def look(self) -> None:
        """Tell what has come since the last look."""
        for end, line in self._folder.lines(start=self._read):
            self._take(line)
            self._read = end

    def give_up(self) -> None:
        """Tell what was heard of a round that will not be finished."""
        self._tell()

    def _take(self, line: dict[str, Any]) -> None:
        kind = line["kind"]
        self.ending = None
        if kind == Line.READY:
            if not self._is_ready:
                self._told.on_ready()
            self._is_ready = True
        elif kind == Line.RESUMED:
            self._waiting = []
        elif kind == Line.ROUND:
            if self.after is None or line["round"] > self.after:
                self._tell()
                self.after = line["round"]
                self._told.on_round(self._folder.standing(line["round"], like=self._like))
            self._waiting = []
        elif kind == Line.ENDED:
            self.ending = line
        elif kind == Line.STOPPED:
            self.stopped = line["reason"]
        elif kind == Line.DONE:
            self.done = True
        else:
            self._waiting.append(line)

    def _tell(self) -> None:
        for line in self._waiting:
            _TELL[line["kind"]](self._told.listener, line, self._update_of)
        self._waiting = []

    def _update_of(self, line: Mapping[str, Any]) -> ModelUpdate:
        delta = read_weights(self._folder.update_file(line["round"], line["hospital"]))
        ordered = {name: delta[name] for name in self._like}
        return ModelUpdate(line["hospital"], line["round"], ordered, line["records"])


_TELL: Mapping[str, Callable[[Listener, Mapping[str, Any], _Updates], None]] = {
    Line.ATTENDANCE: lambda listener, line, _: listener.on_attendance(_ATTENDANCES.validate_python(line["attendance"])),
    Line.REPORT: lambda listener, line, _: listener.on_report(RoundReport.from_plain(line["report"])),
    Line.FAILURE: lambda listener, line, _: listener.on_failure(_FAILURES.validate_python(line["failure"])),
    Line.UPDATE: lambda listener, line, updates: listener.on_update(updates(line)),
    Line.SUM: lambda listener, line, updates: listener.on_sum(_sum_of(line["facts"], updates(line))),
}
"""By kind of line, who hears of it and what."""


def _sum_of(facts: Mapping[str, Any], update: ModelUpdate) -> RevealedSum:
    return RevealedSum(
        update=update,
        weights=facts["weights"],
        asked=facts["asked"],
        threshold=facts["threshold"],
        grid=FixedPoint(**facts["grid"]),
        largest_error=facts["largest_error"],
    )
