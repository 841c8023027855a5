"""A worker's own copies of shards that lie on another machine's disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


class Shelf:
    """Finds shards, and keeps what it had to fetch in files without a name.

    Such a file is gone when the process ends, however it ends: nothing of a hospital's stays behind on a machine.

    Args:
        fetch: Gives a shard's bytes by its place among the hospitals.
    """

    def __init__(self, fetch: Callable[[int], Any]) -> None:
        self._fetch = fetch
        self._kept: dict[int, IO[bytes]] = {}

    def find(self, place: int, path: str) -> str:
        """The shard's own path where this machine has it, else that of a copy, which is fetched once.

        Args:
            place: Of the hospital, from 0.
            path: Where the hospital keeps its records.

        Raises:
            Exception: what ``fetch`` raises.
        """
        if Path(path).is_file():
            return path
        if place not in self._kept:
            file = tempfile.TemporaryFile(prefix="hbdp_fed_")  # noqa: SIM115 - open for as long as this process lives
            file.write(self._fetch(place))
            file.flush()
            self._kept[place] = file
        return f"/dev/fd/{self._kept[place].fileno()}"
