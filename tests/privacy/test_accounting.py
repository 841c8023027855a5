"""Accounting against Opacus' own accountant, run step by step, and what both accountants promise together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant

from hbdp_fed.privacy import (
    Segment,
    calibrate,
    calibrate_history,
    delta_for,
    epsilon,
    epsilon_interval,
    epsilon_schedule,
    history_delta,
    history_epsilon,
    history_epsilon_interval,
)
from hbdp_fed.privacy.accounting import ORDERS

BUDGETS = [1.0, 8.0, 1e3, 1e6, 1e9, 1e12, 1e15]

both = pytest.mark.parametrize("accountant", ["rdp", "tight"])


def opacus_epsilon(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    return accountant.get_epsilon(delta=delta)


@pytest.mark.filterwarnings("ignore:Optimal order")
@pytest.mark.parametrize("eps", BUDGETS)
@pytest.mark.parametrize(("sample_rate", "steps"), [(0.0457, 2200), (0.068, 301), (1.0, 51), (0.001, 1)])
def test_calibrated_noise_spends_the_budget_and_never_more(eps: float, sample_rate: float, steps: int) -> None:
    started = time.process_time()
    sigma = calibrate.__wrapped__(eps=eps, delta=1e-5, sample_rate=sample_rate, steps=steps)
    seconds = time.process_time() - started
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


@pytest.mark.filterwarnings("ignore:Optimal order")
def test_a_history_by_renyi_divergence_is_opacus_own() -> None:
    accountant = RDPAccountant()
    accountant.history = [(1.0, 0.1, 30), (0.5, 0.02, 100), (8.0, 1.0, 5)]
    history = [Segment(*mechanism) for mechanism in accountant.history]
    assert history_epsilon(history, delta=1e-5) == pytest.approx(accountant.get_epsilon(delta=1e-5), rel=1e-12)


@both
def test_no_noise_is_infinite_epsilon_and_infinite_epsilon_is_no_noise(accountant: Any) -> None:
    clear = {"noise_multiplier": 0.0, "sample_rate": 0.1, "steps": 1}
    assert epsilon(delta=1e-5, accountant=accountant, **clear) == math.inf
    assert calibrate(eps=math.inf, delta=1e-5, sample_rate=0.1, steps=10, accountant=accountant) == 0.0
    assert calibrate_history([Segment(1.0, 0.1, 3)], eps=math.inf, delta=1e-5, accountant=accountant) == 0.0


def test_without_noise_delta_is_the_probability_of_being_seen() -> None:
    clear = {"noise_multiplier": 0.0, "sample_rate": 0.1, "steps": 2}
    assert epsilon_interval(delta=1e-5, **clear) == (math.inf, math.inf)
    assert epsilon_interval(delta=0.2, **clear) == (0.0, 0.0)
    assert delta_for(epsilon=5.0, **clear) == 1.0
    assert delta_for(epsilon=5.0, accountant="tight", **clear) == pytest.approx(0.19, rel=1e-12)
    assert delta_for(epsilon=math.inf, accountant="tight", **clear) == pytest.approx(0.19, rel=1e-12)


def test_a_rare_clear_sight_of_a_record_costs_its_probability_of_delta() -> None:
    noisy, clear = Segment(1.0, 0.1, 20), Segment(0.0, 1e-6, 1)
    lower, upper = history_epsilon_interval([noisy, clear], delta=1e-5)
    assert lower <= history_epsilon([noisy], delta=1e-5, accountant="tight") <= upper
    assert upper == history_epsilon([noisy], delta=1e-5 - 1e-6, accountant="tight")
    assert history_epsilon_interval([noisy, clear], delta=1e-7) == (math.inf, math.inf)


@both
def test_nothing_done_costs_nothing(accountant: Any) -> None:
    for sigma in (0.0, 1.0):
        idle = {"noise_multiplier": sigma, "sample_rate": 0.1, "steps": 0}
        assert epsilon(delta=1e-5, accountant=accountant, **idle) == 0.0
        assert delta_for(epsilon=0.0, accountant=accountant, **idle) == 0.0
        assert epsilon_interval(delta=1e-5, **idle) == (0.0, 0.0)
        assert epsilon_schedule(noise_multiplier=sigma, sample_rate=0.1, delta=1e-5, accountant=accountant)(0) == 0.0
    assert history_epsilon([], delta=1e-5, accountant=accountant) == 0.0
    assert history_delta([], epsilon=1.0, accountant=accountant) == 0.0


@both
def test_a_schedule_agrees_with_composing_from_scratch(accountant: Any) -> None:
    mechanism = {"noise_multiplier": 0.7, "sample_rate": 0.05, "delta": 1e-5, "accountant": accountant}
    spent = epsilon_schedule(**mechanism)
    assert spent(0) == 0.0
    for steps in (1, 10, 300):
        assert spent(steps) == epsilon(steps=steps, **mechanism)


@settings(max_examples=5)
@given(
    sigma=st.floats(min_value=1e-6, max_value=50),
    more=st.floats(min_value=1.001, max_value=3),
    sample_rate=st.floats(min_value=0.001, max_value=1.0),
    steps=st.integers(min_value=1, max_value=5000),
    delta=st.floats(min_value=1e-8, max_value=1e-2),
)
def test_epsilon_by_renyi_divergence_is_monotone_in_every_argument(
    sigma: float, more: float, sample_rate: float, steps: int, delta: float
) -> None:
    mechanism = {"noise_multiplier": sigma, "sample_rate": sample_rate, "steps": steps, "delta": delta}
    here = epsilon(**mechanism)
    for easier in (
        {"noise_multiplier": sigma * more},
        {"sample_rate": sample_rate / more},
        {"steps": max(1, steps - 1)},
        {"delta": min(0.5, delta * more)},
    ):
        assert epsilon(**{**mechanism, **easier}) <= here * (1 + 1e-9)
        if "delta" not in easier:
            at = {key: value for key, value in {**mechanism, **easier}.items() if key != "delta"}
            # delta is the exponential of differences of numbers as large as epsilon.
            assert delta_for(epsilon=here, **at) <= delta * (1 + 1e-6 + 1e-14 * here)


@both
@pytest.mark.parametrize("steps", [1, 5])
def test_epsilon_is_never_negative_however_little_is_to_be_told(accountant: Any, steps: int) -> None:
    mechanism = {"noise_multiplier": 3.0, "sample_rate": 1 / 64, "steps": steps, "accountant": accountant}
    assert 0 <= epsilon(delta=1 / 128, **mechanism) <= 1
    spent = epsilon_schedule(noise_multiplier=3.0, sample_rate=1 / 64, delta=1 / 128, accountant=accountant)
    assert 0 <= spent(steps) <= 1


@settings(max_examples=5)
@given(
    sigma=st.floats(0.1, 10), q=st.floats(0.01, 1.0), first=st.integers(1, 100), second=st.integers(1, 100),
    accountant=st.sampled_from(["rdp", "tight"]),
)  # fmt: skip
def test_a_segment_split_in_two_is_the_whole_and_the_order_does_not_matter(
    sigma: float, q: float, first: int, second: int, accountant: Any
) -> None:
    other = Segment(2.0, 0.2, 5)
    whole = history_epsilon([Segment(sigma, q, first + second), other], delta=1e-5, accountant=accountant)
    pieces = [Segment(sigma, q, first), other, Segment(sigma, q, second)]
    assert history_epsilon(pieces, delta=1e-5, accountant=accountant) == whole
    assert history_epsilon(reversed(pieces), delta=1e-5, accountant=accountant) == whole
    alone = epsilon(noise_multiplier=sigma, sample_rate=q, steps=first + second, delta=1e-5, accountant=accountant)
    assert history_epsilon([pieces[0], pieces[2]], delta=1e-5, accountant=accountant) == alone


@pytest.mark.parametrize("sigma", [1e-5, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("sample_rate", [0.01, 0.3, 1.0])
def test_delta_by_renyi_divergence_inverts_its_epsilon(sigma: float, sample_rate: float) -> None:
    mechanism = {"noise_multiplier": sigma, "sample_rate": sample_rate, "steps": 100}
    spent = epsilon(delta=1e-5, **mechanism)
    # One rounding error of an epsilon of 1e12 is a factor of delta's own.
    assert math.log(delta_for(epsilon=spent, **mechanism)) == pytest.approx(math.log(1e-5), abs=1e-9 + 1e-14 * spent)


# Calibration


@both
@pytest.mark.parametrize("eps", [6.0, 1e6])
def test_calibrating_the_future_keeps_the_whole_history_within_the_budget(accountant: Any, eps: float) -> None:
    spent = [Segment(1.5, 0.1, 40), Segment(3.0, 1.0, 2)]
    planned = [Segment(1.0, 0.1, 60), Segment(2.0, 0.05, 30)]
    arguments = {"delta": 1e-5, "accountant": accountant}
    factor = calibrate_history(planned, eps=eps, spent=spent, **arguments)
    scaled = [Segment(part.noise_multiplier * factor, part.sample_rate, part.steps) for part in planned]
    assert 0.999 * eps <= history_epsilon([*spent, *scaled], **arguments) <= eps
    # What is behind has to be paid for.
    assert factor > calibrate_history(planned, eps=eps, **arguments)


@both
def test_calibrating_one_mechanism_is_calibrating_its_history(accountant: Any) -> None:
    sigma = calibrate.__wrapped__(eps=10.0, delta=1e-5, sample_rate=0.1, steps=40, accountant=accountant)
    planned = [Segment(1.0, 0.1, 40)]
    assert calibrate_history(planned, eps=10.0, delta=1e-5, accountant=accountant) == sigma


def test_a_budget_below_the_accountants_floor_is_refused_with_the_floor() -> None:
    with pytest.raises(ValueError, match=r"never falls below 0\.10"):
        calibrate(eps=0.05, delta=1e-5, sample_rate=0.01, steps=1)


@both
def test_a_budget_that_is_already_spent_is_refused_with_what_was_spent(accountant: Any) -> None:
    spent = [Segment(1.0, 0.1, 40)]
    gone = history_epsilon(spent, delta=1e-5, accountant=accountant)
    with pytest.raises(ValueError, match=rf"never falls below {gone:.4g}"):
        calibrate_history([Segment(1.0, 0.1, 1)], eps=gone / 2, delta=1e-5, accountant=accountant, spent=spent)


def test_a_budget_just_above_what_is_spent_is_met_or_refused() -> None:
    """The bounds of the whole are not as sharp as the closed form of what is spent, and may never come down to it."""
    spent = [Segment(1.0, 1.0, 4)]
    eps = history_epsilon(spent, delta=1e-5, accountant="tight") * (1 + 1e-9)
    planned = Segment(1.0, 0.1, 40)
    try:
        factor = calibrate_history([planned], eps=eps, delta=1e-5, accountant="tight", spent=spent)
    except ValueError:
        return
    whole = [*spent, Segment(factor, planned.sample_rate, planned.steps)]
    assert 0.999 * eps <= history_epsilon(whole, delta=1e-5, accountant="tight") <= eps


def test_a_delta_that_covers_taking_part_at_all_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"delta=0\.01 .* takes part at all, .* probability 0\.003"):
        calibrate(eps=1.0, delta=0.01, sample_rate=0.001, steps=3, accountant="tight")


@pytest.mark.parametrize("planned", [[], [Segment(1.0, 0.1, 0)], [Segment(1.0, 0.1, 3), Segment(0.0, 0.1, 3)]])
def test_nothing_to_calibrate_is_refused(planned: list[Segment]) -> None:
    with pytest.raises(ValueError, match="planned"):
        calibrate_history(planned, eps=1.0, delta=1e-5)


# Arguments out of range

HISTORY = [Segment(1.0, 0.1, 10)]
MECHANISM: dict[str, Any] = {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 10}
BUDGET: dict[str, Any] = {"eps": 1.0, "delta": 1e-5}
PLANNED: dict[str, Any] = {"sample_rate": 0.1, "steps": 10}
BAD: dict[str, tuple[Any, ...]] = {
    "noise_multiplier": (-1.0, math.nan, math.inf, -math.inf),
    "sample_rate": (-0.1, 0.0, 1.1, math.nan, math.inf),
    "steps": (-1, 1.5, math.nan, math.inf),
    "delta": (-1e-5, 0.0, 1.0, 2.0, math.nan, math.inf),
    "epsilon": (-1e-9, math.nan, -math.inf),
    "eps": (-1.0, 0.0, math.nan, -math.inf),
    "accountant": ("renyi", "", "RDP"),
}


def _schedule(*, steps: Any = 3, **arguments: Any) -> float:
    return epsilon_schedule(**arguments)(steps)


FUNCTIONS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (epsilon, {**MECHANISM, "delta": 1e-5, "accountant": "rdp"}),
    (epsilon, {**MECHANISM, "delta": 1e-5, "accountant": "tight"}),
    (epsilon_interval, {**MECHANISM, "delta": 1e-5}),
    (delta_for, {**MECHANISM, "epsilon": 1.0, "accountant": "rdp"}),
    (delta_for, {**MECHANISM, "epsilon": 1.0, "accountant": "tight"}),
    (calibrate, {**PLANNED, **BUDGET, "accountant": "rdp"}),
    (calibrate, {**PLANNED, **BUDGET, "accountant": "tight"}),
    (_schedule, {**MECHANISM, "delta": 1e-5, "accountant": "rdp"}),
    (_schedule, {**MECHANISM, "delta": 1e-5, "accountant": "tight"}),
    (lambda **given: history_epsilon(HISTORY, **given), {"delta": 1e-5, "accountant": "tight"}),
    (lambda **given: history_epsilon_interval(HISTORY, **given), {"delta": 1e-5}),
    (lambda **given: history_delta(HISTORY, **given), {"epsilon": 1.0, "accountant": "tight"}),
    (lambda **given: calibrate_history(HISTORY, **given), {**BUDGET, "accountant": "tight"}),
]
NAMES = ("epsilon", "epsilon", "epsilon_interval", "delta_for", "delta_for", "calibrate", "calibrate", "schedule",
         "schedule", "history_epsilon", "history_epsilon_interval", "history_delta", "calibrate_history")  # fmt: skip


@pytest.mark.parametrize(
    ("function", "arguments", "argument", "value"),
    [
        pytest.param(
            function, arguments, argument, value, id=f"{name}-{arguments.get('accountant', '')}-{argument}-{value}"
        )
        for name, (function, arguments) in zip(NAMES, FUNCTIONS, strict=True)
        for argument in arguments
        for value in BAD[argument]
    ],
)
def test_an_argument_out_of_range_is_named(
    function: Callable[..., Any], arguments: dict[str, Any], argument: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=rf"\b{argument}\b"):
        function(**{**arguments, argument: value})


@pytest.mark.parametrize("function_and_arguments", FUNCTIONS[:1] + FUNCTIONS[3:4] + FUNCTIONS[5:6] + FUNCTIONS[7:8])
def test_an_unknown_accountant_is_named_with_those_that_exist(
    function_and_arguments: tuple[Callable[..., Any], dict[str, Any]],
) -> None:
    function, arguments = function_and_arguments
    with pytest.raises(ValueError, match=r"rdp, tight, got 'moments'"):
        function(**{**arguments, "accountant": "moments"})
