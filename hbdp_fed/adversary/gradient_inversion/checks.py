"""What gradient inversion refuses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hbdp_fed.errors import SettingError, unknown_choice

_KEY = "adversary.gradient_inversion"


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
