"""The summary's entries about privacy and noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hbdp_fed.dpsgd import EFFECTIVELY_GAUSSIAN
from hbdp_fed.privacy import Protection, protection
from hbdp_fed.types import HospitalPlan
from simulations.overlap import overlap_summary
from simulations.prepare import Prepared, resolution

_SEEDED = "simulated from the run's seed: repeatable, and so no protection by itself"
_SECURE = (
    "drawn by ChaCha20 under a key of the operating system, which nobody can repeat; "
    "who is in a batch still follows the run's seed"
)


def protections(prepared: Prepared) -> list[Protection]:
    """What every hospital's records, or patients, are promised, over all planned steps and every surface."""
    return [
        protection(
            noise_multiplier=plan.mechanism.noise_multiplier,
            sample_rate=plan.mechanism.sample_rate,
            steps=plan.mechanism.steps,
            delta=prepared.config.delta,
            prior=prepared.config.adversary.prior,
        )
        for plan in prepared.plans
    ]


def privacy_summary(prepared: Prepared) -> dict[str, Any]:
    """The ``privacy`` entry of the summary."""
    config = prepared.config

    def entry(plan: HospitalPlan, guarantee: Protection) -> dict[str, Any]:
        return {
            "name": plan.name,
            "num_records": plan.num_records,
            "num_units": plan.num_units,
            "sample_rate": plan.mechanism.sample_rate,
            "steps": plan.mechanism.steps,
            "noise_multiplier": plan.mechanism.noise_multiplier,
            "max_grad_norm": plan.mechanism.max_grad_norm,
            "eps_rdp": plan.eps_rdp,
            "eps_tight": guarantee.eps_tight,
            "eps_lower": guarantee.eps_lower,
            "worst_case_bound": guarantee.worst_case,
            "relaxed_bound": guarantee.relaxed,
            "relaxed_paper": guarantee.relaxed_paper,
        }

    return {
        "eps": config.eps,
        "delta": config.delta,
        "unit": config.privacy.unit,
        "unit_word": prepared.units.word,
        "records_per_patient": prepared.units.records_per_patient,
        "adjacency": "add_remove",
        "accountant": config.privacy.accountant,
        "noise": _SECURE if config.privacy.secure_noise else _SEEDED,
        "overlap": overlap_summary(prepared),
        "hospitals": [
            entry(plan, guarantee) for plan, guarantee in zip(prepared.plans, protections(prepared), strict=True)
        ],
    }


def noise_summary(prepared: Prepared, clipped_sum: Mapping[str, float]) -> list[dict[str, Any]]:
    """The ``noise_to_resolution`` entry of the summary: each hospital's noise over the spacing of numbers beside it.

    Args:
        prepared: The run.
        clipped_sum: By hospital, the smallest ratio that it reported (see :class:`simulations.execute.Course`).

    Returns:
        For each hospital ``float32_weights`` (what sending weights would have made of one step's noise),
        ``float64_delta`` (what is really sent), ``clipped_sum``, and ``effectively_gaussian``: whether the last two are
        at least 10. Those two are None without noise, where there is nothing to round off, and of a hospital that
        never answered or keeps the ratio to itself.
    """
    entries = []
    for plan, (single, double) in zip(prepared.plans, resolution(prepared), strict=True):
        told = clipped_sum.get(plan.name, math.nan)
        summed = told if plan.mechanism.noise_multiplier > 0 and not math.isnan(told) else None
        entries.append(
            {
                "name": plan.name,
                "float32_weights": single,
                "float64_delta": double,
                "clipped_sum": summed,
                "effectively_gaussian": None if summed is None else min(summed, double) >= EFFECTIVELY_GAUSSIAN,
            }
        )
    return entries
