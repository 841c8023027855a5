"""From a budget to the mechanism one hospital runs for the whole training."""

from __future__ import annotations

import math

from hbdp_fed.errors import SettingError
from hbdp_fed.privacy.accounting import calibrate, epsilon
from hbdp_fed.types import Accountant, DpSgdParams, HospitalPlan, PrivacyBudget


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
) -> HospitalPlan:
    """Calibrate one hospital's noise, once, to all the steps it will ever take.

    Args:
        name: The hospital.
        num_records: Its records, at least 1.
        budget: Per record and hospital, for the whole training. An infinite epsilon trains without noise.
        expected_batch: The wanted expected batch, positive. A hospital with fewer records uses all of them (q = 1).
        steps: T, over all rounds and probes.
        max_grad_norm: The clipping norm, ignored when epsilon is infinite and ``clip_without_noise`` is not set.
        accountant: By which the budget is meant.
        clip_without_noise: Whether an infinite epsilon clips, too. Clipping bounds what a mislabelled or odd record can
            do, so the strongest control without privacy may be one that clips.

    Raises:
        SettingError: if delta is at or above 1 / num_records (such a delta allows publishing a whole record), or if
            no noise reaches the budget.
    """
    if budget.delta >= 1 / num_records:
        raise SettingError(
            "delta",
            f"{budget.delta:g} must be below 1/records = {1 / num_records:g} of {name} ({num_records} records)",
        )
    sample_rate = min(1.0, expected_batch / num_records)
    if not budget.is_private:
        norm = max_grad_norm if clip_without_noise else math.inf
        plain = DpSgdParams(noise_multiplier=0.0, max_grad_norm=norm, sample_rate=sample_rate, steps=steps)
        return HospitalPlan(name=name, num_records=num_records, mechanism=plain, eps_rdp=math.inf)
    try:
        sigma = calibrate(
            eps=budget.epsilon, delta=budget.delta, sample_rate=sample_rate, steps=steps, accountant=accountant
        )
    except ValueError as error:
        raise SettingError("eps", str(error)) from error
    mechanism = DpSgdParams(noise_multiplier=sigma, max_grad_norm=max_grad_norm, sample_rate=sample_rate, steps=steps)
    spent = epsilon(noise_multiplier=sigma, sample_rate=sample_rate, steps=steps, delta=budget.delta)
    return HospitalPlan(name=name, num_records=num_records, mechanism=mechanism, eps_rdp=spent)
