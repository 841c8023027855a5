"""The least over the Renyi orders, from few of them: the same number as from all of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbdp_fed.privacy import renyi
from hbdp_fed.privacy.history import Segment
from hbdp_fed.privacy.renyi import ORDERS, epsilon_by_renyi, epsilon_of_renyi, renyi_divergence

SEGMENTS = st.builds(
    Segment,
    st.floats(-7, 1.5).map(lambda exponent: 10.0**exponent),
    st.one_of(st.just(1.0), st.floats(-4, 0).map(lambda exponent: 10.0**exponent)),
    st.integers(1, 5000),
)


@settings(max_examples=60)
@given(st.lists(SEGMENTS, min_size=1, max_size=2).map(tuple), st.floats(-9, -2).map(lambda exponent: 10.0**exponent))
def test_few_orders_give_the_epsilon_of_all_to_the_last_bit(history: tuple[Segment, ...], delta: float) -> None:
    assert epsilon_by_renyi(history, delta=delta) == epsilon_of_renyi(renyi_divergence(history), delta=delta)


@pytest.mark.parametrize("sigma", [1e-5, 0.02, 0.8, 5.0, 100.0])
def test_most_orders_need_no_divergence(sigma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    divergence_at = renyi._divergence_at

    def counting(history: tuple[Segment, ...], order: float) -> float:
        asked.append(order)
        return divergence_at(history, order)

    monkeypatch.setattr(renyi, "_divergence_at", counting)
    epsilon_by_renyi((Segment(sigma, 0.05, 2000),), delta=1e-5)
    assert len(asked) == len(set(asked)) < len(ORDERS) / 2


def test_a_step_without_noise_has_no_finite_epsilon() -> None:
    assert epsilon_by_renyi((Segment(1.0, 0.1, 10), Segment(0.0, 0.1, 1)), delta=1e-5) == math.inf
