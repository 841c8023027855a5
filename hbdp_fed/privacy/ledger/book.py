"""A ledger as it is read and added to: the end of its chain and its accounts, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hbdp_fed.privacy.ledger.accounts import Running
from hbdp_fed.privacy.ledger.chain import Head, kind_of, now, opened, sealed
from hbdp_fed.privacy.ledger.entries import Entry
from hbdp_fed.privacy.ledger.problems import LedgerError
from hbdp_fed.strict_json import dumps


class Book:
    """A chain's end and the accounts that its lines add up to."""

    def __init__(self) -> None:
        self.head = Head()
        self.running: dict[str, Running] = {}

    def read(self, raw: bytes) -> None:
        """Take the next line of a file, without its newline; ValueError tells what is wrong with it."""
        entry, found = opened(raw, self.head)
        if not self._of(entry).take(entry):
            raise ValueError(f"repeats an earlier {kind_of(entry)} of {entry.hospital}")
        self.head = Head(self.head.count + 1, found)

    def write(self, entry: Entry) -> bytes:
        """The line for ``entry`` with its newline, nothing if it is there already; ValueError if it does not fit."""
        if not self._of(entry).take(entry):
            return b""
        line = sealed(entry, self.head, now())
        self.head = Head(self.head.count + 1, line["hash"])
        return dumps(line).encode("ascii") + b"\n"

    def _of(self, entry: Entry) -> Running:
        return self.running.setdefault(entry.hospital, Running())


def read_lines(path: Path, book: Book, *, may_be_cut_off: bool) -> Iterator[int]:
    """Take all whole lines of a file into ``book``; after each one, how many bytes were read.

    Raises:
        LedgerError: naming the first line that is wrong.
    """
    size = 0
    with path.open("rb") as file:
        for raw in file:
            if not raw.endswith(b"\n"):
                if may_be_cut_off:
                    return
                raise LedgerError(path, book.head.count + 1, "was cut off: it has no newline at its end")
            try:
                book.read(raw[:-1])
            except ValueError as problem:
                raise LedgerError(path, book.head.count + 1, str(problem)) from None
            size += len(raw)
            yield size
