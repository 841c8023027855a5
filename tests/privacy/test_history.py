"""Histories: their shortest form, what they refuse, and the probability that a record is ever drawn."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbdp_fed.privacy.history import (
    History,
    Segment,
    log_probability_never_included,
    merged,
    probability_of_inclusion,
)

segments = st.builds(
    Segment,
    noise_multiplier=st.sampled_from([0.0, 0.1, 1.0, 2.0]),
    sample_rate=st.sampled_from([1e-9, 0.1, 0.5, 1.0]),
    steps=st.integers(0, 5),
)


def test_equal_mechanisms_are_joined_and_empty_ones_left_out() -> None:
    history = merged([Segment(1.0, 0.1, 3), Segment(2.0, 0.1, 1), Segment(1.0, 0.1, 4), Segment(3.0, 0.5, 0)])
    assert history == (Segment(2.0, 0.1, 1), Segment(1.0, 0.1, 7))
    assert merged([]) == ()


@settings(max_examples=100)
@given(st.lists(segments, max_size=6).flatmap(lambda parts: st.tuples(st.just(parts), st.permutations(parts))))
def test_the_shortest_form_does_not_depend_on_the_order_and_keeps_every_step(
    orders: tuple[list[Segment], list[Segment]],
) -> None:
    first, second = map(merged, orders)
    assert first == second == merged(first)
    assert sum(part.steps for part in first) == sum(part.steps for part in orders[0])


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ((), 0.0),
        ((Segment(1.0, 0.5, 2),), 0.75),
        ((Segment(1.0, 0.5, 1), Segment(2.0, 0.2, 1)), 0.6),
        ((Segment(1.0, 1.0, 1), Segment(2.0, 0.2, 1)), 1.0),
        ((Segment(1.0, 1e-12, 5),), 5e-12),
    ],
)
def test_the_probability_of_taking_part_at_all(history: History, expected: float) -> None:
    assert probability_of_inclusion(history) == pytest.approx(expected, rel=1e-10)


def test_a_record_that_every_step_takes_is_never_left_out() -> None:
    assert log_probability_never_included((Segment(1.0, 1.0, 1),)) == -math.inf
    assert log_probability_never_included(()) == 0.0


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("noise_multiplier", value) for value in (-1.0, -1e-300, math.nan, math.inf)),
        *(("sample_rate", value) for value in (-0.1, 0.0, 1.0 + 1e-12, math.nan, math.inf)),
        *(("steps", value) for value in (-1, 1.5, math.nan, math.inf, -math.inf)),
    ],
)
def test_a_segment_names_the_argument_that_it_refuses(argument: str, value: float) -> None:
    given_arguments = {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 10, argument: value}
    with pytest.raises(ValueError, match=argument):
        Segment(**given_arguments)  # type: ignore[arg-type]
