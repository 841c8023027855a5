"""A hospital's own work in one round: DP-SGD on its records, and what it tells about it."""

from __future__ import annotations

import time

import torch
from flwr.app import RecordDict

from hbdp_fed.data.contract import Records
from hbdp_fed.federation.codec import RoundReport, TrainRequest
from hbdp_fed.federation.control import HospitalControl
from hbdp_fed.federation.randomness import round_randomness
from hbdp_fed.federation.settings import AppSettings, Site
from hbdp_fed.training import gradient_weights, resolve_device, round_progress, train_locally
from hbdp_fed.types import ModelUpdate


def play_round(
    request: TrainRequest, settings: AppSettings, site: Site, *, records: Records, state: RecordDict, steps_spent: int
) -> tuple[ModelUpdate, RoundReport]:
    """Train on the hospital's records as the request says. Whether it may be answered was decided before.

    Args:
        request: What the server asks.
        settings: The federation's.
        site: The hospital's part of them.
        records: Its own.
        state: What it keeps between rounds; SCAFFOLD's control variate is renewed in place.
        steps_spent: Steps taken so far, this round included.

    Returns:
        The update in float64, and the report, whose ``bytes`` are counted when it is sent.
    """
    started = time.perf_counter()
    torch.set_num_threads(settings.threads)
    name, device = site.plan.name, resolve_device(settings.device)
    randomness = round_randomness(settings, name, request.round, device)
    progress = round_progress(request.round, rounds=settings.rounds, local_steps=settings.local_steps)
    control = None if request.control is None else HospitalControl.begun(state, request.control, hospital=name)
    result = train_locally(
        architecture=request.architecture,
        weights=request.weights,
        images=records.images,
        labels=records.labels,
        groups=records.groups,
        mechanism=site.plan.mechanism,
        steps=request.steps,
        settings=settings.local,
        progress=progress,
        noise=randomness.noise,
        batch_generator=randomness.batches,
        augmentation_generator=randomness.augmentation,
        device=device,
        added=None if control is None else control.added,
    )
    if control is not None:
        weight = sum(gradient_weights(settings.local, progress, request.steps))
        tolerant = settings.on_failure == "tolerate"
        control.keep(state, result.delta, round=request.round, weight=weight, may_be_lost=tolerant)
    report = RoundReport(
        hospital=name,
        round=request.round,
        status="ok",
        records=len(records),
        records_seen=result.records_seen,
        steps=request.steps,
        steps_spent=steps_spent,
        loss=result.loss,
        clipped_share=result.clipped_share,
        noise_to_resolution=result.noise_to_resolution,
        seconds=time.perf_counter() - started,
        bytes=0,
    )
    update = ModelUpdate(hospital=name, round=request.round, delta=result.delta, num_records=len(records))
    return update, report
