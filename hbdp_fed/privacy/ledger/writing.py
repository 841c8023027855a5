"""Adds to a ledger's file, so that whatever was added survives a crash."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from hbdp_fed.privacy.ledger.book import Book, read_lines
from hbdp_fed.privacy.ledger.chain import Head
from hbdp_fed.privacy.ledger.entries import Entry
from hbdp_fed.privacy.ledger.problems import LedgerError

_LOGGER = logging.getLogger(__name__)


class Ledger:
    """A ledger that is open for writing. Whatever :meth:`append` has returned from survives a crash.

    A file that exists is read and checked first. If its last line has no newline, the process that wrote it was killed
    before anybody could rely on it, and it is cut off with a warning.

    Args:
        path: The file; its folder exists.

    Raises:
        LedgerError: if the file is not intact.
        OSError: if it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._book = Book()
        self._size = 0
        self._failed = False
        # Without a buffer: what could not be written must not be written later.
        self._file = path.open("ab", buffering=0)
        try:
            with self._alone():
                for size in read_lines(path, self._book, may_be_cut_off=True):
                    self._size = size
                self._cut_off()
            _sync_folder(path.parent)
        except BaseException:
            self._file.close()
            raise

    @property
    def head(self) -> Head:
        """The end of the chain, to be kept elsewhere."""
        return self._book.head

    def steps_spent(self, hospital: str) -> int:
        """The steps that a hospital was charged for; 0 for one that is not known."""
        running = self._book.running.get(hospital)
        return running.steps_spent if running else 0

    def append(self, entry: Entry) -> bool:
        """Write one line, and see to it that it is on the disk.

        What is there already is not written again: a charge of the same hospital, round and noise, a plan, a refusal
        for the same reason. So a run that repeats a round after a crash charges it once.

        Returns:
            Whether a line was written.

        Raises:
            LedgerError: if the entry contradicts an earlier one: another plan, the same noise with other figures, steps
                that do not add up or go beyond the plan. Nothing is written then.
            OSError: if it cannot be written. The ledger takes no more then: open it again.
        """
        return self.extend([entry]) == 1

    def extend(self, entries: Iterable[Entry]) -> int:
        """As :meth:`append` for several entries, with one wait for the disk in all.

        Returns:
            How many lines were written.

        Raises:
            LedgerError: as there. The entries before the one that does not fit are written.
            OSError: as there.
        """
        if self._failed:
            raise LedgerError(self.path, self.head.count + 1, "cannot be written: an earlier write failed")
        lines: list[bytes] = []
        try:
            for entry in entries:
                line = self._line(entry)
                if line:
                    lines.append(line)
        finally:
            self._write(b"".join(lines), first=self.head.count - len(lines) + 1)
        return len(lines)

    def close(self) -> None:
        """Close the file. Everything is on the disk already."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self, entry: Entry) -> bytes:
        try:
            return self._book.write(entry)
        except ValueError as problem:
            raise LedgerError(self.path, self.head.count + 1, str(problem)) from None

    def _write(self, data: bytes, *, first: int) -> None:
        if not data:
            return
        # Until this has gone well, the accounts are ahead of the file.
        self._failed = True
        with self._alone():
            if os.fstat(self._file.fileno()).st_size != self._size:
                raise LedgerError(self.path, first, "cannot be written: the file was changed since it was opened")
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        self._size += len(data)
        self._failed = False

    def _cut_off(self) -> None:
        size = os.fstat(self._file.fileno()).st_size
        if size == self._size:
            return
        _LOGGER.warning(
            "%s: line %d was not written to its end and is cut off (%d bytes)",
            self.path,
            self.head.count + 1,
            size - self._size,
        )
        self._file.truncate(self._size)
        os.fsync(self._file.fileno())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process writes meanwhile. Some file systems know no locks; then two writers must be avoided."""
        with suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_UN)


def _sync_folder(folder: Path) -> None:
    """A file that was just made is only safe once its folder is on the disk, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system can
            os.fsync(handle)
    finally:
        os.close(handle)
