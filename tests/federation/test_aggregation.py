"""How one update is made of many: against NumPy, SciPy, Flower's own strategies and sums by hand."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, Krum, MultiKrum
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy import stats

from hbdp_fed.errors import SettingError
from hbdp_fed.federation import aggregation
from hbdp_fed.federation.aggregation import (
    AGGREGATIONS,
    AggregationSettings,
    RunningMean,
    average,
    check,
    combine,
    krum_order,
    mean_shares,
    squared_distances,
)
from hbdp_fed.federation.wire import to_arrays
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelUpdate, Weights

SHAPES = {"z": (3, 4), "a": (5,), "scalar": (), "empty": (0, 2)}
ROBUST = sorted(name for name, rule in AGGREGATIONS.items() if not rule.linear)


def updates(count: int, *, seed: int = 0, spread: float = 1.0) -> list[ModelUpdate]:
    draw = generator(seed, "updates")
    return [
        ModelUpdate(
            hospital=f"hospital-{number:02}",
            round=1,
            delta={
                name: torch.randn(shape, generator=draw, dtype=torch.float64) * spread for name, shape in SHAPES.items()
            },
            num_records=7 * number + 3,
        )
        for number in range(count)
    ]


def lines(values: Sequence[float]) -> list[ModelUpdate]:
    """Updates of one number each."""
    return [
        ModelUpdate(f"h{number}", 1, {"w": torch.tensor([value], dtype=torch.float64)}, num_records=1)
        for number, value in enumerate(values)
    ]


def stacked(given_updates: Sequence[ModelUpdate], name: str) -> np.ndarray:
    return np.stack([update.delta[name].numpy() for update in given_updates])


def flat(weights: Weights) -> torch.Tensor:
    return torch.cat([value.reshape(-1) for value in weights.values()])


def plain_average(given_updates: Sequence[ModelUpdate], weighting: str) -> Weights:
    """The sum as one writes it down, with everything at hand."""
    shares = mean_shares([update.num_records for update in given_updates], weighting)
    return {
        name: sum(
            (u.delta[name].double() * share for u, share in zip(given_updates[1:], shares[1:], strict=True)),
            start=given_updates[0].delta[name].double() * shares[0],
        )
        for name in given_updates[0].delta
    }


def shares_of(given_updates: Sequence[ModelUpdate], weighting: str) -> dict[str, float]:
    shares = mean_shares([update.num_records for update in given_updates], weighting)
    return {update.hospital: share for update, share in zip(given_updates, shares, strict=True)}


def combined(given_updates: Sequence[ModelUpdate], rule: AggregationSettings, weighting: str) -> Weights:
    return combine(given_updates, rule, shares_of(given_updates, weighting))


def by_flower(strategy: FedAvg, given_updates: Sequence[ModelUpdate]) -> Weights:
    """What Flower's strategy makes of the same updates, all of equal weight."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    replies = [
        Message(
            RecordDict({"arrays": to_arrays(update.delta), "metrics": MetricRecord({"num-examples": 1})}),
            reply_to=Message(RecordDict(), node, "train"),
        )
        for node, update in enumerate(given_updates, start=2)
    ]
    arrays, _ = strategy.aggregate_train(1, replies)
    assert isinstance(arrays, ArrayRecord)
    return {name: torch.from_numpy(np.array(array.numpy())) for name, array in arrays.items()}


# The mean.


@pytest.mark.parametrize("weighting", ["records", "equal"])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_mean_is_the_sum_that_one_writes_down_bit_for_bit(weighting: str, count: int) -> None:
    given_updates = updates(count, spread=1e-3)
    expected = plain_average(given_updates, weighting)
    for found in (
        average(given_updates, weighting),
        combined(given_updates, AggregationSettings(), weighting),
    ):
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_streamed_mean_keeps_nothing_and_changes_nothing() -> None:
    given_updates = updates(5)
    before = [flat(update.delta).clone() for update in given_updates]
    mean = RunningMean(shares_of(given_updates, "records"))
    for update in given_updates:
        mean.add(update)
    found = mean.result()
    assert torch.equal(flat(found), flat(plain_average(given_updates, "records")))
    assert all(torch.equal(flat(u.delta), old) for u, old in zip(given_updates, before, strict=True))
    kept = {value.data_ptr() for value in found.values() if value.numel()}
    assert kept.isdisjoint(v.data_ptr() for u in given_updates for v in u.delta.values() if v.numel())


