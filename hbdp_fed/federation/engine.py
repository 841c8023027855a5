"""The engines that run a federation on one machine or one cluster. They share the apps: the results are the same."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from flwr.app import RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from torch import Tensor

from hbdp_fed.errors import unknown_choice
from hbdp_fed.federation.cluster import LOCAL, ClusterSettings, cluster, cluster_early, cluster_nodes
from hbdp_fed.federation.crew import Crew, Node, recruit
from hbdp_fed.federation.faults import DUPLICATE
from hbdp_fed.federation.inprocess import play_in_process
from hbdp_fed.federation.memory import kept_arrays, kept_records, put_back
from hbdp_fed.federation.preflight import Rehearsal, Sizing, fitting
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.federation.simulated_grid import run_simulated
from hbdp_fed.types import Weights

if TYPE_CHECKING:
    from hbdp_fed.federation.on_ray import RayPlayers


IN_PROCESS = "inprocess"
"""The engine without other processes."""


@dataclass(frozen=True)
class EngineSettings:
    """How a federation is run.

    Attributes:
        name: A key of :data:`ENGINES`.
        workers: Hospitals that compute at the same time; None: as many as the cluster's processors and memory allow.
        threads_per_client: PyTorch threads of each.
        gpus_per_client: Share of a GPU that a hospital takes, in [0, 1]; None shares all equally among the workers.
        address: The Ray cluster (see :class:`~hbdp_fed.federation.cluster.ClusterSettings`).
        at_most: The most workers that None may become: there is no use for more than hospitals.
    """

    name: str
    workers: int | None
    threads_per_client: int
    gpus_per_client: float | None
    address: str = LOCAL
    at_most: int = 1

    @property
    def cluster(self) -> ClusterSettings:
        """The cluster that this asks for. One of its own has room for its workers and no more."""
        workers = self.workers or default_workers(
            num_hospitals=self.at_most, threads_per_client=self.threads_per_client
        )
        return ClusterSettings(
            address=self.address, processors=workers * self.threads_per_client, gpus=self.gpus_per_client != 0
        )

    def crew(self, nodes: Sequence[Node]) -> Crew:
        """The workers that these nodes have room for.

        Raises:
            SettingError: if they lack the room for what is asked.
        """
        return recruit(
            nodes,
            workers=self.workers,
            at_most=self.at_most,
            threads=self.threads_per_client,
            gpus_per_client=self.gpus_per_client,
        )


def _unheard(_: Sizing) -> None:
    """For whom it is all the same."""


@dataclass
class Simulated:
    """What a simulation adds to the apps: the nodes.

    Attributes:
        states: What each hospital keeps between rounds, in the hospitals' order; renewed in place.
        twice: Answers that the network delivers twice, as (place of the hospital, round).
        shards: By hospital, where it keeps its records by the settings, and where this machine has them.
        rehearsal: The most demanding step, by which the workers are numbered where nobody says how many.
        on_sized: Told how many they are before the first message.
    """

    states: list[RecordDict]
    twice: Collection[tuple[int, int]] = frozenset()
    shards: Sequence[tuple[str, Path]] = ()
    rehearsal: Rehearsal | None = None
    on_sized: Callable[[Sizing], None] = _unheard

    @classmethod
    def fresh(cls, settings: AppSettings) -> Simulated:
        """Hospitals that were asked nothing yet."""
        places = {name: place for place, name in enumerate(settings.hospitals)}
        twice = {(places[fault.hospital], fault.round) for fault in settings.faults if fault.kind == DUPLICATE}
        return cls(
            states=[RecordDict() for _ in settings.sites],
            twice=twice,
            shards=[(site.shard, Path(site.shard)) for site in settings.sites],
        )

    def to_plain(self) -> list[dict[str, dict[str, Any]]]:
        """What the hospitals keep beyond a round, as plain JSON values, but for arrays and the secrets of a sum."""
        return [kept_records(state) for state in self.states]

    def arrays(self) -> Weights:
        """The arrays that the hospitals keep, by ``<place of the hospital>/<record>/<name>``."""
        return {
            f"{place}/{record}/{name}": value
            for place, state in enumerate(self.states)
            for record, arrays in kept_arrays(state).items()
            for name, value in arrays.items()
        }

    def restore(self, value: Sequence[Mapping[str, Mapping[str, Any]]], arrays: Weights | None = None) -> None:
        """Give the hospitals back what :meth:`to_plain` and :meth:`arrays` wrote down."""
        found: dict[int, dict[str, dict[str, Tensor]]] = {}
        for key, tensor in (arrays or {}).items():
            number, record, name = key.split("/", 2)
            found.setdefault(int(number), {}).setdefault(record, {})[name] = tensor
        for place, records in enumerate(value):
            self.states[place] = RecordDict()
            put_back(self.states[place], records, found.get(place, {}))


def _ray(server_app: ServerApp, client_app: ClientApp, simulated: Simulated, engine: EngineSettings) -> None:
    with cluster(engine.cluster):
        from hbdp_fed.federation.on_ray import RayPlayers  # Ray takes seconds to import

        nodes = cluster_nodes()
        crew = engine.crew(nodes)
        shards = simulated.shards if engine.address != LOCAL else None
        players = RayPlayers(client_app, crew, threads=engine.threads_per_client, shards=shards)
        try:
            simulated.on_sized(_sized(players, crew, nodes, simulated.rehearsal if engine.workers is None else None))
            run_simulated(server_app, players, simulated.states, simulated.twice)
        finally:
            players.close()


def _sized(players: RayPlayers, crew: Crew, nodes: Sequence[Node], rehearsal: Rehearsal | None) -> Sizing:
    """Ask one worker what a hospital needs, and go on with as many as there is memory for."""
    if rehearsal is None:
        return Sizing(len(crew.nodes), crew.gpus)
    kept, sizing = fitting(crew, nodes, players.rehearse(rehearsal))
    players.keep(kept)
    return sizing


def _inprocess(server_app: ServerApp, client_app: ClientApp, simulated: Simulated, engine: EngineSettings) -> None:
    simulated.on_sized(Sizing(1, 0.0))
    run_simulated(server_app, play_in_process(client_app), simulated.states, simulated.twice)


ENGINES: Mapping[str, Callable[[ServerApp, ClientApp, Simulated, EngineSettings], None]] = {
    "ray": _ray,
    IN_PROCESS: _inprocess,
}
"""Engines by name."""


@contextmanager
def kept_ready(engine: EngineSettings) -> Iterator[None]:
    """What the engine needs is started once for all that runs on it inside, beside what is done there before."""
    if engine.name != "ray":
        yield
        return

    def start_workers() -> None:
        from hbdp_fed.federation.on_ray import start_early

        start_early(engine.crew(cluster_nodes()), threads=engine.threads_per_client)

    def end_workers() -> None:
        from hbdp_fed.federation.on_ray import forget_early

        forget_early()

    with cluster_early(engine.cluster, then=start_workers, at_last=end_workers):
        yield


def check_room(engine: EngineSettings) -> None:
    """Refuse what the engine's cluster has no room for. Waits for a cluster that is to be joined, not for one's own.

    Raises:
        SettingError: if workers or their shares of GPUs do not fit, or there is no cluster at the address.
    """
    if engine.name != "ray":
        return
    if engine.address == LOCAL:
        gpus = torch.cuda.device_count() if engine.cluster.gpus else 0
        engine.crew([Node("here", engine.cluster.processors, gpus, 0)])
        return
    with cluster(engine.cluster):
        engine.crew(cluster_nodes())


def default_workers(*, num_hospitals: int, threads_per_client: int) -> int:
    """As many workers as this machine's processors allow, at least 1 and at most one a hospital."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(num_hospitals, processors // threads_per_client))


def run_federation(
    server_app: ServerApp, client_app: ClientApp, *, simulated: Simulated, engine: EngineSettings
) -> None:
    """Run the apps to the end, the server's in this thread. What it raises is raised here.

    Raises:
        SettingError: for an unknown engine.
        HospitalFailure: if a hospital failed.
    """
    if engine.name not in ENGINES:
        raise unknown_choice("engine", engine.name, ENGINES)
    # Failures are raised with their hospital's name, and Flower's own account of the same event would only repeat it.
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    ENGINES[engine.name](server_app, client_app, simulated, engine)
