"""What gradient inversion refuses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from hbdp_fed.errors import SettingError, unknown_choice

_KEY = "adversary.gradient_inversion"

_MIN_IMAGES = 4
"""Fewer public images than this have no mean to speak of."""

_MIN_PIXELS = 11
"""The similarity's window is 11 pixels wide."""


def check_choices(**choices: tuple[str, Mapping[str, Any]]) -> None:
    """Whether each name is one of its registry's.

    Raises:
        SettingError: naming the one that is not.
    """
    for name, (value, known) in choices.items():
        if value not in known:
            raise unknown_choice(f"{_KEY}.{name}", value, known)


def check_counts(*, at_least: int, **counts: int) -> None:
    """Whether each number is large enough.

    Raises:
        SettingError: naming the one that is not.
    """
    for name, value in counts.items():
        if value < at_least:
            raise SettingError(f"{_KEY}.{name}", f"must be at least {at_least}, got {value}")


def check_numbers(**numbers: Sequence[float]) -> None:
    """Whether each sequence holds numbers that are finite and not negative, at least one.

    Raises:
        SettingError: naming the one that does not.
    """
    for name, values in numbers.items():
        if not values or not all(0 <= value < math.inf for value in values):
            given = ", ".join(f"{value:g}" for value in values)
            raise SettingError(f"{_KEY}.{name}", f"needs at least one finite number, none negative, got [{given}]")


def check_public_images(images: Tensor, *, attack: str) -> None:
    """Whether the attack can work with these public images (P, C, *spatial).

    Raises:
        SettingError: if there are too few, they are too small, or they are neither images nor volumes.
    """
    count, *sides = len(images), *images.shape[2:]
    problem = None
    if len(sides) not in (2, 3):
        problem = f"images of two or three dimensions, these have {len(sides)}"
    elif count < _MIN_IMAGES:
        problem = f"at least {_MIN_IMAGES} public (validation) images, there are {count}"
    elif min(sides) < _MIN_PIXELS:
        shown = "x".join(str(side) for side in sides)
        problem = f"images of at least {_MIN_PIXELS} pixels a side, these have {shown}"
    if problem is not None:
        raise SettingError("adversary.attack", f"{attack} needs {problem}; set adversary.attack=none")
