"""What a deployed server writes down, so that it can go on after a restart and others can follow it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from typing import Any, Self

from hbdp_fed.errors import HospitalFailure, QuorumLost, UserError
from hbdp_fed.federation.answers import Failure
from hbdp_fed.federation.charter import Charter, CharterError
from hbdp_fed.federation.revealed import RevealedSum
from hbdp_fed.federation.rounds import Listener
from hbdp_fed.federation.server_app import Standing
from hbdp_fed.federation.server_folder import Line, ServerFolder
from hbdp_fed.models import save_parts, save_weights
from hbdp_fed.strict_json import dumps
from hbdp_fed.types import ModelUpdate

_FINAL = (HospitalFailure, QuorumLost, CharterError, UserError)
_LONGEST_REASON = 10_000
_ABSENT = {"lost", "timeout"}


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
            self._write(Line.RESUMED, round=last)

    @property
    def only_absences(self) -> bool:
        """Whether whoever failed in the round in hand was away, and nobody refused or sent what cannot be used."""
        return not self._failed - _ABSENT

    def again(self, after: int) -> None:
        """The round in hand is begun anew."""
        self._failed = set()
        self._write(Line.RESUMED, round=after)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, problem: BaseException | None, __: object) -> None:
        if isinstance(problem, _FINAL):
            self.ended(problem)
        elif problem is not None:
            # The machine, the network, an operator: it goes on where it stands once it is started again.
            self._write(Line.STOPPED, error=type(problem).__name__, reason=str(problem)[:_LONGEST_REASON])
        self._lock.close()

    def ready(self, nodes: Mapping[str, int]) -> None:
        """All hospitals have answered the roll-call."""
        self._write(Line.READY, nodes=dict(nodes))

    def round(self, standing: Standing) -> None:
        """A round is done."""
        parts = {"global": standing.weights, "server": standing.server, "control": standing.control}
        self._failed = set()
        save_parts(self._folder.round_file(standing.round), parts)
        self._write(Line.ROUND, round=standing.round)

    def ended(self, problem: BaseException) -> None:
        """The server ends before its goal. A restart goes on from the last round."""
        whose = (
            {"hospital": problem.hospital, "details": problem.details} if isinstance(problem, HospitalFailure) else {}
        )
        self._write(Line.ENDED, error=type(problem).__name__, reason=str(problem)[:_LONGEST_REASON], **whose)

    def done(self) -> None:
        """All rounds are done."""
        self._write(Line.DONE)

    @property
    def listener(self) -> Listener:
        """Who hears the answers."""
        return Listener(
            on_update=self._update,
            on_report=lambda report: self._write(Line.REPORT, report=report),
            on_failure=self._failure,
            on_attendance=lambda attendance: self._write(Line.ATTENDANCE, attendance=attendance),
            on_sum=self._sum,
        )

    def _failure(self, failure: Failure) -> None:
        self._failed.add(failure.kind)
        self._write(Line.FAILURE, failure=failure)

    def _update(self, update: ModelUpdate) -> None:
        if self._keep_updates:
            save_weights(self._folder.update_file(update.round, update.hospital), update.delta)
            self._write(Line.UPDATE, hospital=update.hospital, round=update.round, records=update.num_records)

    def _sum(self, revealed: RevealedSum) -> None:
        update = revealed.update
        save_weights(self._folder.update_file(update.round, update.hospital), update.delta)
        facts = {name: value for name, value in vars(revealed).items() if name != "update"}
        self._write(Line.SUM, hospital=update.hospital, round=update.round, records=update.num_records, facts=facts)

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
