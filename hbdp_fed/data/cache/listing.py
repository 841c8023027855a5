"""What lies in the folder of prepared records, and how it is made smaller."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from hbdp_fed.data.cache.folder import CONTENTS, DATASET_FILE, SUFFIX
from hbdp_fed.data.cache.keys import code_version
from hbdp_fed.data.cache.sealed import read_about
from hbdp_fed.errors import DataFileError

USABLE, OUTDATED, BROKEN = "usable", "outdated", "broken"
"""``outdated`` was made by another version of the code or its libraries, ``broken`` is no whole data set. No run of
this version will read either."""

_KEY = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """A data set in the folder, with what it was dealt into.

    Attributes:
        path: Its folder.
        state: :data:`USABLE`, :data:`OUTDATED` or :data:`BROKEN`.
        used: When a run used it last; local time.
        size: Bytes of all its files.
        shards: Files of hospitals' records and of splits as scanners show them.
        name: The data set; None where that cannot be read.
        options: Its options.
    """

    path: Path
    state: str
    used: datetime
    size: int
    shards: int
    name: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def entries_in(folder: Path) -> list[Entry]:
    """All data sets in a folder, by when they were used, newest last."""
    found = [path for path in folder.iterdir() if path.is_dir() and _KEY.fullmatch(path.name)]
    return sorted(map(_entry, found), key=lambda entry: (entry.used, entry.path))


def remove(entry: Entry) -> None:
    """Delete a data set and its shards. Processes that have mapped them keep what they mapped; no new one can.

    Raises:
        DataFileError: if that is not possible.
    """
    try:
        shutil.rmtree(entry.path)
    except OSError as error:
        raise DataFileError(entry.path, f"cannot be removed ({error.strerror})") from error


def forget_contents(folder: Path) -> None:
    """Delete the remembered hashes of files; they will be read again."""
    shutil.rmtree(folder / CONTENTS, ignore_errors=True)


def _entry(path: Path) -> Entry:
    files = [file for file in path.iterdir() if file.is_file()]
    main = path / DATASET_FILE
    newest = (main if main.is_file() else path).stat().st_mtime
    known: dict[str, Any] = {}
    try:
        about = read_about(main)
        known = {"name": str(about["made_of"]["name"]), "options": dict(about["made_of"]["options"])}
        state = USABLE if about["code"] == code_version() else OUTDATED
    except (DataFileError, KeyError, TypeError, ValueError):
        state = BROKEN
    return Entry(
        path=path,
        state=state,
        used=datetime.fromtimestamp(newest),
        size=sum(file.stat().st_size for file in files),
        shards=sum(file.suffix == SUFFIX and file != main for file in files),
        **known,
    )
