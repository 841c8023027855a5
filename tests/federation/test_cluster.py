"""Engines on Ray clusters: two nodes give the bits of one process, and a cluster that was joined stays.

The two nodes pretend to have two processors and a GPU each. They share this machine's disk, so that a shard is hidden
from the workers by a path that is nowhere.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from hbdp_fed.errors import DataFileError, SettingError
from hbdp_fed.federation.cluster import ClusterSettings, cluster, cluster_early
from hbdp_fed.federation.engine import EngineSettings, Simulated, check_room
from hbdp_fed.federation.faults import Fault
from hbdp_fed.federation.parallel import run_tasks
from hbdp_fed.federation.preflight import Rehearsal, Sizing
from hbdp_fed.models import weights_sha256
from tests.federation.conftest import SPEC


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    size = {"num_cpus": 2, "num_gpus": 1}
    nodes = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    nodes.add_node(**size)
    nodes.wait_for_nodes()
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture
def joined(two_nodes: Cluster) -> Iterator[str]:
    address = str(two_nodes.address)
    with cluster(ClusterSettings(address=address, processors=0, gpus=True)):
        yield address
        assert ray.is_initialized()
    assert not ray.is_initialized()


def test_four_workers_on_two_nodes_that_lack_the_shards_give_the_bits_of_one_process(settings, run, joined) -> None:
    """Half a pretended GPU each: all four fit, two on a node."""
    nowhere = replace(
        settings, sites=tuple(replace(site, shard=f"/nowhere/{site.plan.name}") for site in settings.sites)
    )
    simulated = Simulated.fresh(nowhere)
    simulated.shards = [(site.shard, Path(own.shard)) for site, own in zip(nowhere.sites, settings.sites, strict=True)]
    sized: list[Sizing] = []
    simulated.on_sized = sized.append
    witness = run(nowhere, engine="ray", workers=4, gpus=0.5, address=joined, simulated=simulated)
    assert sized == [Sizing(4, 0.5)]
    assert weights_sha256(witness.final) == weights_sha256(run(settings).final)


@pytest.mark.slow
def test_a_secure_sum_on_two_nodes_survives_processes_that_die_between_its_phases(ten, run, joined) -> None:
    killed = replace(
        ten, rounds=1, faults=(Fault("hospital-03", 1, "killed"), Fault("hospital-05", 1, "killed", "deal"))
    )
    summed = run(killed, engine="ray", workers=2, address=joined)
    # Secrets travel in the hospitals' states from one process to the next; whose process dies is left out of the sum.
    assert [(f.hospital, f.kind, f.phase) for f in summed.failures] == [
        ("hospital-05", "lost", "deal"), ("hospital-03", "lost", "train"),
    ]  # fmt: skip
    raised = tuple(replace(fault, kind="exception") for fault in killed.faults)
    assert weights_sha256(summed.final) == weights_sha256(run(replace(killed, faults=raised)).final)


@pytest.mark.slow
def test_without_a_number_the_clusters_processors_and_memory_decide(
    settings, run, joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four processors allow three hospitals; memory for one a node, as it is pretended to be, leaves two."""
    mechanism = settings.sites[0].plan.mechanism
    rehearsal = Rehearsal(SPEC, mechanism, 31, (1, 12, 12), (), settings.local, "cpu", 1)
    simulated = Simulated.fresh(settings)
    simulated.rehearsal = rehearsal
    sized: list[Sizing] = []
    simulated.on_sized = sized.append
    monkeypatch.setattr("hbdp_fed.federation.preflight._room", lambda node, need: 1)
    witness = run(settings, engine="ray", workers=None, at_most=3, address=joined, simulated=simulated)
    [sizing] = sized
    assert (sizing.workers, sizing.fits) == (2, True)
    assert sizing.need is not None
    assert 2**26 < sizing.need.memory < 2**31
    assert len(witness.updates[2]) == 3


@pytest.mark.parametrize(
    ("workers", "threads", "gpus", "key"),
    [
        (5, 1, 0.0, "engine.workers"),
        (64, 1, 0.0, "engine.workers"),
        (3, 2, 0.0, "engine.workers"),
        (1, 3, 0.0, "engine.threads_per_client"),
        (3, 1, 0.6, "engine.gpus_per_client"),
    ],
)
def test_what_the_cluster_has_no_room_for_is_refused_at_once(
    settings, run, joined, workers, threads, gpus, key
) -> None:
    engine = EngineSettings("ray", workers, threads, gpus, address=joined)
    with pytest.raises(SettingError, match=f"^{key}"):
        check_room(engine)
    with pytest.raises(SettingError, match=f"^{key}"):
        list(run_tasks([int, int], engine=engine))
    if threads == 1:
        with pytest.raises(SettingError, match=f"^{key}"):
            run(settings, engine="ray", workers=workers, gpus=gpus, address=joined)


@pytest.mark.slow
def test_a_task_whose_files_are_elsewhere_is_done_again_where_they_are(joined) -> None:
    here = ray.get_runtime_context().get_node_id()

    def task() -> str:
        node = ray.get_runtime_context().get_node_id()
        if node != here:
            raise DataFileError(Path("observations"), "there is no such file")
        return str(node)

    engine = EngineSettings("ray", 4, 1, 0.0, address=joined)
    found = list(run_tasks([task] * 3, engine=engine))
    assert sorted(found) == [(place, here) for place in range(3)]


@pytest.mark.slow
def test_a_cluster_inside_another_is_the_same_and_the_outer_one_ends_it() -> None:
    """Also where the outer one is still starting."""
    own = ClusterSettings(address="local", processors=1, gpus=False)
    done: list[bool] = []
    with cluster_early(own, then=lambda: done.append(ray.is_initialized()), at_last=lambda: done.append(False)):
        with cluster(replace(own, processors=7)):
            assert ray.cluster_resources()["CPU"] == 1
        assert ray.is_initialized()
    assert done == [True, False]
    assert not ray.is_initialized()


def test_an_address_where_nothing_answers_is_refused_at_once() -> None:
    with socket.socket() as free:  # bound, but nobody listens
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(SettingError, match=f"^engine.address: nothing answers at {address}"):
            check_room(EngineSettings("ray", 1, 1, 0.0, address=address))