def test_the_mean_takes_one_update_at_a_time() -> None:
    given_updates = updates(6)
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def stream() -> Iterator[ModelUpdate]:
        nonlocal most
        for number, update in enumerate(given_updates):
            delta = {"w": torch.full((10,), float(number), dtype=torch.float64)}
            alive.append(weakref.ref(delta["w"]))
            most = max(most, sum(reference() is not None for reference in alive))
            yield replace(update, delta=delta)

    combine(stream(), AggregationSettings(), shares_of(given_updates, "records"))
    assert most <= 3


def test_a_streamed_mean_takes_float32_without_rounding_the_product() -> None:
    value = torch.tensor([1 / 3], dtype=torch.float32)
    mean = RunningMean({"a": 0.1})
    mean.add(ModelUpdate("a", 1, {"w": value}, num_records=1))
    assert mean.result()["w"].item() == float(value) * 0.1


def test_whoever_did_not_answer_has_no_weight_in_the_mean() -> None:
    first, second, third = lines([1.0, 3.0, 100.0])
    mean = RunningMean({"h0": 0.25, "h1": 0.5, "h2": 0.25})
    mean.add(first)
    mean.add(second)
    assert mean.result()["w"].item() == pytest.approx((0.25 * 1 + 0.5 * 3) / 0.75, rel=1e-15)
    with pytest.raises(KeyError):
        mean.add(first)
    mean.add(third)
    assert mean.result()["w"].item() == 0.25 * 1 + 0.5 * 3 + 0.25 * 100
    with pytest.raises(ValueError, match="no hospital"):
        RunningMean({"h0": 1.0}).result()


# The robust rules.


@pytest.mark.parametrize("count", [3, 4, 9, 10])
def test_the_median_is_numpys(count: int) -> None:
    given_updates = updates(count)
    found = combined(given_updates, AggregationSettings("median"), "records")
    for name in SHAPES:
        np.testing.assert_allclose(found[name].numpy(), np.median(stacked(given_updates, name), axis=0), rtol=1e-15)


@pytest.mark.parametrize(("count", "trim"), [(3, 0.34), (5, 0.2), (10, 0.1), (10, 0.29), (11, 0.45), (4, 0.49)])
def test_the_trimmed_mean_is_scipys(count: int, trim: float) -> None:
    given_updates = updates(count)
    found = combined(given_updates, AggregationSettings("trimmed_mean", trim=trim), "records")
    for name in ("z", "a"):
        expected = stats.trim_mean(stacked(given_updates, name), trim, axis=0)
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-13)


def test_the_share_that_is_cut_is_rounded_down_and_not_twice() -> None:
    # 0.29 * 100 is 28.999999999999996, and 29 hospitals are meant.
    values = [*([1e6] * 29), *([1.0] * 42), *([-1e3] * 29)]
    assert combined(lines(values), AggregationSettings("trimmed_mean", trim=0.29), "equal")["w"] == 1.0


@examples(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=12),
    trim=st.sampled_from([0.34, 0.4, 0.45]),
)
def test_any_values_have_the_references_median_and_trimmed_mean(values: list[float], trim: float) -> None:
    given_updates = lines(values)
    median = combined(given_updates, AggregationSettings("median"), "equal")["w"].item()
    trimmed = combined(given_updates, AggregationSettings("trimmed_mean", trim=trim), "equal")["w"].item()
    assert median == pytest.approx(np.median(values), rel=1e-12, abs=1e-12)
    assert trimmed == pytest.approx(stats.trim_mean(values, trim), rel=1e-9, abs=1e-9)


