"""The grid that updates are rounded to: no sum leaves it, and what is rounded off is known."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy import stats

from hbdp_fed.federation.secure_sum import (
    FixedPoint,
)
from hbdp_fed.seeding import generator


@pytest.mark.parametrize("bits", [8, 20, 54])
@pytest.mark.parametrize("summands", [1, 10, 63])
@pytest.mark.parametrize("bound", [1e-7, 0.3, 1.0, 2.0, 1e12])
def test_no_sum_leaves_the_grid_and_no_finer_power_of_two_would_do(bits: int, summands: int, bound: float) -> None:
    grid = FixedPoint(bound=bound, summands=summands, bits=bits)
    assert math.frexp(grid.step)[0] == 0.5
    assert Fraction(bound) <= Fraction(grid.step) * grid.largest
    assert Fraction(bound) > Fraction(grid.step) / 2 * grid.largest
    assert grid.largest * summands < grid.modulus // 2
    for sign in (-1, 1):
        end = torch.full((1,), sign * bound, dtype=torch.float64)
        total = (grid.encode(end) * summands) % grid.modulus
        assert abs(grid.decode(total).item() - sign * bound * summands) <= grid.max_error(summands) * (1 + 1e-12)


@examples(max_examples=200, deadline=None)
@given(
    values=st.lists(st.floats(-1, 1), min_size=1, max_size=20),
    exponent=st.integers(-60, 60),
    summands=st.integers(1, 1000),
    bits=st.integers(12, 54),
)
def test_a_value_comes_back_to_half_a_step(values: list[float], exponent: int, summands: int, bits: int) -> None:
    bound = 2.0**exponent
    grid = FixedPoint(bound=bound, summands=summands, bits=bits)
    scaled = torch.tensor(values, dtype=torch.float64) * bound
    words = grid.encode(scaled)
    assert int(words.min()) >= 0
    assert int(words.max()) < grid.modulus
    found = grid.decode(words)
    for sent, received in zip(scaled.tolist(), found.tolist(), strict=True):
        assert abs(Fraction(sent) - Fraction(received)) <= Fraction(grid.step) / 2
    # What is on the grid stays as it is.
    multiples = torch.arange(-3, 4).double() * grid.step
    inside = multiples[multiples.abs() <= bound]
    assert torch.equal(grid.decode(grid.encode(inside)), inside)


@pytest.mark.parametrize("value", [1.0000001, -1.0000001, math.inf, -math.inf, math.nan])
def test_what_would_overflow_is_refused_and_not_wrapped(value: float) -> None:
    grid = FixedPoint(bound=1.0, summands=10)
    with pytest.raises(OverflowError, match="exceeds the bound of 1"):
        grid.encode(torch.tensor([0.0, value], dtype=torch.float64))
    grid.encode(torch.tensor([1.0, -1.0]))


@pytest.mark.parametrize(
    ("bound", "summands", "bits", "words"),
    [
        (1.0, 10, 55, "bits must be from 2 to 54"),
        (1.0, 10, 1, "bits must be from 2 to 54"),
        (1.0, 0, 54, "summands must be at least 1"),
        (1.0, 128, 8, "8 bits cannot hold the sum of 128 numbers"),
        (0.0, 10, 54, "bound must be positive"),
        (math.nan, 10, 54, "bound must be positive"),
        (math.inf, 10, 54, "bound must be positive"),
        (1e308, 10, 54, "its sums finite"),
        (1e-300, 10, 54, "too small"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(bound: float, summands: int, bits: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FixedPoint(bound=bound, summands=summands, bits=bits)


def test_noise_of_ten_steps_survives_and_noise_below_one_does_not() -> None:
    grid = FixedPoint(bound=1.0, summands=10, bits=20)
    draw = torch.randn(40_000, generator=generator(0, "noise"), dtype=torch.float64)
    value = 0.3
    for ratio, survives in ((10.0, True), (0.1, False)):
        std = ratio * grid.step
        assert grid.noise_to_step(std) == pytest.approx(ratio)
        received = grid.decode(grid.encode(value + draw * std)) - value
        if survives:
            # Rounding adds the variance of a uniform step, and the distribution stays normal to a fine eye.
            assert float(received.var()) == pytest.approx(std**2 + grid.step**2 / 12, rel=0.03)
            centred = received + (torch.rand(len(draw), generator=generator(0, "u"), dtype=torch.float64) - 0.5) * (
                grid.step
            )
            assert stats.kstest(centred.numpy() / math.hypot(std, grid.step / math.sqrt(6)), "norm").pvalue > 0.01
        else:
            assert len(received.unique()) <= 2
    with pytest.raises(ValueError, match="not negative"):
        grid.noise_to_step(-1.0)
