"""The engines that run a federation on one machine. They share the apps, so they give the same results."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from hbdp_fed.errors import unknown_choice


@dataclass(frozen=True)
class EngineSettings:
    """How a federation is run on this machine.

    Attributes:
        name: A key of :data:`ENGINES`.
        workers: Hospitals that compute at the same time.
        threads_per_client: PyTorch threads of each.
        gpus_per_client: Share of a GPU that a hospital takes, in [0, 1].
    """

    name: str
    workers: int
    threads_per_client: int
    gpus_per_client: float


def _ray(server_app: ServerApp, client_app: ClientApp, num_hospitals: int, engine: EngineSettings) -> None:
    from hbdp_fed.federation.on_ray import run_on_ray  # Ray takes seconds to import

    run_on_ray(
        server_app,
        client_app,
        num_hospitals=num_hospitals,
        workers=engine.workers,
        threads_per_client=engine.threads_per_client,
        gpus_per_client=engine.gpus_per_client,
    )


def _inprocess(server_app: ServerApp, client_app: ClientApp, num_hospitals: int, engine: EngineSettings) -> None:
    from hbdp_fed.federation.inprocess import run_in_process

    run_in_process(server_app, client_app, num_hospitals=num_hospitals)


ENGINES: Mapping[str, Callable[[ServerApp, ClientApp, int, EngineSettings], None]] = {
    "ray": _ray,
    "inprocess": _inprocess,
}
"""Engines by name."""


def default_workers(*, num_hospitals: int, threads_per_client: int) -> int:
    """As many workers as this machine's processors allow, at least 1 and at most one a hospital."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(num_hospitals, processors // threads_per_client))


def run_federation(server_app: ServerApp, client_app: ClientApp, *, num_hospitals: int, engine: EngineSettings) -> None:
    """Run the apps to the end.

    Raises:
        SettingError: for an unknown engine.
        HospitalFailure: if a hospital failed.
    """
    if engine.name not in ENGINES:
        raise unknown_choice("engine", engine.name, ENGINES)
    # For good, not only while the engine runs: an interrupted run's server thread logs a little longer. Failures are
    # raised with their hospital's name, and Flower's own account of the same event would only repeat it.
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    ENGINES[engine.name](server_app, client_app, num_hospitals, engine)
