"""What can be wrong with a record of somebody's own data, by kind, and the one message that names all of it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hbdp_fed.data.bad_records import BadRecords, reason
from hbdp_fed.errors import DataFileError

_LOGGER = logging.getLogger(__name__)

MISSING = "missing file"
EMPTY = "zero bytes"
TRUNCATED = "truncated file"
UNREADABLE = "unreadable file"
NO_DECODER = "no decoder"
SHAPE = "wrong shape"
ORIENTATION = "wrong orientation"
NOT_A_NUMBER = "not a number"
NO_CLASS = "mask without the class"
LABEL = "unknown label"
DUPLICATE = "duplicate"
OUTSIDE = "path outside the folder"
INCOMPLETE = "incomplete row"

_MOST_NAMED = 20


class Defect(ValueError):
    """A record cannot be used.

    Args:
        kind: One of this module's words.
        text: What is wrong with the file, as the end of a sentence that begins with its path.
        path: The file; None leaves it to the caller, who knows which one was read.
    """

    def __init__(self, kind: str, text: str, path: Path | None = None) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text
        self.path = path

    def of(self, path: Path) -> Found:
        """The defect with its file, which is ``path`` unless it is known already."""
        return Found(self.path or path, self.kind, self.text)


@dataclass(frozen=True)
class Found:
    """A defect and the file to look at."""

    path: Path
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.kind}: {self.text}"


def check_file(path: Path) -> None:
    """That there is a file with something in it.

    Raises:
        Defect: otherwise.
    """
    if path.is_dir():
        raise Defect(UNREADABLE, "is a folder", path)
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise Defect(MISSING, "there is no such file", path) from error
    except OSError as error:
        raise Defect(UNREADABLE, f"cannot be read ({reason(error)})", path) from error
    if not size:
        raise Defect(EMPTY, "has no content", path)


def settle(found: Sequence[Found], *, manifest: Path, total: int, bad: BadRecords) -> None:
    """End with one message about all of them, or leave all of them out.

    Args:
        found: In the order in which they were met.
        manifest: Who lists these records.
        total: How many records it lists.
        bad: What becomes of them.

    Raises:
        DataFileError: under ``stop``, if there are any. It names the first twenty and counts the kinds of all.
    """
    if not found:
        return
    if bad.policy == "skip":
        for one in found:
            bad.refuse(one.path, f"{one.kind}: {one.text}")
        return
    for one in found:
        _LOGGER.debug("%s", one)
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(one.kind for one in found).items())
    named = "; ".join(str(one) for one in found[:_MOST_NAMED])
    rest = len(found) - _MOST_NAMED
    raise DataFileError(
        manifest,
        f"{len(found)} of {total} records cannot be used ({kinds}); repair them, or leave them out with "
        f"{bad.key}=skip: {named}{f'; and {rest} more' if rest > 0 else ''}",
    )
