"""Where a program writes its table, and in which form: the settings ``output`` and ``format``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from hbdp_fed.errors import SettingError, unknown_choice
from simulations.typed_path import typed_path


def output_file(output: str | None) -> Path | None:
    """The file to write, checked to be possible; None is the screen.

    Raises:
        SettingError: if it is a folder, its folder does not exist, or it cannot be written.
    """
    if output is None:
        return None
    path = typed_path("output", output).resolve()
    if path.is_dir():
        raise SettingError("output", f"{path} is a folder; name a file")
    if not path.parent.is_dir():
        raise SettingError("output", f"the folder {path.parent} does not exist")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise SettingError("output", f"{path} cannot be written")
    return path


def check_format(wanted: str | None, known: Sequence[str]) -> None:
    """Refuse a form that there is not; None leaves it to the file's suffix.

    Raises:
        SettingError: listing the forms.
    """
    if wanted is not None and wanted not in known:
        raise unknown_choice("format", wanted, known)


def chosen_format(wanted: str | None, target: Path | None, *, by_suffix: Mapping[str, str], otherwise: str) -> str:
    """The form that was asked for, or what the file's suffix says, or ``otherwise``."""
    return wanted or (by_suffix.get(target.suffix.lower(), otherwise) if target else otherwise)
