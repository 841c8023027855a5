"""How many workers a cluster has room for: worked out by hand."""

from __future__ import annotations

import pytest

from hbdp_fed.errors import SettingError
from hbdp_fed.federation.crew import Crew, Node, recruit


def nodes(*sizes: tuple[int, int]) -> list[Node]:
    return [Node(f"n{place}", processors, gpus, 0) for place, (processors, gpus) in enumerate(sizes)]


def crew(
    *sizes: tuple[int, int], workers: int | None = None, at_most: int = 99, threads: int = 1, gpus: float | None = 0.0
) -> Crew:
    return recruit(nodes(*sizes), workers=workers, at_most=at_most, threads=threads, gpus_per_client=gpus)


@pytest.mark.parametrize(
    ("sizes", "arguments", "names"),
    [
        # The cluster's processors count, a worker's all on one node: 5 // 2 + 3 // 2.
        ([(5, 0), (3, 0)], {"threads": 2}, "n0 n1 n0"),
        ([(5, 0), (3, 0)], {"threads": 2, "at_most": 2}, "n0 n1"),
        ([(5, 0), (1, 0)], {"threads": 2, "workers": 2}, "n0 n0"),
        ([(8, 1), (8, 1)], {"gpus": 0.5}, "n0 n1 n0 n1"),
        # Two shares of 0.4 fit on a GPU, and 0.2 of each is left over.
        ([(8, 2)], {"gpus": 0.4}, "n0 n0 n0 n0"),
        ([(8, 0), (8, 1)], {"gpus": 1.0}, "n1"),
    ],
)
def test_as_many_as_fit_are_dealt_to_the_nodes_in_turn(sizes, arguments, names: str) -> None:
    assert [node.name for node in crew(*sizes, **arguments).nodes] == names.split()


@pytest.mark.parametrize(
    ("sizes", "workers", "share"),
    [([(8, 1)], 2, 0.5), ([(8, 4)], 2, 1.0), ([(8, 2)], 3, 0.5), ([(8, 1)], 6, 0.1666), ([(4, 1), (4, 1)], 8, 0.25)],
)
def test_gpus_are_shared_equally_in_what_ray_counts_in(sizes, workers: int, share: float) -> None:
    found = crew(*sizes, workers=workers, gpus=None)
    assert found.gpus == share
    assert len(found.nodes) == workers


@pytest.mark.parametrize(
    ("sizes", "arguments", "message"),
    [
        ([(1, 0), (1, 0)], {"workers": 64}, r"^engine.workers: must be at most 2, got 64: .* 2 processors on 2 nodes"),
        ([(3, 0)], {"workers": 2, "threads": 2}, r"^engine.workers: must be at most 1, got 2"),
        ([(3, 0), (2, 0)], {"threads": 4}, r"^engine.threads_per_client: must be at most 3"),
        ([(9, 1), (9, 1)], {"workers": 5, "gpus": 0.5}, r"^engine.gpus_per_client: 5 workers with 0.5 .* room for 4"),
        # A third is 0.3333 to Ray, but two thirds leave no room for another two thirds.
        ([(9, 1)], {"workers": 2, "gpus": 0.6667}, r"^engine.gpus_per_client: 2 workers .* room for 1"),
        ([(9, 0)], {"gpus": None}, r"^engine.gpus_per_client: must be 0: the cluster has no GPU"),
        ([(9, 0)], {"gpus": 0.5}, r"^engine.gpus_per_client: .* room for 0"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_there_is(sizes, arguments, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        crew(*sizes, **arguments)
