"""Flower's own simulation runtime, to measure the engines against: the only file that starts it."""

from __future__ import annotations

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation


def run_on_stock_flower(server_app: ServerApp, client_app: ClientApp, *, num_hospitals: int, workers: int) -> None:
    """Run the apps with as many processes as ``workers``, one processor each. Whatever the server raises is raised."""
    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=num_hospitals,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"address": "local", "num_cpus": workers, "log_to_driver": False},
        },
    )
