"""YAML that somebody else may have written: read without trusting it.

Nothing but plain values comes of it, no memory is taken for what a few letters stand for many times over, and nothing
is nested so deeply that whoever goes through it runs out of stack: the parser that is written in C would end the
process.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

try:  # Written in C where the package was built with it: ten times as fast.
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader

LARGEST = 2_000_000
"""Letters of a file, and of all that it stands for. A consortium of a thousand hospitals has a twentieth of it."""

DEEPEST = 50


class YamlProblem(ValueError):
    """Text is no YAML, or none that is read here. One line."""


def read_yaml(path: Path) -> Any:
    """What a file says: mappings, lists, texts, numbers, truth values, dates and None.

    Raises:
        YamlProblem: if it is no YAML, or stands for more than :data:`LARGEST` letters or deeper than :data:`DEEPEST`.
        OSError: if there is no such file, or it cannot be read.
    """
    return parse_yaml(read_text(path))


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        YamlProblem: if it is too long, or no text.
        OSError: as :func:`read_yaml`.
    """
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise YamlProblem(f"is too large: more than {LARGEST} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise YamlProblem(f"is no text in UTF-8: {error}") from error


def parse_yaml(text: str) -> Any:
    """As :func:`read_yaml`, of a text.

    Raises:
        YamlProblem: as there.
    """
    check_yaml(text)
    try:
        return yaml.load(text, Loader=SafeLoader)
    # What is marked as a number or a date and is none ends in one of the latter.
    except (yaml.YAMLError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise YamlProblem(f"is not YAML: {_told(error)}") from error


def check_yaml(text: str) -> None:
    """Go through a text without building anything of it.

    Raises:
        YamlProblem: as :func:`read_yaml`.
    """
    size = _Size()
    try:
        for event in yaml.parse(text, Loader=SafeLoader):
            size.take(event)
    except (yaml.YAMLError, UnicodeError) as error:
        raise YamlProblem(f"is not YAML: {_told(error)}") from error


def _told(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@dataclass
class _Open:
    anchor: str | None
    size: int = 1


class _Size:
    """How much a document stands for, told while it is read: an alias counts as much as what it repeats."""

    def __init__(self) -> None:
        self._open = [_Open(None)]
        self._known: dict[str, int] = {}

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.CollectionStartEvent):
            self._open.append(_Open(event.anchor))
            if len(self._open) > DEEPEST + 1:
                raise YamlProblem(f"is nested more than {DEEPEST} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = self._open.pop()
            self._add(closed.size, closed.anchor)
        elif isinstance(event, yaml.ScalarEvent):
            self._add(1 + len(event.value), event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._known:
                raise YamlProblem(f"has *{event.anchor}, which stands for nothing before it, or for itself")
            self._add(self._known[event.anchor], None)

    def _add(self, size: int, anchor: str | None) -> None:
        if anchor is not None:
            self._known[anchor] = size
        self._open[-1].size += size
        if self._open[-1].size > LARGEST:
            raise YamlProblem(f"is too large: with all that its aliases repeat, more than {LARGEST} letters")
