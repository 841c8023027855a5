"""Intervals cover what they say, groups stay whole, and pairs are compared on the same resamples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hbdp_fed.training import bootstrap
from hbdp_fed.training.bootstrap import Difference, confidence_intervals, paired_difference, resampling_weights
from hbdp_fed.training.tasks import TASKS, Evidence, figures

BINARY, SEGMENTATION = TASKS["binary"], TASKS["segmentation"]
HALF = {"threshold": 0.5}


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def evidence(seed: int, records: int = 80, skill: float = 0.3) -> Evidence:
    """Labels of a fixed stream, so that two models can be compared, and scores of the seed's."""
    labels = np.random.default_rng(0).integers(0, 2, records)
    return {"labels": labels, "scores": np.random.default_rng(seed + 1).random(records) * (1 - skill) + labels * skill}


# Resamples.


def test_a_group_is_in_a_resample_as_a_whole() -> None:
    groups = np.array([7, 3, 7, 9, 3, 7])
    (weights,) = resampling_weights(groups, 50, stream())
    assert weights.shape == (50, 6)
    assert weights.dtype == np.float64
    for group in (3, 7, 9):
        own = weights[:, groups == group]
        assert (own == own[:, :1]).all()
    # As many groups as there are, whatever their size.
    np.testing.assert_array_equal(weights[:, 0] + weights[:, 1] + weights[:, 3], np.full(50, 3.0))


def test_every_group_is_drawn_equally_often() -> None:
    (weights,) = resampling_weights(np.arange(10), 20_000, stream())
    # A count is binomial(10, 1/10): mean 1, variance 0.9.
    assert np.abs(weights.mean(axis=0) - 1).max() < 5 * np.sqrt(0.9 / 20_000)
    assert weights.var(axis=0) == pytest.approx(np.full(10, 0.9), rel=0.05)


def test_many_resamples_come_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_ENTRIES_A_CHUNK", 100)
    chunks = list(resampling_weights(np.arange(30), 8, stream()))
    assert [chunk.shape for chunk in chunks] == [(3, 30), (3, 30), (2, 30)]
    assert len(np.unique(np.concatenate(chunks), axis=0)) == 8
    found = confidence_intervals(BINARY, evidence(0), HALF, None, replicates=50, generator=stream())
    assert all(interval is not None for interval in found.values())


# Intervals.


def test_the_same_seed_gives_the_same_interval_around_the_figure() -> None:
    def found(seed: int) -> dict[str, bootstrap.Interval | None]:
        return confidence_intervals(BINARY, evidence(0), HALF, None, replicates=300, generator=stream(seed))

    first = found(0)
    assert first == found(0)
    assert first != found(1)
    point = figures(BINARY, evidence(0), HALF)
    assert tuple(first) == BINARY.metrics
    for name in ("mcc", "auroc", "accuracy", "balanced_accuracy"):
        low, high = first[name]
        assert low < point[name] < high


def test_an_interval_of_a_mean_is_the_textbooks() -> None:
    overlap = np.random.default_rng(0).random((400, 1))
    found = confidence_intervals(SEGMENTATION, {"dice": overlap}, {}, None, replicates=4000, generator=stream())
    half = 1.959964 * overlap.std() / np.sqrt(400)
    expected = (overlap.mean() - half, overlap.mean() + half)
    assert found["dice"] == found["dice_1"] == pytest.approx(expected, abs=0.1 * half)


def test_a_wider_level_contains_a_narrower_one() -> None:
    narrow, wide = (
        confidence_intervals(BINARY, evidence(0), HALF, None, replicates=300, generator=stream(), level=level)["auroc"]
        for level in (0.5, 0.99)
    )
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_intervals_of_groups_cover_and_those_of_records_do_not() -> None:
    """Fifty patients with eight records each that are decided alike: all that is known is fifty decisions."""
    accuracy_only = replace(BINARY, statistics=lambda *given: {"accuracy": BINARY.statistics(*given)["accuracy"]})
    rng, generator, truth = np.random.default_rng(0), stream(), 0.7
    groups = np.repeat(np.arange(50), 8)
    covered = {"groups": 0, "records": 0}
    for _ in range(200):
        labels = np.repeat(rng.integers(0, 2, 50), 8)
        right = np.repeat(rng.random(50) < truth, 8)
        given = {"labels": labels, "scores": np.where(right, labels, 1 - labels).astype(np.float64)}
        for unit, belonging in (("groups", groups), ("records", None)):
            low, high = confidence_intervals(
                accuracy_only, given, HALF, belonging, replicates=200, generator=generator
            )["accuracy"]
            covered[unit] += low <= truth <= high
    # 95 % and, as the interval of records is sqrt(8) times too short, 51 %; within four standard errors.
    assert 0.88 < covered["groups"] / 200 < 0.995
    assert covered["records"] / 200 < 0.66


