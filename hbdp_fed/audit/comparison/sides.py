"""Plain values of two sides under one name, and which of them differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hbdp_fed.strict_json import to_plain

ABSENT = "(not there)"
"""Stands for a value that a run does not have, as where an older version knew no such setting."""


@dataclass(frozen=True)
class Sided:
    """What two sides have under one name.

    Attributes:
        name: Of the value, with dots where it lies in sections.
        first: The first side's values, one a run, in the runs' order; :data:`ABSENT` for a run without one.
        second: The second side's.
    """

    name: str
    first: tuple[Any, ...]
    second: tuple[Any, ...]

    @property
    def differs(self) -> bool:
        """Whether one side has a value that the other one does not have."""
        first, second = distinct(self.first), distinct(self.second)
        return not (_all_in(first, second) and _all_in(second, first))


def distinct(values: Sequence[Any]) -> list[Any]:
    """Each different value once, in the order in which they first come."""
    found: list[Any] = []
    for value in values:
        if not _all_in([value], found):
            found.append(value)
    return found


def _all_in(values: Sequence[Any], among: Sequence[Any]) -> bool:
    return all(any(_same(value, other) for other in among) for value in values)


def _same(one: Any, other: Any) -> bool:
    """Equality in which true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of nested mappings as plain JSON values by their full names: ``training.rounds``, ``faults[0].kind``.

    A list is a leaf unless it holds mappings, and so is an empty mapping.
    """
    return dict(_leaves(to_plain(tree), ""))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and (value or not name):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for place, item in enumerate(value):
            yield from _leaves(item, f"{name}[{place}]")
    else:
        yield name, value


def sided(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> list[Sided]:
    """Every name that some run has, in the order in which they first come.

    Args:
        first: The first side's runs, each by name (see :func:`flat`).
        second: The second side's.
    """
    names = dict.fromkeys(name for run in (*first, *second) for name in run)
    return [
        Sided(name, tuple(run.get(name, ABSENT) for run in first), tuple(run.get(name, ABSENT) for run in second))
        for name in names
    ]


def differing(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> tuple[Sided, ...]:
    """The same without the names under which both sides have the same values."""
    return tuple(found for found in sided(first, second) if found.differs)
