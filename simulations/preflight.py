"""How many hospitals compute at the same time: what is rehearsed, what people are told, what the summary keeps."""

from __future__ import annotations

from typing import Any

from hbdp_fed.federation.engine import EngineSettings
from hbdp_fed.federation.preflight import Rehearsal, Sizing
from simulations.prepare import Prepared

_GIB = 2**30


def rehearsal_of(prepared: Prepared) -> Rehearsal:
    """One step of the hospital whose steps hold most records."""
    plan = max(prepared.plans, key=lambda plan: plan.expected_records)
    train = prepared.dataset.train
    return Rehearsal(
        architecture=prepared.architecture,
        mechanism=plan.mechanism,
        num_records=plan.num_records,
        image_shape=tuple(train.images.shape[1:]),
        label_shape=tuple(train.labels.shape[1:]),
        local=prepared.local,
        device=prepared.config.device,
        threads=prepared.engine.threads_per_client,
        patients=plan.patients,
    )


def sizing_line(sizing: Sizing) -> str | None:
    """What a person is told of a measured number of workers; None where nothing was measured."""
    if sizing.free_memory is None:
        return None
    free = f"{sizing.free_memory / _GIB:.1f} GiB are free"
    count = f"{sizing.workers} worker{'s' * (sizing.workers != 1)}"
    need = sizing.need
    if need is None:
        return f"WARNING: one hospital alone ran out of memory in its rehearsal, where {free}: {count}; {_ADVICE}"
    on_gpu = f" and {need.gpu_memory / _GIB:.1f} of {need.gpu_total / _GIB:.1f} GiB of a GPU" if need.gpu_memory else ""
    found = f"one hospital needs at most {need.memory / _GIB:.1f} GiB{on_gpu}; {free}: {count}"
    return found if sizing.fits else f"WARNING: {found}, which may run out of memory; {_ADVICE}"


_ADVICE = "a smaller training.max_physical_batch needs less"


def engine_summary(engine: EngineSettings, sizing: Sizing) -> dict[str, Any]:
    """The engine as it was, with what was measured of memory, in bytes (null where nothing was)."""
    return {
        "name": engine.name,
        "workers": sizing.workers,
        "threads_per_client": engine.threads_per_client,
        "gpus_per_client": sizing.gpus_per_client,
        "address": engine.address,
        "hospital_memory": None if sizing.need is None else sizing.need.memory,
        "hospital_gpu_memory": None if sizing.need is None else sizing.need.gpu_memory,
        "free_memory": sizing.free_memory,
    }
