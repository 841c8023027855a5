from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hbdp_fed.audit import match


@given(m=st.integers(0, 5), n=st.integers(0, 5), seed=st.integers(0, 2**31))
def test_matching_is_the_best_of_all(m: int, n: int, seed: int) -> None:
    similarity = torch.rand(m, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    tall = similarity if m >= n else similarity.T
    best = max(
        sum(float(tall[row, column]) for column, row in enumerate(rows))
        for rows in permutations(range(tall.shape[0]), tall.shape[1])
    )
    found = match(similarity)
    assert float(similarity[found.reconstructions, found.records].sum()) == pytest.approx(best)
    assert (
        len(found.records) == min(m, n) == len(set(found.records.tolist())) == len(set(found.reconstructions.tolist()))
    )
    assert found.records.tolist() == sorted(found.records.tolist())


def test_one_image_cannot_stand_for_two_records() -> None:
    found = match(torch.tensor([[0.9, 0.95], [0.1, 0.5]]))
    assert found.reconstructions.tolist() == [0, 1]
    assert found.records.tolist() == [0, 1]
