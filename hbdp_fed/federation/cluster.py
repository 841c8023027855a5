"""Ray, started once for everything that a process runs on it: hospitals first, attacks after."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from hbdp_fed.errors import SettingError
from hbdp_fed.federation import GIVE_BACK
from hbdp_fed.federation.crew import Node

LOCAL = "local"
"""The address of a cluster of one's own on this machine."""

_STARTING = threading.Lock()
_REACH_S = 5.0

logger = logging.getLogger(__name__)


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
    """Ray for as long as the context lasts. If this process is connected already, that connection is used and left.

    Raises:
        SettingError: if there is no cluster at the address.
    """
    with _STARTING:
        begun = _begin(settings)
    try:
        yield
    finally:
        if begun:
            _end()


@contextmanager
def shared_cluster(*, processors: int, gpus: bool) -> Iterator[str]:
    """A Ray cluster on this machine for several processes, of which this one computes nothing; yields its address.

    Args:
        processors: What it is given.
        gpus: Whether it is given this machine's GPUs, too.
    """
    with cluster(ClusterSettings(LOCAL, processors, gpus)):
        import ray

        yield ray.get_runtime_context().gcs_address


@contextmanager
def cluster_early(
    settings: ClusterSettings, *, then: Callable[[], None], at_last: Callable[[], None]
) -> Iterator[None]:
    """Start Ray beside what happens inside; who needs it there waits for it in :func:`cluster`.

    Args:
        settings: Which cluster. If it cannot be had, whoever needs it is told.
        then: Done beside, too, once Ray is there; who needs Ray waits for it, too.
        at_last: Done before Ray is left.
    """
    left = threading.Event()

    def start_and_stay() -> None:
        begun = False
        try:
            begun = _begin(settings)
            then()
        except Exception as error:  # noqa: BLE001 - it comes again where the cluster is needed
            logger.debug("Ray was not started early: %s", error)
        finally:
            _STARTING.release()
        # Ray's processes end with the thread that started them.
        left.wait()
        if begun:
            at_last()
            _end()

    _STARTING.acquire()  # before anybody inside can
    thread = threading.Thread(target=start_and_stay, name="ray")
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def cluster_nodes() -> list[Node]:
    """The nodes of the cluster that this process is connected to, its own first.

    Free memory is what Ray found when it was started on the node: its ``memory`` and what it set aside for objects.
    """
    import ray  # takes seconds to import

    own = ray.get_runtime_context().get_node_id()
    alive = [node for node in ray.nodes() if node["Alive"]]
    return [
        Node(
            name=node["NodeID"],
            processors=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
            memory=int(node["Resources"].get("memory", 0) + node["Resources"].get("object_store_memory", 0)),
        )
        for node in sorted(alive, key=lambda node: (node["NodeID"] != own, node["NodeID"]))
    ]


def _begin(settings: ClusterSettings) -> bool:
    """Whether Ray was started or joined; else it was there."""
    import ray  # takes seconds to import

    if ray.is_initialized():
        return False
    own = settings.address == LOCAL
    _check_reachable(settings.address)
    try:
        ray.init(
            # By default Ray joins whatever cluster this machine has, be it another run's, a stranger's or the remains
            # of one that was killed.
            address=settings.address,
            num_cpus=settings.processors if own else None,
            num_gpus=(torch.cuda.device_count() if settings.gpus else 0) if own else None,
            include_dashboard=False if own else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # The processes of one's own cluster inherit this. Asked for here, Ray would start others beside those that
            # it has ready.
            runtime_env=None if own else {"env_vars": GIVE_BACK},
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        if own:
            raise
        raise SettingError("engine.address", f"{settings.address}: {str(error).strip().splitlines()[0]}") from error
    return True


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_S).close()
    except (OSError, OverflowError) as error:
        raise SettingError("engine.address", f"nothing answers at {address} ({error})") from error


def _end() -> None:
    import ray

    ray.shutdown()
