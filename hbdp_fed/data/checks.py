"""Checks of the values that a user sets; each failure names the setting and what it accepts."""

from __future__ import annotations

import math
from typing import Any

from hbdp_fed.errors import SettingError


def check_integer(key: str, value: Any, *, minimum: int) -> int:
    """``value`` if it is an integer of at least ``minimum``.

    Raises:
        SettingError: otherwise; ``True`` and ``2000.0`` are not integers.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise SettingError(key, f"must be an integer of at least {minimum}, got {value!r}")
    return value


def check_number(key: str, value: Any, *, low: float, high: float = math.inf, open_ends: bool = False) -> float:
    """``value`` as a float if it is a finite number between ``low`` and ``high``.

    Args:
        key: The setting's full name.
        value: What was given.
        low: The smallest accepted value.
        high: The largest; infinite for no upper end.
        open_ends: Whether the ends themselves are refused.

    Raises:
        SettingError: if it is no number, not finite or outside.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if is_number and (low < value < high or (not open_ends and value in (low, high))):
        return float(value)
    relation = "strictly between" if open_ends else "between"
    accepted = (
        f"{relation} {low:g} and {high:g}" if high < math.inf else f"{'above' if open_ends else 'at least'} {low:g}"
    )
    raise SettingError(key, f"must be a number {accepted}, got {value!r}")
