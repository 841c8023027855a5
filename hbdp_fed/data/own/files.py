"""The files on which a hospital's own records depend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hbdp_fed.data.own.table import read_table


def own_files(*, root: Path, manifest: str | None, folder: str | None, **_: Any) -> Iterator[Path]:
    """The table, and all that it lists: files, and whatever lies in folders, each of which is a series or its outline.

    Lines that are bad by the table alone are read by nobody: the table is enough for them.

    Raises:
        SettingError: as :func:`hbdp_fed.data.own.table.read_table`.
        DataFileError: likewise.
    """
    table = read_table(root=root, manifest=manifest, folder=folder)
    yield table.path
    for row in table.rows:
        for place in (row.path, row.mask):
            if place is not None and place.is_dir():
                yield from sorted(file for file in place.rglob("*") if file.is_file())
            elif place is not None:
                yield place
