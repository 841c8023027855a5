"""Several analyses and several hospitals together."""

from __future__ import annotations

import math

import pytest

from hbdp_fed.privacy import Accountant, Segment, epsilon
from hbdp_fed.privacy.composition import compose_basic, compose_parallel, shared_patient_epsilon
from hbdp_fed.types import PrivacyBudget

DELTA = 1e-5
MECHANISM = Segment(noise_multiplier=1.2, sample_rate=0.05, steps=200)


def own_epsilon(segment: Segment, *, delta: float, accountant: Accountant) -> float:
    return epsilon(
        noise_multiplier=segment.noise_multiplier,
        sample_rate=segment.sample_rate,
        steps=segment.steps,
        delta=delta,
        accountant=accountant,
    )


def test_analyses_of_the_same_records_add_up() -> None:
    budgets = [PrivacyBudget(epsilon=1.0, delta=1e-5), PrivacyBudget(epsilon=8.0, delta=2e-5)]
    together = compose_basic(budgets)
    assert together.epsilon == 9.0
    assert together.delta == pytest.approx(3e-5, rel=1e-12)
    assert compose_basic(reversed(budgets)) == together
    assert compose_basic(budgets[:1]) == budgets[0]


def test_an_analysis_without_privacy_leaves_none_to_the_others() -> None:
    budgets = [PrivacyBudget(epsilon=1.0, delta=1e-5), PrivacyBudget(epsilon=math.inf, delta=1e-5)]
    assert compose_basic(budgets).epsilon == math.inf
    assert compose_parallel(budgets).epsilon == math.inf


@pytest.mark.parametrize("deltas", [(0.5, 0.5), (0.9, 0.2), (0.4, 0.4, 0.4)])
def test_deltas_that_add_up_to_one_promise_nothing_and_are_refused(deltas: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="budgets"):
        compose_basic(PrivacyBudget(epsilon=1.0, delta=delta) for delta in deltas)


def test_hospitals_with_disjoint_patients_have_the_weakest_budget_of_them() -> None:
    budgets = [PrivacyBudget(epsilon=8.0, delta=1e-6), PrivacyBudget(epsilon=2.0, delta=1e-5)]
    assert compose_parallel(iter(budgets)) == PrivacyBudget(epsilon=8.0, delta=1e-5)
    assert compose_parallel(budgets[:1]) == budgets[0]


def test_nothing_to_compose_is_refused() -> None:
    with pytest.raises(ValueError, match="budgets"):
        compose_basic([])
    with pytest.raises(ValueError, match="budgets"):
        compose_parallel([])
    with pytest.raises(ValueError, match="hospitals"):
        shared_patient_epsilon([], delta=DELTA)


@pytest.mark.parametrize("accountant", ["rdp", "tight"])
@pytest.mark.parametrize("hospitals", [1, 2, 5])
def test_a_patient_of_equal_hospitals_has_the_epsilon_of_all_their_steps(
    hospitals: int, accountant: Accountant
) -> None:
    shared = shared_patient_epsilon([[MECHANISM]] * hospitals, delta=DELTA, accountant=accountant)
    joined = Segment(MECHANISM.noise_multiplier, MECHANISM.sample_rate, hospitals * MECHANISM.steps)
    assert shared == pytest.approx(own_epsilon(joined, delta=DELTA, accountant=accountant), rel=1e-12)


@pytest.mark.parametrize("accountant", ["rdp", "tight"])
def test_a_patient_of_several_hospitals_is_protected_less_than_by_any_and_more_than_the_budgets_sum_says(
    accountant: Accountant,
) -> None:
    hospitals = [MECHANISM, Segment(0.8, 0.02, 300), Segment(2.0, 0.1, 100)]
    shared = shared_patient_epsilon([[each] for each in hospitals], delta=DELTA, accountant=accountant)
    own = [own_epsilon(each, delta=DELTA, accountant=accountant) for each in hospitals]
    delta = DELTA / len(hospitals)
    added = compose_basic(
        PrivacyBudget(epsilon=own_epsilon(each, delta=delta, accountant="tight"), delta=delta) for each in hospitals
    )
    assert added.delta == pytest.approx(DELTA, rel=1e-12)
    assert max(own) < shared < added.epsilon


def test_the_order_of_hospitals_and_of_their_stretches_does_not_matter() -> None:
    first, second, third = MECHANISM, Segment(0.8, 0.02, 300), Segment(2.0, 0.1, 100)
    assert shared_patient_epsilon([[first, second], [third]], delta=DELTA) == shared_patient_epsilon(
        [[third], [second], [first]], delta=DELTA
    )


@pytest.mark.parametrize("delta", [0.0, 1.0, math.nan])
def test_a_delta_out_of_range_is_named(delta: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        shared_patient_epsilon([[MECHANISM]], delta=delta)


def test_an_unknown_accountant_is_named() -> None:
    with pytest.raises(ValueError, match="accountant"):
        shared_patient_epsilon([[MECHANISM]], delta=DELTA, accountant="loose")  # type: ignore[arg-type]
