"""A federation's folder on the server: what a server app writes down, and others read.

    charter.json                        the terms
    journal.jsonl                       what happened, a line an event
    rounds/round-000001.safetensors     where the federation stood after a round; round 0 before the first
    updates/round-000001/<hospital>...  the updates that were used, where the charter keeps them

A round counts once its line is there: of a round that the server did not finish nothing is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from hbdp_fed.federation.charter import Charter
from hbdp_fed.federation.server_app import Standing
from hbdp_fed.models import read_parts
from hbdp_fed.types import Weights


class Line(StrEnum):
    """What a line of the journal is about."""

    READY = "ready"
    """All hospitals have answered the roll-call."""
    ATTENDANCE = "attendance"
    """Who was asked in a round and who answered."""
    REPORT = "report"
    """What a hospital tells of its part of a round."""
    FAILURE = "failure"
    """A hospital whose answer is not used."""
    UPDATE = "update"
    """A hospital's update, in a file of its own."""
    SUM = "sum"
    """What secure aggregation revealed, in a file of its own."""
    ROUND = "round"
    """A round that is done."""
    RESUMED = "resumed"
    """The server goes on after a round; what was told of a later one does not count."""
    STOPPED = "stopped"
    """The machine, the network or an operator stopped the server."""
    ENDED = "ended"
    """The federation is over before its goal."""
    DONE = "done"
    """All rounds are done."""


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
        done = [line["round"] for _, line in self.lines() if line["kind"] == Line.ROUND]
        return done[-1] if done else None

    def nodes(self) -> Mapping[str, int]:
        """The hospitals' nodes at the last roll-call."""
        found = [line["nodes"] for _, line in self.lines() if line["kind"] == Line.READY]
        return found[-1] if found else {}
