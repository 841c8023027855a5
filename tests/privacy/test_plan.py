"""A hospital's plan keeps its budget, whatever the hospital's size."""

from __future__ import annotations

import math

import pytest

from hbdp_fed.errors import SettingError
from hbdp_fed.privacy import epsilon, plan_hospital
from hbdp_fed.types import HospitalPlan, PrivacyBudget


def plan(num_records: int = 900, eps: float = 1e9, delta: float = 1e-5, batch: float = 64) -> HospitalPlan:
    return plan_hospital(
        name="hospital-01",
        num_records=num_records,
        budget=PrivacyBudget(epsilon=eps, delta=delta),
        expected_batch=batch,
        steps=300,
        max_grad_norm=1.5,
    )


def test_the_plans_own_numbers_reproduce_its_epsilon() -> None:
    made = plan()
    m = made.mechanism
    assert (m.sample_rate, m.steps, m.max_grad_norm) == (64 / 900, 300, 1.5)
    assert made.expected_batch == pytest.approx(64)
    again = epsilon(noise_multiplier=m.noise_multiplier, sample_rate=m.sample_rate, steps=m.steps, delta=1e-5)
    assert made.eps_rdp == again <= 1e9


def test_a_hospital_smaller_than_the_batch_uses_all_of_its_records() -> None:
    made = plan(num_records=40)
    assert made.mechanism.sample_rate == 1.0
    assert made.expected_batch == 40


def test_an_infinite_budget_neither_clips_nor_adds_noise() -> None:
    made = plan(eps=math.inf)
    assert made.mechanism.noise_multiplier == 0.0
    assert made.mechanism.max_grad_norm == math.inf
    assert made.eps_rdp == math.inf


@pytest.mark.parametrize("delta", [1 / 900, 0.5])
def test_a_delta_that_allows_publishing_a_record_is_refused(delta: float) -> None:
    with pytest.raises(SettingError, match=r"delta: .* must be below 1/records"):
        plan(delta=delta)


def test_an_unreachable_budget_names_the_setting() -> None:
    with pytest.raises(SettingError, match=r"eps: .*never falls below"):
        plan(eps=0.01)


def test_without_privacy_clipping_is_a_choice() -> None:
    arguments = {"name": "a", "num_records": 50, "expected_batch": 5, "steps": 3, "max_grad_norm": 2.0}
    budget = PrivacyBudget(math.inf, 1e-5)
    assert plan_hospital(budget=budget, **arguments).mechanism.max_grad_norm == math.inf
    clipped = plan_hospital(budget=budget, clip_without_noise=True, **arguments)
    assert (clipped.mechanism.max_grad_norm, clipped.mechanism.noise_multiplier) == (2.0, 0.0)
    assert clipped.eps_rdp == math.inf
