"""How records are dealt: properties that hold for every federation, hand computations and Dirichlet moments."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hbdp_fed.data.partition import (
    Partition,
    PartitionSettings,
    assign,
    by_owner,
    deal_counts,
    draw_proportions,
    hospital_names,
)
from hbdp_fed.errors import SettingError

quick = settings(deadline=None, max_examples=60)

SETTINGS = st.builds(
    PartitionSettings,
    scheme=st.sampled_from(["iid", "dirichlet"]),
    alpha=st.floats(0.2, 100),
    sizes=st.sampled_from(["equal", "power_law"]),
    exponent=st.floats(0, 1.2),
)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@quick
@given(SETTINGS, st.integers(1, 8), st.lists(st.integers(30, 200), min_size=1, max_size=4), st.integers(0, 2**40))
def test_every_record_goes_to_exactly_one_hospital_and_every_hospital_has_one(
    scheme: PartitionSettings, clients: int, class_sizes: list[int], seed: int
) -> None:
    sizes = torch.tensor(class_sizes)
    proportions = draw_proportions(scheme, clients=clients, class_sizes=sizes, generator=stream(seed))
    assert proportions.shape == (len(class_sizes), clients)
    assert torch.allclose(proportions.sum(dim=1), torch.ones(len(class_sizes), dtype=torch.float64))
    labels = torch.arange(len(class_sizes)).repeat_interleave(sizes)[torch.randperm(sum(class_sizes))]
    partition = assign(labels, proportions, stream(seed))
    assert torch.cat(partition.indices).sort().values.tolist() == list(range(len(labels)))
    assert min(partition.sizes) >= 1
    dealt = torch.stack([labels[own].bincount(minlength=len(class_sizes)) for own in partition.indices], dim=1)
    assert torch.equal(dealt, deal_counts(sizes, proportions))


@quick
@given(
    st.lists(st.integers(0, 500), min_size=1, max_size=5),
    st.lists(st.lists(st.floats(1e-6, 1), min_size=6, max_size=6), min_size=5, max_size=5),
)
def test_each_count_is_its_quota_rounded_down_or_up(class_sizes: list[int], weights: list[list[float]]) -> None:
    rows = torch.tensor(weights[: len(class_sizes)], dtype=torch.float64)
    proportions = rows / rows.sum(dim=1, keepdim=True)
    sizes = torch.tensor(class_sizes)
    counts = deal_counts(sizes, proportions)
    assert counts.sum(dim=1).tolist() == class_sizes
    assert ((counts - sizes[:, None] * proportions).abs() < 1 + 1e-6).all()


@quick
@given(st.integers(1, 12), st.lists(st.integers(0, 300), min_size=1, max_size=6))
def test_equal_iid_hospitals_differ_by_at_most_one_record(clients: int, class_sizes: list[int]) -> None:
    proportions = torch.full((len(class_sizes), clients), 1 / clients, dtype=torch.float64)
    totals = deal_counts(torch.tensor(class_sizes), proportions).sum(dim=0)
    assert totals.max() - totals.min() <= 1


def test_largest_remainders_by_hand() -> None:
    # Class 0: quotas 3.5, 2.1, 1.4 leave one record, to the 0.5. Class 1: quotas 1.5, 0.9, 0.6 leave two; the first
    # hospital was given half a record too much before, so its 0.5 counts as 0, and the other two come first.
    proportions = torch.tensor([[0.5, 0.3, 0.2]] * 2, dtype=torch.float64)
    assert deal_counts(torch.tensor([7, 3]), proportions).tolist() == [[4, 2, 1], [1, 1, 1]]


def test_whole_quotas_are_dealt_as_they_are() -> None:
    proportions = torch.tensor([[0.1, 0.2, 0.7]] * 3, dtype=torch.float64)
    assert deal_counts(torch.tensor([10, 30, 0]), proportions).tolist() == [[1, 2, 7], [3, 6, 21], [0, 0, 0]]


def test_iid_gives_every_hospital_the_same_mix() -> None:
    proportions = draw_proportions(
        PartitionSettings(sizes="power_law", exponent=1.0),
        clients=3,
        class_sizes=torch.tensor([50, 50]),
        generator=stream(),
    )
    expected = torch.tensor([6 / 11, 3 / 11, 2 / 11], dtype=torch.float64)
    assert torch.allclose(proportions, expected.expand(2, 3))


@pytest.mark.parametrize(("sizes", "shares"), [("equal", [1 / 3] * 3), ("power_law", [6 / 11, 3 / 11, 2 / 11])])
def test_dirichlet_has_the_moments_of_the_distribution(sizes: str, shares: list[float]) -> None:
    # Dir(a) with a0 = sum a has mean a / a0 and variance m (1 - m) / (a0 + 1).
    scheme, rows = PartitionSettings(scheme="dirichlet", alpha=2.0, sizes=sizes), 4000
    drawn = draw_proportions(
        scheme, clients=3, class_sizes=torch.full((rows,), 10), generator=stream(), min_records=1
    ).numpy()
    mean = np.array(shares)
    variance = mean * (1 - mean) / (2.0 * 3 + 1)
    assert drawn.mean(axis=0) == pytest.approx(mean, abs=5 * math.sqrt(variance.max() / rows))
    assert drawn.var(axis=0) == pytest.approx(variance, rel=0.1)


def test_smaller_alpha_skews_labels_more() -> None:
    def skew(alpha: float) -> float:
        drawn = [
            draw_proportions(
                PartitionSettings(scheme="dirichlet", alpha=alpha),
                clients=4,
                class_sizes=torch.tensor([500, 500]),
                generator=stream(seed),
            )
            for seed in range(20)
        ]
        return float(torch.stack(drawn).std())

    assert skew(0.2) > 2 * skew(10.0) > 10 * skew(10_000.0)


def test_the_same_generator_gives_the_same_partition_and_another_one_does_not() -> None:
    labels = torch.arange(200) % 2

    def deal(seed: int) -> Partition:
        scheme = PartitionSettings(scheme="dirichlet")
        proportions = draw_proportions(
            scheme, clients=3, class_sizes=labels.bincount(), generator=stream(seed), min_records=5
        )
        return assign(labels, proportions, stream(seed))

    def same(a: Partition, b: Partition) -> bool:
        return a.sizes == b.sizes and all(torch.equal(x, y) for x, y in zip(a.indices, b.indices, strict=True))

    assert same(deal(1), deal(1))
    assert not same(deal(1), deal(2))


def test_a_split_may_leave_a_hospital_without_records() -> None:
    proportions = torch.tensor([[0.9, 0.1], [0.9, 0.1]], dtype=torch.float64)
    partition = assign(torch.tensor([0, 1]), proportions, stream())
    assert partition.sizes == (2, 0)
    assert partition.indices[1].dtype == torch.int64


def test_owners_are_the_partition_the_other_way_round() -> None:
    partition = Partition(indices=(torch.tensor([1, 4]), torch.tensor([0, 2, 3])))
    assert partition.owners().tolist() == [1, 0, 1, 1, 0]


@given(st.lists(st.integers(0, 3), max_size=20))
def test_a_partition_by_owner_has_these_owners(owners: list[int]) -> None:
    partition = by_owner(torch.tensor(owners, dtype=torch.int64), 4)
    assert len(partition.indices) == 4
    assert partition.owners().tolist() == owners
    assert all(own.tolist() == sorted(own.tolist()) for own in partition.indices)


def test_patients_are_dealt_as_a_whole_for_the_class_of_their_first_record() -> None:
    # Patients 5 and 9 begin with class 0, patients 2 and 7 with class 1; later records may be of the other class.
    groups = torch.tensor([9, 2, 9, 5, 7, 2, 5, 5])
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 1, 1])
    proportions = torch.full((2, 2), 0.5, dtype=torch.float64)
    for seed in range(10):
        owners = assign(labels, proportions, stream(seed), groups=groups).owners()
        owner_of = dict(zip(groups.tolist(), owners.tolist(), strict=True))
        assert owners.tolist() == [owner_of[group] for group in groups.tolist()]
        assert owner_of[5] != owner_of[9]
        assert owner_of[2] != owner_of[7]


def test_which_records_of_a_class_a_hospital_gets_is_random() -> None:
    proportions = torch.full((1, 2), 0.5, dtype=torch.float64)
    labels = torch.zeros(1000, dtype=torch.int64)
    first = assign(labels, proportions, stream()).indices[0]
    # The mean of 500 of 0..999 drawn without replacement: 499.5, with standard deviation about 9.1.
    assert float(first.double().mean()) == pytest.approx(499.5, abs=46)
    assert 200 < int((first < 500).sum()) < 300


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"scheme": "iidd"}, "partition.scheme"),
        ({"sizes": "huge"}, "partition.sizes"),
        ({"alpha": 0.0}, "partition.alpha"),
        ({"alpha": -1.0}, "partition.alpha"),
        ({"alpha": math.inf}, "partition.alpha"),
        ({"alpha": "small"}, "partition.alpha"),
        ({"exponent": -0.1}, "partition.exponent"),
        ({"exponent": math.nan}, "partition.exponent"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_by_name(values: dict[str, Any], key: str) -> None:
    with pytest.raises(SettingError) as caught:
        PartitionSettings(**values)
    assert caught.value.key == key


def test_natural_is_a_scheme_that_is_named_with_the_others() -> None:
    assert PartitionSettings(scheme="natural", column="source").column == "source"
    with pytest.raises(SettingError, match="choose one of: dirichlet, iid, natural"):
        PartitionSettings(scheme="by hand")


def draw(scheme: PartitionSettings, clients: Any, class_sizes: Tensor, min_records: int = 1) -> Tensor:
    return draw_proportions(
        scheme, clients=clients, class_sizes=class_sizes, generator=stream(), min_records=min_records
    )


def test_more_hospitals_than_records_is_refused_with_both_numbers() -> None:
    with pytest.raises(SettingError, match=r"^clients: 11 hospitals .* there are 10") as caught:
        draw(PartitionSettings(), 11, torch.tensor([5, 5]))
    assert caught.value.key == "clients"


@pytest.mark.parametrize("clients", [0, -1, 2.0])
def test_an_impossible_number_of_hospitals_is_refused(clients: Any) -> None:
    with pytest.raises(SettingError, match=r"^clients: must be an integer of at least 1"):
        draw(PartitionSettings(), clients, torch.tensor([5, 5]))


def test_as_many_hospitals_as_records_get_one_each() -> None:
    proportions = draw(PartitionSettings(), 10, torch.tensor([7, 3]))
    assert deal_counts(torch.tensor([7, 3]), proportions).sum(dim=0).tolist() == [1] * 10


def test_hopeless_settings_end_with_an_error_that_names_them() -> None:
    with pytest.raises(SettingError, match=r"each of 20 hospitals at least 1 of 100 records") as caught:
        draw(PartitionSettings(scheme="dirichlet", alpha=1e-3), 20, torch.tensor([50, 50]))
    assert caught.value.key == "partition.alpha"
    with pytest.raises(SettingError, match="too steep") as caught:
        draw(PartitionSettings(sizes="power_law", exponent=6.0), 5, torch.tensor([50, 50]))
    assert caught.value.key == "partition.exponent"


def test_a_label_without_proportions_is_refused() -> None:
    with pytest.raises(ValueError, match="3 classes"):
        assign(torch.tensor([0, 1, 2]), torch.full((2, 2), 0.5, dtype=torch.float64), stream())


def test_names_sort_as_numbers_do() -> None:
    assert hospital_names(3) == ("hospital-01", "hospital-02", "hospital-03")
    names = hospital_names(120)
    assert names[0] == "hospital-001"
    assert names[-1] == "hospital-120"
    assert list(names) == sorted(set(names))
