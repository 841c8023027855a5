"""What a tracker is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

EPSILON = "privacy/epsilon_spent"
"""The figure of a round that says what the hospital that has spent most has spent so far."""

Setting = bool | int | float | str


class Tracker(Protocol):
    """Is told how a run goes."""

    def log_round(self, number: int, figures: Mapping[str, float]) -> None:
        """A training round is done.

        Args:
            number: From 1. After a crash the last one may come again.
            figures: By name, with a slash between its part and its own name. Those that are not finite are left out.
        """
        ...

    def finish(self, summary: Mapping[str, Any]) -> None:
        """The run is done.

        Args:
            summary: As ``summary.json`` has it.
        """
        ...


@dataclass(frozen=True)
class Place:
    """Which run is tracked.

    Attributes:
        folder: The run's.
        name: For people.
        settings: The run's, by dotted name.
        after: The training round after which the run goes on; 0 for a new one.
        say: Tells people what could not be tracked.
    """

    folder: Path
    name: str
    settings: Mapping[str, Setting]
    after: int
    say: Callable[[str], None]
