"""Accounting against Opacus' own accountant, run step by step, and against closed forms."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant

from hbdp_fed.privacy import calibrate, epsilon, epsilon_schedule
from hbdp_fed.privacy.accounting import ORDERS

BUDGETS = [1.0, 8.0, 1e3, 1e6, 1e9, 1e12, 1e15]


def opacus_epsilon(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    return accountant.get_epsilon(delta=delta)


@pytest.mark.filterwarnings("ignore:Optimal order")
@pytest.mark.parametrize("eps", BUDGETS)
@pytest.mark.parametrize(("sample_rate", "steps"), [(0.0457, 2200), (0.068, 301), (1.0, 51), (0.001, 1)])
def test_calibrated_noise_spends_the_budget_and_never_more(eps: float, sample_rate: float, steps: int) -> None:
    started = time.perf_counter()
    sigma = calibrate.__wrapped__(eps=eps, delta=1e-5, sample_rate=sample_rate, steps=steps)
    seconds = time.perf_counter() - started
    spent = opacus_epsilon(sigma, sample_rate, steps, 1e-5)
    assert 0.999 * eps <= spent <= eps
    assert epsilon(noise_multiplier=sigma, sample_rate=sample_rate, steps=steps, delta=1e-5) == pytest.approx(
        spent, rel=1e-12
    )
    assert seconds < 2.0


def test_without_sampling_epsilon_has_the_gaussian_mechanisms_closed_form() -> None:
    sigma, steps, delta = 2.5, 40, 1e-6
    orders = np.array(ORDERS)
    rdp = steps * orders / (2 * sigma**2)
    converted = rdp + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    found = epsilon(noise_multiplier=sigma, sample_rate=1.0, steps=steps, delta=delta)
    assert found == pytest.approx(converted.min(), rel=1e-12)


def test_no_noise_is_infinite_epsilon_and_infinite_epsilon_is_no_noise() -> None:
    assert epsilon(noise_multiplier=0.0, sample_rate=0.1, steps=1, delta=1e-5) == math.inf
    assert calibrate(eps=math.inf, delta=1e-5, sample_rate=0.1, steps=10) == 0.0


def test_a_schedule_agrees_with_composing_from_scratch() -> None:
    spent = epsilon_schedule(noise_multiplier=0.7, sample_rate=0.05, delta=1e-5)
    assert spent(0) == 0.0
    for steps in (1, 10, 300):
        assert spent(steps) == epsilon(noise_multiplier=0.7, sample_rate=0.05, steps=steps, delta=1e-5)


def test_a_budget_below_the_accountants_floor_is_refused_with_the_floor() -> None:
    with pytest.raises(ValueError, match=r"never falls below 0\.10"):
        calibrate(eps=0.05, delta=1e-5, sample_rate=0.01, steps=1)


@settings(max_examples=30)
@given(
    sigma=st.floats(min_value=1e-6, max_value=50),
    more=st.floats(min_value=1.001, max_value=3),
    sample_rate=st.floats(min_value=0.001, max_value=1.0),
    steps=st.integers(min_value=1, max_value=5000),
)
def test_epsilon_falls_with_noise_and_grows_with_steps(
    sigma: float, more: float, sample_rate: float, steps: int
) -> None:
    here = epsilon(noise_multiplier=sigma, sample_rate=sample_rate, steps=steps, delta=1e-5)
    assert epsilon(noise_multiplier=sigma * more, sample_rate=sample_rate, steps=steps, delta=1e-5) <= here * (1 + 1e-9)
    assert epsilon(noise_multiplier=sigma, sample_rate=sample_rate, steps=steps + 1, delta=1e-5) >= here * (1 - 1e-9)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("noise_multiplier", -1.0), ("noise_multiplier", math.nan), ("sample_rate", 0.0), ("sample_rate", 1.1),
     ("delta", 0.0), ("delta", 1.0), ("steps", -1)],
)  # fmt: skip
def test_an_argument_out_of_range_is_named(argument: str, value: float) -> None:
    arguments = {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 10, "delta": 1e-5, argument: value}
    with pytest.raises(ValueError, match=argument):
        epsilon(**arguments)  # type: ignore[arg-type]
