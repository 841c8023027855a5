"""Engines on Ray clusters: one of two nodes gives the bits of one process, and a cluster that was joined stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import ray
from ray.cluster_utils import Cluster

from hbdp_fed.federation.cluster import ClusterSettings, cluster
from hbdp_fed.models import weights_sha256


@pytest.fixture
def two_nodes() -> Iterator[Cluster]:
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def test_two_nodes_give_the_same_bits_as_one_process(settings, run, two_nodes: Cluster) -> None:
    joined = ClusterSettings(address=two_nodes.address, processors=2, gpus=False)
    with cluster(joined):
        assert len([node for node in ray.nodes() if node["Alive"]]) == 2
        # One processor a node: two workers can only be on two nodes.
        witness = run(settings, engine="ray", workers=2)
        assert ray.is_initialized()
    assert not ray.is_initialized()
    assert weights_sha256(witness.final) == weights_sha256(run(settings).final)


def test_a_cluster_inside_another_is_the_same_and_the_outer_one_ends_it() -> None:
    own = ClusterSettings(address="local", processors=1, gpus=False)
    with cluster(own):
        first = ray.get_runtime_context().get_job_id()
        with cluster(replace(own, processors=7)):
            assert ray.get_runtime_context().get_job_id() == first
        assert ray.is_initialized()
        assert ray.cluster_resources()["CPU"] == 1
    assert not ray.is_initialized()