def test_blocks_of_coordinates_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    given_updates = updates(6)
    rules = [AggregationSettings("median"), AggregationSettings("trimmed_mean"), AggregationSettings("krum")]
    whole = [combined(given_updates, rule, "equal") for rule in rules]
    distances = squared_distances(given_updates)
    # Five of the twelve and of the five coordinates at a time.
    monkeypatch.setattr(aggregation, "_BLOCK", 30)
    for rule, expected in zip(rules, whole, strict=True):
        found = combined(given_updates, rule, "equal")
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    torch.testing.assert_close(squared_distances(given_updates), distances, rtol=1e-13, atol=0)


def test_distances_keep_their_digits_where_updates_have_much_in_common() -> None:
    given_updates = lines([1e9, 1e9 + 1, 1e9 + 3])
    expected = torch.tensor([[0.0, 1.0, 9.0], [1.0, 0.0, 4.0], [9.0, 4.0, 0.0]], dtype=torch.float64)
    assert torch.equal(squared_distances(given_updates), expected)


def test_krum_by_hand() -> None:
    # n = 7, f = 2: three neighbours each. Squared distances, nearest first:
    #   0: 1, 4, 25        -> 30        5: 4, 9, 16  -> 29       50: 1849, ...
    #   1: 1, 1, 16        -> 18        7: 4, 25, 36 -> 65       60: 100, 2809, ...
    #   2: 1, 4, 9         -> 14
    given_updates = lines([0, 1, 2, 5, 7, 50, 60])
    assert krum_order(given_updates, byzantine=2)[:4] == [2, 1, 3, 0]
    assert combined(given_updates, AggregationSettings("krum", byzantine=2), "equal")["w"] == 2.0
    multi = combined(given_updates, AggregationSettings("multi_krum", byzantine=2), "equal")
    assert multi["w"].item() == pytest.approx((0 + 1 + 2 + 5 + 7) / 5)


