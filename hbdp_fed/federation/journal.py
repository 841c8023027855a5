"""What a deployed server writes down, so that it can go on after a restart and others can follow it.

    charter.json                        the terms
    journal.jsonl                       what happened, a line an event
    rounds/round-0001.safetensors       where the federation stood after a round; round 0 before the first
    updates/round-0001/<hospital>...    the updates that were used, where the charter keeps them

Whoever follows reads the same events, in the same order, as the listeners of a simulation hear them. A round counts
once its line is there: of a round that the server did not finish nothing is told.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter

from hbdp_fed.errors import HospitalFailure, QuorumLost, UserError
from hbdp_fed.federation.answers import Failure
from hbdp_fed.federation.charter import Charter, CharterError
from hbdp_fed.federation.clock import Attendance
from hbdp_fed.federation.codec import RoundReport
from hbdp_fed.federation.revealed import RevealedSum
from hbdp_fed.federation.rounds import Listener
from hbdp_fed.federation.secure_sum import FixedPoint
from hbdp_fed.federation.server_app import Standing
from hbdp_fed.models import read_parts, read_weights, save_parts, save_weights
from hbdp_fed.strict_json import dumps
from hbdp_fed.types import ModelUpdate, Weights

ROUND, READY, ENDED, STOPPED, DONE = "round", "ready", "ended", "stopped", "done"
"""Kinds of lines: a round that is done, hospitals that answered the roll-call, why the federation is over, what stopped
the server, and its goal."""

_FINAL = (HospitalFailure, QuorumLost, CharterError, UserError)
_LONGEST_REASON = 10_000

_ATTENDANCE, _REPORT, _FAILURE, _UPDATE, _SUM, _RESUMED = "attendance", "report", "failure", "update", "sum", "resumed"
_ABSENT = {"lost", "timeout"}
_ATTENDANCES, _FAILURES = TypeAdapter(Attendance), TypeAdapter(Failure)
_Updates = Callable[[Mapping[str, Any]], ModelUpdate]


@dataclass(frozen=True)
class ServerFolder:
    """A federation's folder on the server.

    Attributes:
        path: Where.
    """

    path: Path

    @classmethod
    def of(cls, root: Path, charter: Charter) -> ServerFolder:
        """The folder of a charter under the server's own root."""
        return cls(root / f"{charter.name}-{charter.digest[:16]}")

    @property
    def journal_file(self) -> Path:
        """What happened."""
        return self.path / "journal.jsonl"

    @property
    def lock_file(self) -> Path:
        """Held by the server app that leads the federation now."""
        return self.path / "lock"

    def round_file(self, number: int) -> Path:
        """Where the federation stood after a round."""
        return self.path / "rounds" / f"round-{number:06d}.safetensors"

    def update_file(self, number: int, hospital: str) -> Path:
        """A hospital's update."""
        return self.path / "updates" / f"round-{number:06d}" / f"{hospital}.safetensors"

    def standing(self, number: int, *, like: Weights) -> Standing:
        """Where the federation stood after a round.

        Args:
            number: The round's.
            like: Weights in the model's order: optimisers know parameters by their place.
        """
        parts = read_parts(self.round_file(number))
        weights = {name: parts["global"][name] for name in like}
        return Standing(number, weights, parts.get("server", {}), parts.get("control", {}))

    def lines(self, *, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """The journal's whole lines from a byte on, each with the byte after it. An unfinished one is not there yet."""
        if not self.journal_file.exists():
            return
        with self.journal_file.open("rb") as file:
            file.seek(start)
            for raw in file:
                if not raw.endswith(b"\n"):
                    return
                start += len(raw)
                yield start, json.loads(raw)

    def last_round(self) -> int | None:
        """The last round that is done; None before round 0 was written."""
        done = [line["round"] for _, line in self.lines() if line["kind"] == ROUND]
        return done[-1] if done else None

    def nodes(self) -> Mapping[str, int]:
        """The hospitals' nodes at the last roll-call."""
        found = [line["nodes"] for _, line in self.lines() if line["kind"] == READY]
        return found[-1] if found else {}


class Journal:
    """Writes down what a server hears, and by what it ended if an error leaves the ``with`` block.

    Args:
        folder: Where; made if it is not there.
        charter: The terms.
    """

    def __init__(self, folder: ServerFolder, charter: Charter) -> None:
        self._folder = folder
        self._keep_updates = charter.keep_updates
        self._failed: set[str] = set()
        folder.path.mkdir(parents=True, exist_ok=True)
        # Two servers would ask every hospital twice.
        self._lock = folder.lock_file.open("a")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._drop_unfinished()
        (folder.path / "charter.json").write_text(charter.to_json())
        last = folder.last_round()
        if last is not None:
            self._write(_RESUMED, round=last)

    @property
    def only_absences(self) -> bool:
        """Whether whoever failed in the round in hand was away, and nobody refused or sent what cannot be used."""
        return not self._failed - _ABSENT

    def again(self, after: int) -> None:
        """The round in hand is begun anew."""
        self._failed = set()
        self._write(_RESUMED, round=after)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, problem: BaseException | None, __: object) -> None:
        if isinstance(problem, _FINAL):
            self.ended(problem)
        elif problem is not None:
            # The machine, the network, an operator: it goes on where it stands once it is started again.
            self._write(STOPPED, error=type(problem).__name__, reason=str(problem)[:_LONGEST_REASON])
        self._lock.close()

    def ready(self, nodes: Mapping[str, int]) -> None:
        """All hospitals have answered the roll-call."""
        self._write(READY, nodes=dict(nodes))

    def round(self, standing: Standing) -> None:
        """A round is done."""
        parts = {"global": standing.weights, "server": standing.server, "control": standing.control}
        self._failed = set()
        save_parts(self._folder.round_file(standing.round), parts)
        self._write(ROUND, round=standing.round)

    def ended(self, problem: BaseException) -> None:
        """The server ends before its goal. A restart goes on from the last round."""
        whose = (
            {"hospital": problem.hospital, "details": problem.details} if isinstance(problem, HospitalFailure) else {}
        )
        self._write(ENDED, error=type(problem).__name__, reason=str(problem)[:_LONGEST_REASON], **whose)

    def done(self) -> None:
        """All rounds are done."""
        self._write(DONE)

    @property
    def listener(self) -> Listener:
        """Who hears the answers."""
        return Listener(
            on_update=self._update,
            on_report=lambda report: self._write(_REPORT, report=report),
            on_failure=self._failure,
            on_attendance=lambda attendance: self._write(_ATTENDANCE, attendance=attendance),
            on_sum=self._sum,
        )

    def _failure(self, failure: Failure) -> None:
        self._failed.add(failure.kind)
        self._write(_FAILURE, failure=failure)

    def _update(self, update: ModelUpdate) -> None:
        if self._keep_updates:
            save_weights(self._folder.update_file(update.round, update.hospital), update.delta)
            self._write(_UPDATE, hospital=update.hospital, round=update.round, records=update.num_records)

    def _sum(self, revealed: RevealedSum) -> None:
        update = revealed.update
        save_weights(self._folder.update_file(update.round, update.hospital), update.delta)
        facts = {name: value for name, value in vars(revealed).items() if name != "update"}
        self._write(_SUM, hospital=update.hospital, round=update.round, records=update.num_records, facts=facts)

    def _write(self, kind: str, **facts: Any) -> None:
        with self._folder.journal_file.open("a", encoding="utf-8") as file:
            file.write(dumps({"kind": kind, **facts}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _drop_unfinished(self) -> None:
        """A last line that a kill cut off would run into the next one."""
        whole = [end for end, _ in self._folder.lines()]
        if self._folder.journal_file.exists():
            os.truncate(self._folder.journal_file, whole[-1] if whole else 0)


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
        if kind == READY:
            if not self._is_ready:
                self._told.on_ready()
            self._is_ready = True
        elif kind == _RESUMED:
            self._waiting = []
        elif kind == ROUND:
            if self.after is None or line["round"] > self.after:
                self._tell()
                self.after = line["round"]
                self._told.on_round(self._folder.standing(line["round"], like=self._like))
            self._waiting = []
        elif kind == ENDED:
            self.ending = line
        elif kind == STOPPED:
            self.stopped = line["reason"]
        elif kind == DONE:
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
    _ATTENDANCE: lambda listener, line, _: listener.on_attendance(_ATTENDANCES.validate_python(line["attendance"])),
    _REPORT: lambda listener, line, _: listener.on_report(RoundReport.from_plain(line["report"])),
    _FAILURE: lambda listener, line, _: listener.on_failure(_FAILURES.validate_python(line["failure"])),
    _UPDATE: lambda listener, line, updates: listener.on_update(updates(line)),
    _SUM: lambda listener, line, updates: listener.on_sum(_sum_of(line["facts"], updates(line))),
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
