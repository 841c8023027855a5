"""How many workers a cluster has room for, and what share of a GPU each of them takes. Arithmetic; no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hbdp_fed.errors import SettingError

_GRAIN = 10_000
"""Ray counts resources in ten-thousandths."""


@dataclass(frozen=True)
class Node:
    """One machine of a cluster.

    Attributes:
        name: Ray's identifier.
        processors: For workers.
        gpus: For workers.
        memory: Bytes that were free when the cluster was started there, within the limit of a container.
    """

    name: str
    processors: int
    gpus: int
    memory: int


@dataclass(frozen=True)
class Crew:
    """Workers that fit.

    Attributes:
        gpus: Share of a GPU that each takes.
        nodes: Where each of them works, an entry a worker.
    """

    gpus: float
    nodes: tuple[Node, ...]


def recruit(
    nodes: Sequence[Node], *, workers: int | None, at_most: int, threads: int, gpus_per_client: float | None
) -> Crew:
    """As many workers as are asked for, dealt to the nodes in turn.

    A worker's processors are on one node and its share of a GPU is of one GPU.

    Args:
        nodes: Of the cluster.
        workers: None takes as many as there is room for.
        at_most: How many None may become, at least 1.
        threads: Processors of a worker.
        gpus_per_client: Share of a GPU, in [0, 1]; None shares the cluster's GPUs equally among the workers.

    Raises:
        SettingError: if there is no room for them. To wait for it would be to wait for ever.
    """
    by_processors = [node.processors // threads for node in nodes]
    if not any(by_processors):
        largest = max((node.processors for node in nodes), default=0)
        raise SettingError("engine.threads_per_client", f"must be at most {largest}, the processors of a node")
    if workers is not None and workers > sum(by_processors):
        raise SettingError(
            "engine.workers",
            f"must be at most {sum(by_processors)}, got {workers}: the cluster has {_processors(nodes)}, and a worker "
            f"takes {threads} (engine.threads_per_client)",
        )
    wanted = min(at_most, sum(by_processors)) if workers is None else workers
    share = _equal_share(wanted, nodes) if gpus_per_client is None else gpus_per_client
    room = [min(own, _on_gpus(node, share, own)) for node, own in zip(nodes, by_processors, strict=True)]
    if gpus_per_client is None:
        wanted = min(wanted, sum(room)) if workers is None else wanted
    if sum(room) == 0 or (workers is not None and wanted > sum(room)):
        raise SettingError(
            "engine.gpus_per_client",
            f"{wanted} workers with {share:g} of a GPU each do not fit: the cluster has {_gpus(nodes)}, with room for "
            f"{sum(room)}",
        )
    return Crew(gpus=share, nodes=_dealt(nodes, room, min(wanted, sum(room))))


def _equal_share(workers: int, nodes: Sequence[Node]) -> float:
    """Rounded down to what Ray counts in: a sixth, rounded up, would fit only five times."""
    gpus = sum(node.gpus for node in nodes)
    if gpus == 0:
        raise SettingError("engine.gpus_per_client", "must be 0: the cluster has no GPU")
    return _GRAIN // max(1, -(-workers // gpus)) / _GRAIN


def _on_gpus(node: Node, share: float, otherwise: int) -> int:
    grains = round(share * _GRAIN)
    return node.gpus * (_GRAIN // grains) if grains else otherwise


def _dealt(nodes: Sequence[Node], room: Sequence[int], workers: int) -> tuple[Node, ...]:
    turns = [node for turn in range(max(room)) for node, own in zip(nodes, room, strict=True) if turn < own]
    return tuple(turns[:workers])


def _processors(nodes: Sequence[Node]) -> str:
    return f"{sum(node.processors for node in nodes)} processors on {len(nodes)} node{'s' * (len(nodes) > 1)}"


def _gpus(nodes: Sequence[Node]) -> str:
    return f"{sum(node.gpus for node in nodes)} GPUs on {len(nodes)} node{'s' * (len(nodes) > 1)}"
