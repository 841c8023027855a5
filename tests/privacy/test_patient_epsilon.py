"""A patient's epsilon against computations that share no code with the project's: the formula itself, and Opacus'."""

from __future__ import annotations

import math

import mpmath as mp
import pytest
from opacus.accountants import RDPAccountant

from hbdp_fed.errors import SettingError
from hbdp_fed.privacy import plan_hospital
from hbdp_fed.types import HospitalPlan, PatientCount, PrivacyBudget

RECORDS, PATIENTS, AT_ONCE = 1018, 475, 816
"""A hospital of five with the chest X-rays: its training images, their patients, and at most four of each."""
DELTA, STEPS, BATCH = 1e-5, 300, 16.0


def plan(eps: float, *, delta: float = DELTA, batch: float = BATCH) -> HospitalPlan:
    return plan_hospital(
        name="hospital-01",
        num_records=RECORDS,
        budget=PrivacyBudget(eps, delta),
        expected_batch=batch,
        steps=STEPS,
        max_grad_norm=1.0,
        patients=PatientCount(PATIENTS, AT_ONCE),
    )


def divergence(order: int, *, q: float, sigma: float) -> mp.mpf:
    """Of one step at an integer order: Mironov et al. 2019 (arXiv 1908.10530), section 3.3, term by term."""
    rate, noise = mp.mpf(q), mp.mpf(sigma)
    terms = [
        mp.binomial(order, k) * (1 - rate) ** (order - k) * rate**k * mp.exp((k * k - k) / (2 * noise**2))
        for k in range(order + 1)
    ]
    return mp.log(mp.fsum(terms)) / (order - 1)


def spent(order: float, whole: mp.mpf) -> float:
    """Epsilon at DELTA from the divergence of all steps (Balle et al. 2020, arXiv 1905.09982, theorem 21)."""
    a = mp.mpf(order)
    return float(whole + mp.log((a - 1) / a) - (mp.log(DELTA) + mp.log(a)) / (a - 1))


@pytest.mark.parametrize("eps", [0.5, 2.0, 8.0])
def test_a_patients_epsilon_is_the_formulas_at_q_of_batch_over_patients(eps: float) -> None:
    made = plan(eps)
    q, sigma = BATCH / PATIENTS, made.mechanism.noise_multiplier
    assert made.mechanism.sample_rate == q
    with mp.workdps(50):
        by_hand = min(spent(order, STEPS * divergence(order, q=q, sigma=sigma)) for order in range(2, 64))
    # The project's orders have fractions besides, between which epsilon hardly moves.
    assert made.eps_rdp <= by_hand * (1 + 1e-9)
    assert made.eps_rdp == pytest.approx(by_hand, rel=0.01)
    # With records in the place of patients the same noise would seem to cost far less.
    with mp.workdps(50):
        wrong = min(spent(order, STEPS * divergence(order, q=BATCH / RECORDS, sigma=sigma)) for order in range(2, 64))
    assert wrong < 0.75 * by_hand


@pytest.mark.filterwarnings("ignore:Optimal order is the smallest")
@pytest.mark.parametrize("eps", [2.0, 1e3, 1e9])
def test_a_patients_epsilon_is_opacus_own(eps: float) -> None:
    made = plan(eps)
    accountant = RDPAccountant()
    accountant.history = [(made.mechanism.noise_multiplier, BATCH / PATIENTS, STEPS)]
    assert made.eps_rdp == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-9)
    assert made.eps_rdp == pytest.approx(eps, rel=2e-3)


def test_at_a_huge_budget_a_patients_epsilon_is_that_of_the_closed_form() -> None:
    """With hardly any noise the last term is all of the series, and the smallest order, 1.1, is the best."""
    made = plan(1e9)
    q, sigma, order = BATCH / PATIENTS, made.mechanism.noise_multiplier, 1.1
    step = order / (2 * sigma**2) + order * math.log(q) / (order - 1)
    by_hand = STEPS * step + math.log((order - 1) / order) - (math.log(DELTA) + math.log(order)) / (order - 1)
    assert made.eps_rdp == pytest.approx(by_hand, rel=1e-9)


def test_a_hospital_with_fewer_patients_than_the_batch_uses_all_of_them() -> None:
    made = plan(8.0, batch=600.0)
    assert made.mechanism.sample_rate == 1.0
    assert (made.expected_batch, made.expected_records) == (PATIENTS, AT_ONCE)


def test_the_batch_is_divided_by_patients_and_costs_their_records() -> None:
    made = plan(8.0)
    assert (made.unit, made.num_units, made.num_records) == ("patient", PATIENTS, RECORDS)
    assert made.expected_batch == pytest.approx(BATCH)
    assert made.expected_records == pytest.approx(BATCH * AT_ONCE / PATIENTS)


def test_delta_is_held_against_patients_and_not_against_records() -> None:
    between = 1.5 / RECORDS
    assert 1 / RECORDS < between < 1 / PATIENTS
    assert plan(8.0, delta=between).unit == "patient"
    with pytest.raises(SettingError, match=r"must be below 1/patients = .* of hospital-01 \(475 patients\)"):
        plan(8.0, delta=1 / PATIENTS)


@pytest.mark.parametrize("counts", [(0, 5), (5, 4)])
def test_patients_that_cannot_be_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="patients cannot give"):
        PatientCount(*counts)
