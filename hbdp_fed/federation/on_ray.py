"""The engine on Ray: the only file that starts Flower's simulation."""

from __future__ import annotations

import logging

import torch
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation


def run_on_ray(
    server_app: ServerApp,
    client_app: ClientApp,
    *,
    num_hospitals: int,
    workers: int,
    threads_per_client: int,
    gpus_per_client: float,
) -> None:
    """Run a federation with ``workers`` processes that take turns at playing the hospitals.

    Args:
        server_app: Runs in a thread of this process.
        client_app: Pickled and sent to the workers.
        num_hospitals: Flower nodes to register.
        workers: Hospitals that compute at the same time, at least 1.
        threads_per_client: PyTorch threads of each; the workers together are given workers * threads processors.
        gpus_per_client: Share of a GPU that a hospital takes, 0 for none.

    Whatever the server app raises is raised here.
    """
    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=num_hospitals,
        backend_config={
            "client_resources": {"num_cpus": threads_per_client, "num_gpus": gpus_per_client},
            "init_args": {
                # Always a cluster of our own: by default Ray joins whatever cluster this machine has, be it another
                # run's, a stranger's or the remains of one that was killed.
                "address": "local",
                "num_cpus": workers * threads_per_client,
                "num_gpus": torch.cuda.device_count() if gpus_per_client > 0 else 0,
                "log_to_driver": False,
                "logging_level": logging.ERROR,
                "include_dashboard": False,
            },
        },
    )
