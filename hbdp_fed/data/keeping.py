"""Where records that were just made go: into memory, or into a file that processes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hbdp_fed.data.contract import Records


@dataclass(frozen=True)
class Kept:
    """Records, and where they are.

    Attributes:
        records: Images, labels and outlines; nothing of whose they are, where they come from a file.
        file: The shard that they are mapped from; None where they are in memory.
    """

    records: Records
    file: Path | None


class Keep(Protocol):
    """Gives records that follow from something, made now or found where they were kept before."""

    def __call__(self, facts: Mapping[str, Any], make: Callable[[], Records]) -> Kept:
        """Give the records.

        Args:
            facts: Plain JSON values from which they follow, the data set aside.
            make: Makes them; called only where there are none yet.
        """


def in_memory(facts: Mapping[str, Any], make: Callable[[], Records]) -> Kept:
    """Keep nothing: the records are made."""
    return Kept(make(), None)
