from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hbdp_fed.audit.proportions import clustered_wilson, wilson_interval


def clustered(*counts: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Clusters of (successes, records)."""
    successes = [record < hits for hits, records in counts for record in range(records)]
    clusters = [number for number, (_, records) in enumerate(counts) for _ in range(records)]
    return torch.tensor(successes, dtype=torch.bool), torch.tensor(clusters, dtype=torch.int64)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (37, 64)])
def test_the_interval_is_wilsons(successes: int, trials: int) -> None:
    z, p = 1.959963984540054, successes / trials
    centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    assert wilson_interval(successes, trials) == pytest.approx((centre - half, centre + half), abs=1e-12)


def test_a_rate_of_none_or_all_has_an_exact_end() -> None:
    assert wilson_interval(0, 7)[0] == 0.0
    assert wilson_interval(7, 7)[1] == 1.0


def test_no_trials_have_no_interval() -> None:
    assert wilson_interval(0, 0) is None
    assert clustered_wilson(*clustered()) is None


@pytest.mark.parametrize("hits", [0, 1, 7, 12])
def test_clusters_of_one_record_are_independent_records(hits: int) -> None:
    assert clustered_wilson(*clustered(*[(int(i < hits), 1) for i in range(12)])) == wilson_interval(hits, 12)


def test_the_interval_of_two_clusters_is_the_one_worked_out_by_hand() -> None:
    # 6 of 8 and 2 of 8: p = 1/2, residuals 2 and -2, v = 2/1 * 8/256 = 1/16, against (1/4)/15: an effect of 3.75.
    student = {1: 12.706204736174698, 15: 2.131449545559323}
    effective = 16 / 3.75 * (student[15] / student[1]) ** 2
    z = 1.959963984540054
    half = z / (1 + z**2 / effective) * math.sqrt(0.25 / effective + z**2 / (4 * effective**2))
    assert clustered_wilson(*clustered((6, 8), (2, 8))) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-12)


@pytest.mark.parametrize("counts", [[(3, 10)], [(0, 4), (0, 6)], [(4, 4), (6, 6)]])
def test_where_no_variance_can_be_estimated_the_interval_is_wilsons(counts: list[tuple[int, int]]) -> None:
    successes, clusters = clustered(*counts)
    assert clustered_wilson(successes, clusters) == wilson_interval(int(successes.sum()), len(successes))


@given(st.lists(st.integers(1, 12).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=8))
def test_clusters_never_make_it_surer_and_their_numbers_do_not_matter(counts: list[tuple[int, int]]) -> None:
    successes, clusters = clustered(*counts)
    low, high = clustered_wilson(successes, clusters)
    plain_low, plain_high = wilson_interval(int(successes.sum()), len(successes))
    assert 0 <= low <= plain_low + 1e-12
    assert plain_high - 1e-12 <= high <= 1
    assert low <= float(successes.double().mean()) <= high
    assert clustered_wilson(successes.flip(0), 1000 - 7 * clusters.flip(0)) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize(("rate", "correlation"), [(0.3, 0.2), (0.5, 0.5)])
def test_twenty_correlated_clusters_are_covered_where_wilson_alone_is_far_too_sure(
    rate: float, correlation: float
) -> None:
    # Beta-binomial clusters of uneven sizes: the intra-cluster correlation is 1 / (a + b + 1).
    rng, runs = np.random.default_rng(1), 600
    total = (1 - correlation) / correlation
    covered = plain = 0
    for _ in range(runs):
        sizes = rng.integers(10, 31, 20)
        clusters = np.repeat(np.arange(20), sizes)
        successes = rng.random(len(clusters)) < rng.beta(rate * total, (1 - rate) * total, 20)[clusters]
        low, high = clustered_wilson(torch.from_numpy(successes), torch.from_numpy(clusters))
        covered += low <= rate <= high
        low, high = wilson_interval(int(successes.sum()), len(successes))
        plain += low <= rate <= high
    assert covered / runs >= 0.90
    assert plain / runs < 0.75


def test_every_record_needs_a_cluster() -> None:
    with pytest.raises(ValueError, match="every record needs a cluster"):
        clustered_wilson(torch.ones(3, dtype=torch.bool), torch.zeros(2, dtype=torch.int64))
