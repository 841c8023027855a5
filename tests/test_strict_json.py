"""What other programs read has no infinity and no NaN in it."""

from __future__ import annotations

import json
import math

from hbdp_fed.strict_json import dumps
from hbdp_fed.types import DpSgdParams


def test_infinity_is_a_string_and_nan_is_null() -> None:
    value = {"a": math.inf, "b": [-math.inf, math.nan, 1.5], "c": (True, None, "x")}
    assert json.loads(dumps(value)) == {"a": "inf", "b": ["-inf", None, 1.5], "c": [True, None, "x"]}


def test_dataclasses_are_objects_in_their_fields_order() -> None:
    mechanism = DpSgdParams(noise_multiplier=0.0, max_grad_norm=math.inf, sample_rate=1.0, steps=2)
    expected = '{"noise_multiplier": 0.0, "max_grad_norm": "inf", "sample_rate": 1.0, "steps": 2}'
    assert dumps(mechanism) == expected


def test_numbers_keep_every_bit() -> None:
    for number in (0.1, 3.4794e-5, 1e15, 5e-324):
        assert json.loads(dumps(number)) == number
