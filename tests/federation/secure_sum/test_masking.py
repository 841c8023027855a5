"""What the curious see of a sum, and what they do not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from hbdp_fed.federation.secure_sum import (
    FixedPoint,
    ReleasedShares,
    Share,
    masked_update,
    release_shares,
    safe_threshold,
)
from hbdp_fed.federation.secure_sum.masking import pairwise_masks, with_masks
from tests.federation.secure_sum.sums import HOSPITALS, enrolled, update


def uniform(words: torch.Tensor, grid: FixedPoint) -> bool:
    """By Kolmogorov and Smirnov on the numbers, and by chi-square on each of their low six bytes."""
    values = words.numpy()
    bytes_ = values.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :6]
    counts = [np.bincount(column, minlength=256) for column in bytes_.T]
    pvalues = [stats.chisquare(count).pvalue for count in counts]
    return min(stats.kstest(values / grid.modulus, "uniform").pvalue, *pvalues) > 1e-3


def test_what_one_hospital_sends_is_uniform_whatever_its_update() -> None:
    enrolment, keys = enrolled()
    grid = FixedPoint(bound=1.0, summands=10)
    shapes = {"w": (50_000,)}
    name = HOSPITALS[3]
    for weight in (0.0, 1e-6, 1.0):
        sent = masked_update(
            update(name, shapes=shapes), weight=weight, keys=keys[name], enrolment=enrolment, grid=grid
        )
        assert uniform(sent.words["w"], grid)
        plain = grid.encode(update(name, shapes=shapes).delta["w"] * weight)
        assert uniform((sent.words["w"] - plain) % grid.modulus, grid)
    # The test has teeth: without masks an update does not pass for uniform.
    assert not uniform(grid.encode(update(name, shapes=shapes).delta["w"]), grid)


def test_with_one_secret_of_a_hospital_its_update_stays_masked_and_with_both_it_lies_open() -> None:
    enrolment, keys = enrolled()
    grid = FixedPoint(bound=1.0, summands=10)
    name, shapes = HOSPITALS[3], {"w": (50_000,)}
    sent = masked_update(update(name, shapes=shapes), weight=1.0, keys=keys[name], enrolment=enrolment, grid=grid)
    plain = grid.encode(update(name, shapes=shapes).delta["w"])
    own = keys[name].own
    others = [other for other in HOSPITALS if other != name]
    pairwise = [(seed, -sign) for seed, sign in pairwise_masks(name, own.private_key, others, enrolment)]
    known = {
        "self seed": [(own.self_seed, -1)],
        "key": pairwise,
        "all but one pair": [(own.self_seed, -1), *pairwise[1:]],
    }
    for masks in known.values():
        left = with_masks(sent.words, masks, grid)["w"]
        assert uniform(left, grid)
        assert uniform((left - plain) % grid.modulus, grid)
    assert torch.equal(with_masks(sent.words, [(own.self_seed, -1), *pairwise], grid)["w"], plain)


def test_a_survivor_never_tells_both_secrets_of_anybody() -> None:
    enrolment, keys = enrolled()
    survivors = HOSPITALS[2:]
    answer = release_shares(keys[HOSPITALS[5]], enrolment, survivors)
    assert set(answer.self_seed) == set(survivors)
    assert set(answer.private_key) == set(HOSPITALS[:2])
    share = Share(x=1, y=1)
    with pytest.raises(ValueError, match="both secrets of a"):
        ReleasedShares("h", self_seed={"a": share, "b": share}, private_key={"a": share})


@pytest.mark.parametrize("count", range(2, 40))
def test_the_safe_threshold_keeps_both_secrets_apart_unless_a_third_help(count: int) -> None:
    threshold = safe_threshold(count)
    assert threshold <= count
    helpers = math.ceil(count / 3) - 1
    assert count + helpers < 2 * threshold


def test_other_seeds_give_other_secrets_and_the_same_seed_the_same() -> None:
    first, second, other = (enrolled(seed=seed) for seed in (0, 0, 1))
    assert first == second
    assert set(first[0].public_keys).isdisjoint(other[0].public_keys)
    assert len({own.own.self_seed for own in first[1].values()}) == len(HOSPITALS)
    assert "private_key" not in repr(first[1][HOSPITALS[0]].own)
    assert str(first[1][HOSPITALS[0]].held[HOSPITALS[1]].self_seed.y) not in repr(first[1])
