"""Which records a folder holds, and what their paths say of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from hbdp_fed.errors import SettingError
from hbdp_fed.inference.finding import PICTURE, SUFFIXES, VOLUME

SPLIT_FOLDERS: Mapping[str, str] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
"""The split by the name of a folder, in small letters."""

_INDEX = "DICOMDIR"
_PREAMBLE, _PREFIX = 128, b"DICM"

Word = Callable[[PurePosixPath], str | None]
"""What a record's path, from the folder on, says; None if it says nothing."""


def find_records(kind: str, folder: Path, *, series: bool = False) -> list[PurePosixPath]:
    """The records of a kind below a folder, from it on and in the order of their paths.

    Args:
        kind: A key of :data:`KINDS`.
        folder: Where to look, in all that is in it; hidden files and folders are left out.
        series: For DICOM: whether a record is a folder of slices instead of a file.
    """
    is_record = KINDS[kind]
    paths = (path for path in sorted(folder.rglob("*")) if not _is_hidden(path.relative_to(folder)))
    files = [path for path in paths if path.is_file() and is_record(path)]
    records = sorted({path.parent for path in files}) if series else files
    return [PurePosixPath(path.relative_to(folder).as_posix()) for path in records]


def _is_hidden(path: Path) -> bool:
    # Archives that were packed on a Mac have a hidden twin of every file.
    return any(part.startswith(".") for part in path.parts)


def _ends_in(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.name.lower().endswith(suffixes)


def _is_dicom(path: Path) -> bool:
    """By the content: many of these files have a name without an ending, or with one of their own."""
    if path.name == _INDEX:
        return False
    with path.open("rb") as file:
        return file.read(_PREAMBLE + len(_PREFIX))[_PREAMBLE:] == _PREFIX


KINDS: Mapping[str, Callable[[Path], bool]] = {
    "imagefolder": _ends_in(*SUFFIXES[PICTURE]),
    "nifti": _ends_in(*SUFFIXES[VOLUME]),
    "dicom": _is_dicom,
}
"""Which files are records, by the data set that reads them."""


def split_of(path: PurePosixPath) -> str | None:
    """The split that one of the folders is named after."""
    return next((SPLIT_FOLDERS[part.lower()] for part in path.parts[:-1] if part.lower() in SPLIT_FOLDERS), None)


def word_from(option: str, text: str) -> Word:
    """Where a word comes from: ``parent``, ``folder:N`` or ``pattern:REGEX``.

    Args:
        option: The option that says so, for messages.
        text: Its value.

    Raises:
        SettingError: if it is none of them.
    """
    how, _, argument = text.partition(":")
    if how == "parent" and not argument:
        return lambda path: path.parts[-2] if len(path.parts) > 1 else None
    if how == "folder" and argument.isdecimal() and int(argument) > 0:
        place = int(argument) - 1
        return lambda path: path.parts[place] if place < len(path.parts) - 1 else None
    if how == "pattern" and argument:
        return pattern_word(option, argument)
    raise SettingError(option, f"must be parent, folder:N (from 1) or pattern:REGEX, got '{text}'")


def pattern_word(option: str, pattern: str) -> Word:
    """The groups of a regular expression, joined by hyphens, where it is first found in a path.

    Raises:
        SettingError: if it is no regular expression, or has no group.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SettingError(option, f"'{pattern}' is no regular expression ({error})") from error
    if not compiled.groups:
        raise SettingError(option, f"'{pattern}' has no group: put what is wanted in brackets, as in person(\\d+)_")

    def word(path: PurePosixPath) -> str | None:
        match = compiled.search(path.as_posix())
        return "-".join(_told(match)) or None if match else None

    return word


def _told(match: re.Match[str]) -> Iterator[str]:
    return (group for group in match.groups() if group)


def mask_path(template: str, record: PurePosixPath) -> PurePosixPath:
    """The mask of a record.

    Args:
        template: A path from the folder on, in which ``{parent}`` stands for the record's folder, ``{name}`` for its
            name and ``{stem}`` for that without its ending.
        record: The record's path.

    Raises:
        SettingError: if the template has anything else in braces.
    """
    stem = re.sub(r"(\.nii)?\.[^.]*$", "", record.name) or record.name
    try:
        text = template.format(parent=record.parent.as_posix(), name=record.name, stem=stem)
    except (KeyError, IndexError, ValueError) as error:
        raise SettingError(
            "--mask-from", f"'{template}' may hold {{parent}}, {{name}} and {{stem}}, no other"
        ) from error
    return PurePosixPath(text)
