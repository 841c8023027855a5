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

_Seen = tuple[Stamp, str]
"""A file's stamp when it was read, and its hash."""


def contents(files: Sequence[str], index: Path) -> dict[str, str]:
    """The SHA-256 of each file in hexadecimal digits, or :data:`ABSENT`, by its path.

    Paths are texts here: there may be a million of them.

    Args:
        files: Which, each once.
        index: Where hashes are remembered, a file in a folder that is there; it is written if there is any news.

    Raises:
        OSError: if a file is there and cannot be read. What becomes of the index raises nothing.
    """
    # Before anything is read: what counts is how long a file had been left alone when its stamp was taken.
    settled = time.time_ns() - SETTLED_NS
    known = _read_index(index)
    stamps = {file: _stamp(file) for file in files}
    found = {file: known[file][1] if stamp else ABSENT for file, stamp in stamps.items() if _same(stamp, known, file)}
    unread = [file for file in files if file not in found]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # hashing is outside of Python's lock
        read = dict(zip(unread, pool.map(_sha256, unread), strict=True))
    news = {
        file: (stamp, sha256)
        for file, sha256 in read.items()
        if (stamp := stamps[file]) is not None and max(stamp[1:3]) < settled
    }
    if news:
        _write_index(index, known | news)
    return {file: found[file] if file in found else read[file] for file in files}


def _same(stamp: Stamp | None, known: Mapping[str, _Seen], file: str) -> bool:
    """Whether a file need not be read: it is not there, or is as it was."""
    return stamp is None or (file in known and known[file][0] == stamp)


def _stamp(file: str) -> Stamp | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - a Path takes several times as long
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _sha256(file: str) -> str:
    with Path(file).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _read_index(index: Path) -> dict[str, _Seen]:
    try:
        rows = loads(index.read_bytes())["files"]
        return {name: ((size, changed, moved, inode), sha256) for name, size, changed, moved, inode, sha256 in rows}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        _LOGGER.warning("%s cannot be read (%s): all files are hashed again", index, error)
        return {}


def _write_index(index: Path, seen: Mapping[str, _Seen]) -> None:
    rows = [[name, *stamp, sha256] for name, (stamp, sha256) in seen.items()]
    try:
        with whole(index, shared=True) as unfinished:
            unfinished.write_text(dumps({"files": rows}), encoding="utf-8")
    except OSError as error:
        _LOGGER.warning("%s cannot be written (%s): files will be hashed again", index, error)
