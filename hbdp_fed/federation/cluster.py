"""Ray, started once for everything that a process runs on it: hospitals first, attacks after."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

LOCAL = "local"
"""The address of a cluster of one's own on this machine."""

_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**20)}
"""Makes glibc give large blocks back at once. Work that allocates tensors of ever new sizes makes a worker grow to many
times of what it uses."""


@dataclass(frozen=True)
class ClusterSettings:
    """Which Ray cluster to use.

    Attributes:
        address: :data:`LOCAL`, ``auto`` (the cluster that runs on this machine) or ``host:port``.
        processors: What a cluster of one's own is given.
        gpus: Whether it is given this machine's GPUs, too.
    """

    address: str
    processors: int
    gpus: bool


@contextmanager
def cluster(settings: ClusterSettings) -> Iterator[None]:
    """Ray for as long as the context lasts. If this process is connected already, that connection is used and left."""
    import ray  # takes seconds to import

    if ray.is_initialized():
        yield
        return
    own = settings.address == LOCAL
    ray.init(
        # By default Ray joins whatever cluster this machine has, be it another run's, a stranger's or the remains of
        # one that was killed.
        address=settings.address,
        num_cpus=settings.processors if own else None,
        num_gpus=(torch.cuda.device_count() if settings.gpus else 0) if own else None,
        include_dashboard=False if own else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": _GIVE_BACK},
    )
    try:
        yield
    finally:
        ray.shutdown()
