"""Divisions by group: nobody is in two splits, and everything is spread as evenly as whole groups allow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from hbdp_fed.data.splits import SplitSettings, numbered, split_by_group, split_train_val, stratified_subset
from hbdp_fed.errors import SettingError

MANY = 2_000


@st.composite
def records(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Groups of one to five records in random order, and strata, which a group need not agree on."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=30, max_size=150))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = rng.choice(10_000, size=len(sizes), replace=False)
    groups = rng.permutation(np.repeat(names, sizes))
    weights = rng.dirichlet(np.ones(draw(st.integers(1, 6))))
    strata = rng.choice(len(weights), size=len(groups), p=weights)
    return torch.from_numpy(groups).long(), torch.from_numpy(strata).long()


fractions = st.tuples(st.floats(0.05, 0.45), st.floats(0.05, 0.45))
seeds = st.integers(0, 1000)


def group_strata(groups: Tensor, strata: Tensor) -> dict[int, int]:
    """Each group's stratum, which is its first record's."""
    found: dict[int, int] = {}
    for group, stratum in zip(groups.tolist(), strata.tolist(), strict=True):
        found.setdefault(group, stratum)
    return found


def counts(part: Tensor, groups: Tensor, strata: Tensor) -> np.ndarray:
    """The part's groups of each stratum."""
    stratum_of = group_strata(groups, strata)
    inside = [stratum_of[group] for group in set(groups[part].tolist())]
    return np.bincount(inside, minlength=int(strata.max()) + 1)


@given(records(), fractions, seeds)
def test_every_record_is_in_one_split_and_no_group_in_two(
    data: tuple[Tensor, Tensor], shares: tuple[float, float], seed: int
) -> None:
    groups, strata = data
    split = split_by_group(groups, strata, SplitSettings(*shares, seed))
    parts = (split.train, split.val, split.test)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(groups)))
    assert all(part.tolist() == sorted(part.tolist()) and part.dtype == torch.int64 for part in parts)
    owners = [set(groups[part].tolist()) for part in parts]
    assert sum(map(len, owners)) == len(set.union(*owners))


@given(records(), fractions, seeds)
def test_shares_are_exact_up_to_one_group_and_strata_are_spread(
    data: tuple[Tensor, Tensor], shares: tuple[float, float], seed: int
) -> None:
    groups, strata = data
    val, test = shares
    split = split_by_group(groups, strata, SplitSettings(val, test, seed))
    everyone = counts(torch.arange(len(groups)), groups, strata)
    for part, share, tolerance in ((split.val, val, 1 + val / (1 - test)), (split.test, test, 1)):
        inside = counts(part, groups, strata)
        assert abs(inside.sum() - everyone.sum() * share) < 1 + 1e-6
        assert (np.abs(inside - everyone * share) < tolerance + 1e-6).all()


@given(records(), st.floats(0.05, 0.9), seeds)
def test_a_validation_split_alone_is_exact_up_to_one_group_of_each_stratum(
    data: tuple[Tensor, Tensor], share: float, seed: int
) -> None:
    groups, strata = data
    train, val = split_train_val(groups, strata, val_fraction=share, seed=seed)
    assert sorted(torch.cat([train, val]).tolist()) == list(range(len(groups)))
    assert not set(groups[train].tolist()) & set(groups[val].tolist())
    everyone, inside = counts(torch.arange(len(groups)), groups, strata), counts(val, groups, strata)
    assert abs(inside.sum() - everyone.sum() * share) < 1 + 1e-6
    assert (np.abs(inside - everyone * share) < 1 + 1e-6).all()


@given(records(), st.integers(1, 200), seeds)
def test_a_subset_keeps_the_strata_in_their_proportions(data: tuple[Tensor, Tensor], count: int, seed: int) -> None:
    _, strata = data
    chosen = stratified_subset(strata, count, seed=seed)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(chosen) == min(count, len(strata))
    share = len(chosen) / len(strata)
    kept = torch.bincount(strata[chosen], minlength=int(strata.max()) + 1)
    assert ((kept - torch.bincount(strata) * share).abs() < 1 + 1e-6).all()


@given(records(), seeds)
def test_the_same_seed_gives_the_same_split_and_another_another(data: tuple[Tensor, Tensor], seed: int) -> None:
    groups, strata = data
    assume(len(groups) > 60)

    def three(seed: int) -> list[list[int]]:
        split = split_by_group(groups, strata, SplitSettings(0.2, 0.3, seed))
        return [split.train.tolist(), split.val.tolist(), split.test.tolist()]

    assert three(seed) == three(seed)
    assert three(seed) != three(seed + 1)


def test_another_seed_divides_and_draws_otherwise() -> None:
    groups, strata = torch.arange(MANY), torch.arange(MANY) % 3
    assert not torch.equal(
        split_train_val(groups, strata, val_fraction=0.1, seed=0)[1],
        split_train_val(groups, strata, val_fraction=0.1, seed=1)[1],
    )
    assert not torch.equal(stratified_subset(strata, 200, seed=0), stratified_subset(strata, 200, seed=1))


def test_the_names_of_groups_do_not_matter() -> None:
    groups = torch.arange(100) // 2
    split = split_by_group(groups, groups % 3, SplitSettings())
    renamed = split_by_group(groups * 7 + 5, groups % 3, SplitSettings())
    assert torch.equal(split.test, renamed.test)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_fraction": 0.0}, r"^data\.val_fraction: must be a number strictly between 0 and 1"),
        ({"val_fraction": 1}, r"^data\.val_fraction"),
        ({"test_fraction": 0.0}, r"^data\.test_fraction"),
        ({"seed": -1}, r"^data\.split_seed: must be an integer of at least 0"),
        ({"val_fraction": 0.6, "test_fraction": 0.4}, r"leave nothing to train on"),
    ],
)
def test_shares_that_cannot_be_used_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        SplitSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fraction", "seed", "message"),
    [
        (0.0, 0, r"^data\.val_fraction: must be a number strictly between 0 and 1"),
        (1.0, 0, r"^data\.val_fraction"),
        (0.5, -1, r"^data\.split_seed"),
        (0.2, 0, r"^data\.val_fraction: 4 groups of records are too few"),
    ],
)
def test_a_share_for_validation_alone_is_checked(fraction: float, seed: int, message: str) -> None:
    groups = torch.arange(8) // 2
    with pytest.raises(SettingError, match=message):
        split_train_val(groups, torch.zeros(8, dtype=torch.int64), val_fraction=fraction, seed=seed)


def test_too_few_groups_are_refused_however_many_records_they_have() -> None:
    groups = torch.arange(3).repeat(100)
    with pytest.raises(SettingError, match=r"^data\.test_fraction: 3 groups of records are too few"):
        split_by_group(groups, torch.zeros(300, dtype=torch.int64), SplitSettings())


def test_equal_words_have_equal_numbers_in_alphabetical_order() -> None:
    assert numbered(["b", "a", "c", "b"]).tolist() == [1, 0, 2, 1]
    assert numbered([]).dtype == torch.int64
