"""What a sweep was asked for, as its folder keeps it, so that it can be gone on with and extended."""

from __future__ import annotations

import fcntl
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hbdp_fed.errors import SettingError, unknown_choice
from hbdp_fed.strict_json import dumps, loads
from hbdp_fed.whole_files import write_whole
from simulations.compose import MOST_RUNS
from simulations.schema import SweepConfig
from simulations.sweep.axes import Asked, Axis
from simulations.sweep.cells import COMPARED, Cell, cells_of, extended

FILE = "request.json"
_LOCK = "sweep.lock"


@dataclass(frozen=True)
class Request:
    """A sweep.

    Attributes:
        name: What it is called.
        fixed: What all runs share, as ``key=value``.
        axes: What varies, budgets last.
        seeds: Of each combination.
        compared: What stands beside the federation, of :data:`~simulations.sweep.cells.COMPARED`.
    """

    name: str
    fixed: tuple[str, ...]
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...]
    compared: tuple[str, ...]

    def cells(self, engine: Sequence[str] = ()) -> list[Cell]:
        """Every setting with every seed; ``engine`` says how runs are computed, as ``key=value``."""
        return cells_of(Asked((), self.fixed, self.axes), self.seeds, engine)

    def joined(self, other: Request) -> Request:
        """This sweep with the values and seeds of another one, too.

        Raises:
            SettingError: if the two do not differ in values and seeds alone.
        """
        axes = extended(self.axes, other.axes)
        if axes is None or sorted(self.fixed) != sorted(other.fixed):
            mine, theirs = (
                ", ".join(sorted((*r.fixed, *(f"{axis.key}=[...]" for axis in r.axes)))) for r in (self, other)
            )
            raise SettingError("sweep_dir", f"holds a sweep of {mine}, which is not {theirs}; choose another folder")
        seeds = tuple(dict.fromkeys((*self.seeds, *other.seeds)))
        return replace(other, axes=axes, seeds=seeds)


def requested(asked: Asked, config: SweepConfig) -> Request:
    """The sweep that a command line asks for.

    Raises:
        SettingError: naming the key and what it accepts.
    """
    seeds = _seeds(config.seeds)
    many = math.prod((len(seeds), *(len(axis.values) for axis in asked.axes)))
    if many > MOST_RUNS:
        raise SettingError("seeds", f"and what varies must come to at most {MOST_RUNS} runs, got {many}")
    for name in config.compared:
        if name not in COMPARED:
            raise unknown_choice("compared", name, COMPARED)
    return Request(
        name=config.name,
        fixed=asked.fixed,
        axes=asked.axes,
        seeds=seeds,
        compared=tuple(name for name in COMPARED if name in config.compared),
    )


def _seeds(wanted: Any) -> tuple[int, ...]:
    """``3`` is 0, 1, 2."""
    if _is_whole(wanted) and wanted > MOST_RUNS:
        raise SettingError("seeds", f"must be at most {MOST_RUNS}, got {wanted}")
    numbers = list(range(wanted)) if _is_whole(wanted) else wanted
    if not isinstance(numbers, list) or not numbers or not all(_is_whole(n) and n >= 0 for n in numbers):
        raise SettingError("seeds", f"must be how many, at least 1, or a list of whole numbers from 0; got {wanted}")
    if len(set(numbers)) < len(numbers):
        raise SettingError("seeds", f"names a seed twice: {wanted}")
    return tuple(numbers)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def read_request(folder: Path, *, key: str = "resume") -> Request:
    """The sweep that a folder holds.

    Raises:
        SettingError: if it holds none that can be read.
    """
    path = folder / FILE
    if not path.is_file():
        raise SettingError(key, f"{folder} holds no sweep: there is no {FILE}")
    try:
        plain = loads(path.read_bytes())
        return Request(
            name=plain["name"],
            fixed=tuple(plain["fixed"]),
            axes=tuple(Axis(axis["key"], tuple(axis["values"])) for axis in plain["axes"]),
            seeds=tuple(plain["seeds"]),
            compared=tuple(plain["compared"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingError(key, f"{path} cannot be read ({error})") from error


def write_request(folder: Path, request: Request) -> None:
    """Whole or not at all."""
    write_whole(folder / FILE, dumps(request, indent=2) + "\n")


@contextmanager
def held(folder: Path, *, key: str) -> Iterator[int]:
    """While this lasts, no other process works at the sweep in this folder; yields what keeps them away.

    A file descriptor, to be handed on to processes that are started for the sweep: as long as one of them is there, the
    folder is taken, even if the sweep itself was killed.

    Raises:
        SettingError: if another one does.
    """
    with (folder / _LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingError(key, f"another process works at the sweep in {folder}; wait for its end") from error
        yield file.fileno()