def test_a_figure_has_an_interval_where_it_exists_in_most_resamples() -> None:
    # One of 100 records is of class 1, and 63 % of all resamples hold it.
    rare = {"labels": np.eye(1, 100, dtype=np.int64)[0], "scores": np.linspace(0, 1, 100)}
    found = confidence_intervals(BINARY, rare, HALF, None, replicates=200, generator=stream())
    assert found["auroc"] == (0.0, pytest.approx(0.0, abs=0.05))


def test_a_figure_has_no_interval_where_it_exists_in_less_than_half_of_the_resamples() -> None:
    # Each of two patients has one class, so half of all resamples hold both: sometimes a little more, sometimes less.
    two, groups = {"labels": np.array([0, 0, 1]), "scores": np.array([0.1, 0.2, 0.9])}, np.array([0, 0, 1])
    seldom = []
    for seed in range(20):
        (weights,) = resampling_weights(groups, 51, stream(seed))
        seldom.append(float(((weights[:, 0] > 0) & (weights[:, 2] > 0)).mean()) < 0.5)
        found = confidence_intervals(BINARY, two, HALF, groups, replicates=51, generator=stream(seed))
        assert (found["auroc"] is None) == seldom[-1]
        assert found["accuracy"] is not None
    assert 0 < sum(seldom) < 20


def test_one_group_has_no_interval() -> None:
    found = confidence_intervals(
        BINARY, evidence(0), HALF, np.zeros(80, dtype=np.int64), replicates=20, generator=stream()
    )
    assert found == dict.fromkeys(BINARY.metrics)
    apart = paired_difference(
        BINARY, [(evidence(0), HALF)], [(evidence(1), HALF)], np.zeros(80, dtype=np.int64), replicates=20,
        generator=stream(),
    )  # fmt: skip
    assert apart["auroc"].value is not None
    assert (apart["auroc"].low, apart["auroc"].high) == (None, None)


# Differences.


def test_a_side_does_not_differ_from_itself() -> None:
    side = [(evidence(0), HALF), (evidence(1), HALF)]
    found = paired_difference(BINARY, side, side, None, replicates=100, generator=stream())
    assert found == dict.fromkeys(BINARY.metrics, Difference(0.0, 0.0, 0.0))


def test_a_difference_is_the_second_sides_mean_less_the_firsts() -> None:
    first = [(evidence(seed), HALF) for seed in (0, 1, 2)]
    second = [(evidence(seed, skill=0.5), HALF) for seed in (3, 4)]

    def mean(side: list, name: str) -> float:
        return float(np.mean([figures(BINARY, *one)[name] for one in side]))

    found = paired_difference(BINARY, first, second, None, replicates=200, generator=stream())
    for name in BINARY.metrics:
        assert found[name].value == pytest.approx(mean(second, name) - mean(first, name), rel=1e-12)
    assert 0 < found["auroc"].low < found["auroc"].value < found["auroc"].high
    turned = paired_difference(BINARY, second, first, None, replicates=200, generator=stream())
    assert turned["auroc"].low == pytest.approx(-found["auroc"].high, rel=1e-12)


def test_pairing_takes_out_what_both_sides_share() -> None:
    """A model that is a little better on every record is surely better, though each side's own interval is wide."""
    overlap = np.random.default_rng(0).random((60, 1)) * 0.9
    first, second = {"dice": overlap}, {"dice": overlap + 0.01}
    found = paired_difference(SEGMENTATION, [(first, {})], [(second, {})], None, replicates=200, generator=stream())
    assert found["dice"] == Difference(*[pytest.approx(0.01, rel=1e-9)] * 3)
    low, high = confidence_intervals(SEGMENTATION, first, {}, None, replicates=200, generator=stream())["dice"]
    assert high - low > 0.1


def test_only_figures_that_both_sides_have_are_compared() -> None:
    overlap = np.random.default_rng(0).random((9, 1))
    quick, thorough = [({"dice": overlap}, {})], [({"dice": overlap, "hd95": overlap}, {})]
    for sides in ((quick, thorough), (thorough, quick)):
        found = paired_difference(SEGMENTATION, *sides, None, replicates=20, generator=stream())
        assert set(found) == {"dice", "dice_1"}


def test_unusable_arguments_are_refused() -> None:
    good = (evidence(0), HALF)

    def compare(first: list, second: list, groups: np.ndarray | None = None) -> None:
        paired_difference(BINARY, first, second, groups, replicates=10, generator=stream())

    with pytest.raises(ValueError, match="at least one model"):
        compare([good], [])
    with pytest.raises(ValueError, match="judged on the same records"):
        compare([good], [(evidence(0, records=79), HALF)])
    with pytest.raises(ValueError, match="judged on the same records"):
        compare([good], [({**evidence(0), "labels": 1 - evidence(0)["labels"]}, HALF)])
    with pytest.raises(ValueError, match="one entry for each of 80 records"):
        compare([good], [good], np.zeros(3, dtype=np.int64))
    for wrong in ({"replicates": 0}, {"level": 1.0}, {"level": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            confidence_intervals(BINARY, *good, None, **({"replicates": 10, "generator": stream()} | wrong))
