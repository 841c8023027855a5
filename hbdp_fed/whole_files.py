"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Another file to write, beside ``path``, whose place it takes when the block is done, and goes if the block fails.

    Args:
        path: The file, in a folder that is there.
        shared: Whether several processes may write it at the same time: each then has a file of its own, of which a
            kill leaves one. Otherwise the next writer takes the one that a kill left.
    """
    mine = f".{os.getpid()}" if shared else ""
    unfinished = path.with_name(f"{path.name}{mine}.partial")
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_whole(path: Path, text: str) -> None:
    """Write a text in UTF-8."""
    with whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
