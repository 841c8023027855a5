"""Sums of known records, taken apart again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hbdp_fed.adversary.trap_weights.unmixing import Doubt, Mixture, unmix

SURE = Doubt(spread=0.0, floor=0.0, penalty=0.0)
PIXELS = 500


def random_records(count: int, *, rows_of: Tensor, seed: int) -> Tensor:
    """float64 (m, D), of the same energy over all of their rows, as clipped records are."""
    records = torch.randn(count, PIXELS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return records / (records.norm(dim=1) * rows_of.sqrt())[:, None]


def mixed(seed: int, *, rows: int = 256, count: int = 16, activity: float = 1 / 16) -> tuple[Tensor, Tensor]:
    """Who is in which row, float64 0/1 (n, m) with each record once alone, and the records."""
    generator = torch.Generator().manual_seed(seed)
    active = (torch.rand(rows, count, generator=generator) < activity).double()
    active[:count] = torch.eye(count)
    active = active[torch.randperm(rows, generator=generator)]
    return active, random_records(count, rows_of=active.sum(dim=0), seed=seed)


def columns(active: Tensor) -> set[tuple[float, ...]]:
    return {tuple(column) for column in active.T.tolist()}


@pytest.mark.parametrize("seed", range(6))
def test_sums_of_records_are_taken_apart_exactly_without_noise(seed: int) -> None:
    active, records = mixed(seed)
    rows = active @ records
    mixture = unmix(rows @ rows.T, SURE, most=50)
    assert columns(mixture.active) == columns(active)
    assert bool(mixture.clean[active.any(dim=1)].all())
    order = [active.T.tolist().index(column) for column in mixture.active.T.tolist()]
    torch.testing.assert_close(mixture.weights() @ rows, records[order], rtol=0, atol=1e-7)


def test_crowded_rows_give_nearly_all_of_their_records_without_noise() -> None:
    """Four rows a record, in which it meets on average one other: some records are never told from their company."""
    exact = 0
    for seed in range(6):
        active, records = mixed(seed, rows=64)
        rows = active @ records
        found = unmix(rows @ rows.T, SURE, most=50).weights() @ rows
        exact += int((torch.cdist(records, found).amin(dim=1) < 1e-6).sum())
    assert exact >= 0.9 * 6 * 16


@pytest.mark.parametrize("seed", range(4))
def test_sums_of_records_are_taken_apart_in_noise_as_well_as_least_squares_can(seed: int) -> None:
    active, records = mixed(seed)
    noise = 2e-3
    generator = torch.Generator().manual_seed(seed)
    rows = active @ records + noise * torch.randn(len(active), PIXELS, dtype=torch.float64, generator=generator)
    gram = rows @ rows.T
    gram.diagonal().sub_(noise**2 * PIXELS)
    spread = noise**2 * math.sqrt(PIXELS)
    mixture = unmix(gram, Doubt(spread=spread, floor=5 * spread, penalty=5 * spread), most=50)
    # All of them, and hardly a sum of two beside them.
    assert columns(mixture.active) >= columns(active)
    assert mixture.active.shape[1] <= active.shape[1] + 2
    place = [mixture.active.T.tolist().index(column) for column in active.T.tolist()]
    error = ((mixture.weights() @ rows)[place] - records).square().mean(dim=1).sqrt()
    # By numpy, who knows which record is where.
    best = noise * np.linalg.norm(np.linalg.pinv(active.numpy()), axis=1)
    np.testing.assert_allclose(error.numpy(), best, rtol=0.2)


def test_rows_of_a_single_record_each_are_averaged() -> None:
    active = torch.zeros(6, 2, dtype=torch.float64)
    active[:4, 0] = active[4:, 1] = 1
    records = random_records(2, rows_of=active.sum(dim=0), seed=0)
    rows = active @ records
    mixture = unmix(rows @ rows.T, SURE, most=9)
    assert columns(mixture.active) == columns(active)
    weights = {tuple(round(value, 9) for value in row) for row in mixture.weights().tolist()}
    assert weights == {(0.25, 0.25, 0.25, 0.25, 0, 0), (0, 0, 0, 0, 0.5, 0.5)}


def test_two_records_that_share_all_of_their_rows_come_out_as_their_sum() -> None:
    active = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 1, 1], [0, 0, 1], [0, 0, 1]], dtype=torch.float64)
    records = random_records(3, rows_of=active.sum(dim=0), seed=1)
    rows = active @ records
    mixture = unmix(rows @ rows.T, SURE, most=9)
    assert columns(mixture.active) == columns(active[:, 1:])
    found = mixture.weights() @ rows
    for expected in (records[0] + records[1], records[2]):
        assert float((found - expected).norm(dim=1).min()) < 1e-7


def test_rows_without_records_stay_empty_and_no_rows_at_all_give_none() -> None:
    active, records = mixed(2)
    active = torch.cat([active, torch.zeros(5, active.shape[1])]).double()
    rows = active @ records
    mixture = unmix(rows @ rows.T, SURE, most=50)
    assert not mixture.active[-5:].any()
    assert unmix(torch.zeros(4, 4, dtype=torch.float64), SURE, most=50).active.shape == (4, 0)


def test_rows_of_noise_below_the_floor_hold_nothing() -> None:
    noise = torch.randn(20, PIXELS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gram = noise @ noise.T
    gram.diagonal().sub_(PIXELS)
    spread = math.sqrt(PIXELS)
    assert unmix(gram, Doubt(spread=spread, floor=6 * spread, penalty=0.0), most=9).active.shape == (20, 0)


@pytest.mark.parametrize("most", [0, 1, 3])
def test_no_more_records_are_looked_for_than_asked(most: int) -> None:
    active, records = mixed(3)
    rows = active @ records
    assert unmix(rows @ rows.T, SURE, most=most).active.shape[1] == most


def test_the_rows_order_does_not_matter() -> None:
    active, records = mixed(4)
    rows = active @ records
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(9))
    there = unmix(rows @ rows.T, SURE, most=50)
    shuffled = unmix(rows[order] @ rows[order].T, SURE, most=50)
    assert columns(shuffled.active) == columns(there.active[order])


def test_what_is_given_is_left_as_it_was() -> None:
    active, records = mixed(5)
    gram = active @ records @ records.T @ active.T
    before = gram.clone()
    unmix(gram, SURE, most=50)
    assert torch.equal(gram, before)


def test_unclean_rows_count_only_for_records_that_no_clean_row_tells() -> None:
    active = torch.tensor([[1, 0], [1, 0], [0, 1], [1, 1]], dtype=torch.float64)
    told = Mixture(active, torch.tensor([True, False, True, False])).weights()
    np.testing.assert_allclose(told, [[1, 0, 0, 0], [0, 0, 1, 0]], atol=1e-12)
    # The second record is in no clean row: it takes all rows.
    vague = Mixture(active, torch.tensor([True, False, False, False])).weights()
    np.testing.assert_allclose(vague[0], [1, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(vague[1], np.linalg.pinv(active.numpy())[1], atol=1e-12)
