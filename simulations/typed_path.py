"""Paths as people type them."""

from __future__ import annotations

from pathlib import Path

from hbdp_fed.errors import SettingError

_SHOWN = 80
_LONGEST_NAME = 100


def typed_path(key: str, text: str) -> Path:
    """The path that a setting names, with ``~`` replaced by the home folder. Whether anything is there is not asked.

    Args:
        key: The setting.
        text: Its value.

    Raises:
        SettingError: if no file could be there: a name that is too long, a folder that may not be looked into, the home
            of nobody.
    """
    if not text:
        raise SettingError(key, "must not be empty")
    try:
        path = Path(text).expanduser()
        path.resolve().exists()
    except (OSError, RuntimeError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SettingError(key, f"'{text[:_SHOWN]}' cannot be used as a path ({problem})") from error
    return path


def exists(text: str) -> bool:
    """Whether there is a file of that name; what cannot be a path is none."""
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def check_name(key: str, name: str) -> str:
    """``name``, which becomes a part of a folder's name.

    Raises:
        SettingError: if it would name another folder, or none.
    """
    if not 0 < len(name) <= _LONGEST_NAME or "/" in name or "\\" in name or not name.isprintable():
        raise SettingError(
            key, f"must be 1 to {_LONGEST_NAME} letters without / and \\, since folders are named by it, got "
            f"'{name[:_SHOWN]}'"
        )  # fmt: skip
    return name
