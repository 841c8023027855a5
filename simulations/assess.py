"""After the federation: the attacks held against the truth, and the summary's entries about privacy and noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hbdp_fed.adversary import save_reconstruction
from hbdp_fed.audit import (
    AttackFigures,
    attack_figures,
    audit_probe,
    best_columns,
    reconstruction_figure,
    risk_summary,
    save_figure,
)
from hbdp_fed.data import Records, as_floats
from hbdp_fed.dpsgd import EFFECTIVELY_GAUSSIAN, poisson_batches
from hbdp_fed.privacy import Protection, protection
from hbdp_fed.seeding import augmentation_stream, batch_stream, generator
from hbdp_fed.training import views
from hbdp_fed.types import HospitalPlan
from simulations.prepare import Prepared, resolution
from simulations.probe import PROBE_STEPS, ProbeCampaign, recording_name
from simulations.run_folder import RunFolder

FIGURE = "best.png"

_SEEDED = "simulated from the run's seed: repeatable, and so no protection by itself"
_SECURE = (
    "drawn by ChaCha20 under a key of the operating system, which nobody can repeat; "
    "who is in a batch still follows the run's seed"
)


@dataclass(frozen=True)
class Risk:
    """What the attacks came to.

    Attributes:
        summary: The ``risk`` entry of the summary.
        seconds: What the attacks and their audit took.
        figure: Whether a picture was written.
    """

    summary: Mapping[str, Any]
    seconds: float
    figure: bool


def attack_and_audit(
    prepared: Prepared, folder: RunFolder, campaign: ProbeCampaign | None, say: Callable[[str], None]
) -> Risk:
    """Run the attack on everything that was observed, then hold its reconstructions against the truth.

    Beside the attacks stand the bounds of the least protected hospital.

    The attack gets an observation and a generator. The truth, the records that the probe's step really drew, is
    replayed from the hospital's random stream and met with the reconstruction only here.
    """
    started = time.perf_counter()
    attacks: dict[str, list[AttackFigures]] = {}
    drawn = False
    if campaign is not None and campaign.answers:
        audited = []
        for observation in campaign.observations():
            hospital, number = observation.released.hospital, observation.released.round
            say(f"rebuilding the images of {hospital} (round {number})")
            reconstruction = campaign.attack.reconstruct(
                observation, generator(prepared.config.seed, "adversary", hospital, number)
            )
            save_reconstruction(reconstruction, folder.reconstructions, recording_name(observation))
            originals, controls = batch_of(prepared, hospital, number)
            multiplicity = prepared.local.multiplicity
            outcome = audit_probe(
                reconstruction,
                originals,
                observation.public.images,
                hospital=hospital,
                round=number,
                controls=controls,
                views=multiplicity,
            )
            shown = originals[torch.arange(len(outcome.view)) * multiplicity + outcome.view]
            audited.append((outcome, reconstruction, shown))
        attacks["realistic"] = [attack_figures(campaign.attack.name, "gradient", [outcome for outcome, *_ in audited])]
        columns = best_columns(audited, as_floats(prepared.federated.val.images))
        title = f"{campaign.attack.name} attack on {prepared.dataset.name} at eps={prepared.config.eps:g}"
        save_figure(reconstruction_figure(columns, title=title), folder.reconstructions / FIGURE)
        drawn = True
    guarantees = protections(prepared)
    bounds = {
        "worst_case": max(guarantee.worst_case for guarantee in guarantees),
        "relaxed": max(guarantee.relaxed for guarantee in guarantees),
    }
    summary = risk_summary(attacks, bounds, prior=prepared.config.adversary.prior)
    return Risk(summary=summary, seconds=time.perf_counter() - started, figure=drawn)


def batch_of(prepared: Prepared, hospital: str, number: int) -> tuple[Tensor, Tensor]:
    """Who was in a hospital's one step of round ``number``, replayed from its random streams, and who was not.

    Returns:
        The images that were drawn, as the model saw them: float32 (b * K, C, H, W) with K views of each. And up to b of
        the hospital's other images as controls, in as many views: what the reconstructions score against these is what
        chance scores.
    """
    index = next(i for i, plan in enumerate(prepared.plans) if plan.name == hospital)
    plan, records = prepared.plans[index], prepared.federated.hospitals[index].records
    batches = poisson_batches(
        num_records=len(records),
        sample_rate=plan.mechanism.sample_rate,
        steps=PROBE_STEPS,
        generator=batch_stream(prepared.config.seed, hospital, number),
    )
    drawn = torch.zeros(len(records), dtype=torch.bool)
    drawn[next(iter(batches))] = True
    # A mirrored image that comes back mirrored shows its patient: what the model saw is what an attack can rebuild.
    stream = augmentation_stream(prepared.config.seed, hospital, number)
    originals, _ = _seen(prepared, records, drawn.nonzero().flatten(), stream)
    others = (~drawn).nonzero().flatten()[: int(drawn.sum())]
    controls, _ = _seen(prepared, records, others, generator(prepared.config.seed, "audit", hospital, number))
    return originals, controls


def _seen(prepared: Prepared, records: Records, rows: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """The views of these records that a hospital takes when its random stream is ``stream``."""
    return views(
        as_floats(records.images[rows]),
        records.labels[rows],
        multiplicity=prepared.local.multiplicity,
        augmentation=prepared.local.augmentation,
        generator=stream,
    )


def protections(prepared: Prepared) -> list[Protection]:
    """What every hospital's records are promised, over all of their planned steps and every surface."""
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
        "unit": "record",
        "adjacency": "add_remove",
        "accountant": config.privacy.accountant,
        "noise": _SECURE if config.privacy.secure_noise else _SEEDED,
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
        at least 10. Without noise there is nothing to round off, and ``clipped_sum`` and ``effectively_gaussian`` are
        None.
    """
    entries = []
    for plan, (single, double) in zip(prepared.plans, resolution(prepared), strict=True):
        summed = clipped_sum[plan.name]
        private = plan.mechanism.noise_multiplier > 0
        entries.append(
            {
                "name": plan.name,
                "float32_weights": single,
                "float64_delta": double,
                "clipped_sum": summed,
                "effectively_gaussian": min(summed, double) >= EFFECTIVELY_GAUSSIAN if private else None,
            }
        )
    return entries
