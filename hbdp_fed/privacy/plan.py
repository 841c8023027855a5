"""From a budget to the mechanism one hospital runs for the whole training."""

from __future__ import annotations

import math

from hbdp_fed.errors import SettingError
from hbdp_fed.privacy.accounting import calibrate, epsilon
from hbdp_fed.types import Accountant, DpSgdParams, HospitalPlan, PatientCount, PrivacyBudget


def plan_hospital(
    *,
    name: str,
    num_records: int,
    budget: PrivacyBudget,
    expected_batch: float,
    steps: int,
    max_grad_norm: float,
    accountant: Accountant = "rdp",
    clip_without_noise: bool = False,
    patients: PatientCount | None = None,
) -> HospitalPlan:
    """Calibrate one hospital's noise, once, to all the steps it will ever take.

    A step draws each unit independently and clips what it contributes, as a whole, to one norm. So a unit moves the
    sum by at most that norm, be it a record or a patient with any number of them, and the accounting is the same.

    Args:
        name: The hospital.
        num_records: Its records, at least 1.
        budget: Per unit and hospital, for the whole training. An infinite epsilon trains without noise.
        expected_batch: The wanted expected batch, of units, positive. A hospital with fewer uses all of them (q = 1).
        steps: T, over all rounds and probes.
        max_grad_norm: The clipping norm, ignored when epsilon is infinite and ``clip_without_noise`` is not set.
        accountant: By which the budget is meant.
        clip_without_noise: Whether an infinite epsilon clips, too. Clipping bounds what a mislabelled or odd record can
            do, so the strongest control without privacy may be one that clips.
        patients: Its patients, where each of them is a unit; None: each record is one.

    Raises:
        SettingError: if delta is at or above 1 / units (such a delta allows publishing all of a unit), or if no noise
            reaches the budget.
    """
    units, word = (num_records, "record") if patients is None else (patients.patients, "patient")
    if budget.delta >= 1 / units:
        raise SettingError(
            "delta", f"{budget.delta:g} must be below 1/{word}s = {1 / units:g} of {name} ({units} {word}s)"
        )
    sample_rate = min(1.0, expected_batch / units)
    if not budget.is_private:
        norm = max_grad_norm if clip_without_noise else math.inf
        plain = DpSgdParams(noise_multiplier=0.0, max_grad_norm=norm, sample_rate=sample_rate, steps=steps)
        return HospitalPlan(name, num_records, mechanism=plain, eps_rdp=math.inf, patients=patients)
    try:
        sigma = calibrate(
            eps=budget.epsilon, delta=budget.delta, sample_rate=sample_rate, steps=steps, accountant=accountant
        )
    except ValueError as error:
        raise SettingError("eps", str(error)) from error
    mechanism = DpSgdParams(noise_multiplier=sigma, max_grad_norm=max_grad_norm, sample_rate=sample_rate, steps=steps)
    spent = epsilon(noise_multiplier=sigma, sample_rate=sample_rate, steps=steps, delta=budget.delta)
    return HospitalPlan(name, num_records, mechanism=mechanism, eps_rdp=spent, patients=patients)