@pytest.mark.parametrize(("count", "byzantine"), [(3, 0), (5, 1), (9, 3), (12, 2)])
def test_krum_is_what_every_sum_of_distances_says(count: int, byzantine: int) -> None:
    given_updates = updates(count, seed=count)
    vectors = [flat(update.delta).numpy() for update in given_updates]
    scores = []
    for own, vector in enumerate(vectors):
        others = sorted(float(np.sum((vector - w) ** 2)) for k, w in enumerate(vectors) if k != own)
        scores.append(sum(others[: count - byzantine - 2]))
    order = krum_order(given_updates, byzantine=byzantine)
    assert [scores[k] for k in order] == pytest.approx(sorted(scores))
    found = combined(given_updates, AggregationSettings("multi_krum", byzantine=byzantine), "records")
    expected = np.mean([vectors[k] for k in order[: count - byzantine]], axis=0)
    np.testing.assert_allclose(flat(found).numpy(), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("rule", "strategy"),
    [
        (AggregationSettings("mean"), FedAvg()),
        (AggregationSettings("median"), FedMedian()),
        (AggregationSettings("trimmed_mean", trim=0.25), FedTrimmedAvg(beta=0.25)),
        (AggregationSettings("krum", byzantine=2), Krum(num_malicious_nodes=2)),
        (AggregationSettings("multi_krum", byzantine=2), MultiKrum(num_malicious_nodes=2, num_nodes_to_select=7)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_flowers_strategies_agree(rule: AggregationSettings, strategy: FedAvg, seed: int) -> None:
    given_updates = updates(9, seed=seed)
    found = combined(given_updates, rule, "equal")
    expected = by_flower(strategy, given_updates)
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.double(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ROBUST)
def test_one_liar_moves_the_mean_and_not_a_robust_rule(name: str) -> None:
    honest = updates(7)
    liar = ModelUpdate("liar", 1, {key: torch.full(shape, 1e9).double() for key, shape in SHAPES.items()}, 10**9)
    everybody = [*honest[:3], liar, *honest[3:]]
    assert flat(combined(everybody, AggregationSettings(), "equal")).abs().max() > 1e8
    found = combined(everybody, AggregationSettings(name), "records")
    for key, value in found.items():
        if value.numel():
            values = torch.from_numpy(stacked(honest, key))
            assert bool(((values.amin(0) <= value) & (value <= values.amax(0))).all())


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
def test_the_order_of_the_hospitals_changes_nothing_but_the_rounding(name: str) -> None:
    given_updates = updates(8)
    expected = flat(combined(given_updates, AggregationSettings(name), "records"))
    for seed in range(5):
        order = torch.randperm(8, generator=generator(seed, "order")).tolist()
        found = combined([given_updates[k] for k in order], AggregationSettings(name), "records")
        torch.testing.assert_close(flat(found), expected, rtol=1e-12, atol=1e-14)


def test_updates_of_equal_score_stand_in_the_order_of_their_names() -> None:
    given_updates = lines([0.0, 1.0, 5.0])  # the first two are each other's nearest
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        shuffled = [given_updates[k] for k in order]
        assert shuffled[krum_order(shuffled, byzantine=0)[0]].hospital == "h0"


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
def test_results_are_float64_of_the_same_shapes_and_their_own_memory(name: str) -> None:
    given_updates = updates(5)
    floats = [
        ModelUpdate(u.hospital, u.round, {key: value.float() for key, value in u.delta.items()}, u.num_records)
        for u in given_updates
    ]
    for some in (given_updates, floats):
        found = combined(some, AggregationSettings(name), "records")
        assert {key: tuple(value.shape) for key, value in found.items()} == SHAPES
        assert {value.dtype for value in found.values()} == {torch.float64}
        before = [flat(update.delta).clone() for update in some]
        for value in found.values():
            value.add_(1)
        assert all(torch.equal(flat(update.delta), old) for update, old in zip(some, before, strict=True))


# What is refused.


@pytest.mark.parametrize(
    ("asked", "hospitals", "key", "words"),
    [
        (AggregationSettings("mode"), 5, "federation.aggregation", "krum, mean, median, multi_krum, trimmed_mean"),
        (AggregationSettings("mean"), 0, "federation.aggregation", "at least 1 hospital"),
        (
            AggregationSettings("median"),
            2,
            "federation.aggregation",
            "at least 3 hospitals to outvote one, there are 2",
        ),
        (AggregationSettings("trimmed_mean", trim=0.5), 9, "federation.trim", "between 0 and 0.5, got 0.5"),
        (AggregationSettings("trimmed_mean", trim=0.0), 9, "federation.trim", "between 0 and 0.5, got 0.0"),
        (AggregationSettings("trimmed_mean", trim=float("nan")), 9, "federation.trim", "between 0 and 0.5"),
        (
            AggregationSettings("trimmed_mean", trim=0.2),
            3,
            "federation.trim",
            "cuts off nobody; choose at least 0.3334",
        ),
        (AggregationSettings("krum"), 2, "federation.aggregation", "at least 3 hospitals"),
        (AggregationSettings("krum"), 4, "federation.byzantine", "with 4 hospitals choose from 0 to 0, got 1"),
        (AggregationSettings("multi_krum", byzantine=4), 10, "federation.byzantine", "choose from 0 to 3, got 4"),
        (AggregationSettings("krum", byzantine=-1), 10, "federation.byzantine", "choose from 0 to 3, got -1"),
    ],
)
def test_what_would_be_undefined_or_without_effect_is_refused(
    asked: AggregationSettings, hospitals: int, key: str, words: str
) -> None:
    with pytest.raises(SettingError) as refused:
        check(asked, hospitals)
    assert refused.value.key == key
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("asked", "hospitals"),
    [
        (AggregationSettings("mean"), 1),
        (AggregationSettings("median"), 3),
        (AggregationSettings("trimmed_mean", trim=0.3334), 3),
        (AggregationSettings("trimmed_mean"), 5),
        (AggregationSettings("krum"), 5),
        (AggregationSettings("krum", byzantine=0), 3),
        (AggregationSettings("multi_krum", byzantine=3), 9),
    ],
)
def test_the_least_that_is_accepted_works(asked: AggregationSettings, hospitals: int) -> None:
    check(asked, hospitals)
    combined(updates(hospitals), asked, "equal")
