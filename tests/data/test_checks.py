"""Checks of what a user sets."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hbdp_fed.data.checks import check_integer, check_number
from hbdp_fed.errors import SettingError


def test_accepted_values_come_back() -> None:
    assert check_integer("a.b", 3, minimum=3) == 3
    assert check_number("a.b", 1, low=0.0, high=1.0) == 1.0
    assert isinstance(check_number("a.b", 1, low=0.0), float)


@pytest.mark.parametrize("value", [2, 3.0, True, "3", None])
def test_anything_but_a_large_enough_integer_is_refused(value: Any) -> None:
    with pytest.raises(SettingError, match=r"^a\.b: must be an integer of at least 3, got"):
        check_integer("a.b", value, minimum=3)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, True, "0.5", None])
def test_anything_but_a_number_in_range_is_refused(value: Any) -> None:
    with pytest.raises(SettingError, match=r"^a\.b: must be a number between 0 and 1, got"):
        check_number("a.b", value, low=0.0, high=1.0)


@pytest.mark.parametrize(
    ("limits", "accepted"),
    [
        ({"low": 0.0, "high": 1.0, "open_ends": True}, "strictly between 0 and 1"),
        ({"low": 0.0, "open_ends": True}, "above 0"),
    ],
)
def test_open_ends_are_refused(limits: dict[str, Any], accepted: str) -> None:
    with pytest.raises(SettingError, match=f"must be a number {accepted}, got 0"):
        check_number("a.b", 0, **limits)
