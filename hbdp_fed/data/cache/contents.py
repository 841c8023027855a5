"""What files hold, as hashes, without reading again what has not changed since.

As git does it: beside a file's hash stands what its folder said of it (size, times, inode). Where that is still the
same, so is the content. A file that was changed only just now is not remembered, for a clock that ticks too slowly
would show a second change under the same time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hbdp_fed.strict_json import dumps, loads
from hbdp_fed.whole_files import whole

_LOGGER = logging.getLogger(__name__)

ABSENT = "absent"
"""In place of the hash of a file that is not there."""

SETTLED_NS = 2 * 10**9
"""How long a file must have been left alone to be remembered: the slowest clock of a file system, FAT's."""

Stamp = tuple[int, int, int, int]
"""A file's size in bytes, the times of its last change and of its inode's in ns, and its inode."""


@dataclass(frozen=True)
class _Seen:
    """A file's hash, and its stamp when it was read."""

    stamp: Stamp
    sha256: str


def contents(files: Sequence[Path], index: Path) -> dict[Path, str]:
    """The SHA-256 of each file in hexadecimal digits, or :data:`ABSENT`.

    Args:
        files: Which.
        index: Where hashes are remembered, a file in a folder that is there; it is written if there is any news.

    Raises:
        OSError: if a file is there and cannot be read. What becomes of the index raises nothing.
    """
    known = _read_index(index)
    stamps = {file: _stamp(file) for file in files}
    unread = [
        file
        for file, stamp in stamps.items()
        if stamp is not None and (str(file) not in known or known[str(file)].stamp != stamp)
    ]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # hashing is outside of Python's lock
        read = dict(zip(unread, pool.map(_sha256, unread), strict=True))
    found = {
        file: ABSENT if stamp is None else read[file] if file in read else known[str(file)].sha256
        for file, stamp in stamps.items()
    }
    now = time.time_ns()
    news = {
        str(file): _Seen(stamp, sha256)
        for file, sha256 in read.items()
        if (stamp := stamps[file]) is not None and max(stamp[1:3]) < now - SETTLED_NS
    }
    if news:
        _write_index(index, {**known, **news})
    return found


def _stamp(file: Path) -> Stamp | None:
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _read_index(index: Path) -> dict[str, _Seen]:
    try:
        rows = loads(index.read_bytes())["files"]
        return {str(name): _Seen((int(a), int(b), int(c), int(d)), str(sha)) for name, a, b, c, d, sha in rows}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        _LOGGER.warning("%s cannot be read (%s): all files are hashed again", index, error)
        return {}


def _write_index(index: Path, seen: Mapping[str, _Seen]) -> None:
    rows = [[name, *entry.stamp, entry.sha256] for name, entry in seen.items()]
    try:
        with whole(index, shared=True) as unfinished:
            unfinished.write_text(dumps({"files": rows}), encoding="utf-8")
    except OSError as error:
        _LOGGER.warning("%s cannot be written (%s): files will be hashed again", index, error)
