"""Hospitals over a data set: those that the data names, patients who stay whole, and every task's own strata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hbdp_fed.data.contract import ImageDataset, Records
from hbdp_fed.data.layout import Layout, lay_out
from hbdp_fed.data.partition import PartitionSettings, assign, deal_counts, draw_proportions
from hbdp_fed.errors import SettingError
from hbdp_fed.seeding import generator

SPLITS = ("train", "val", "test")
NATURAL = PartitionSettings(scheme="natural", column="source")
SOURCES = ("vidir_modern", "rosendahl", "Vienna dias")


def make_records(labels: Tensor, groups: Tensor | None = None, **attributes: Sequence[str]) -> Records:
    return Records(
        images=torch.zeros((len(labels), 1, 1, 1)),
        labels=labels,
        groups=groups,
        attributes={name: np.asarray(words) for name, words in attributes.items()},
    )


def make_dataset(train: Records, val: Records, test: Records, task: str = "multiclass") -> ImageDataset:
    return ImageDataset("any", task, ("a", "b", "c"), train=train, val=val, test=test)


def records_of(layout: Layout, dataset: ImageDataset) -> dict[str, Records]:
    """The splits, after a check that each of their records is dealt once."""
    found = {}
    assert set(layout.parts) == set(SPLITS)
    for split in SPLITS:
        records: Records = getattr(dataset, split)
        indices = layout.parts[split].indices
        assert len(indices) == len(layout.names)
        assert torch.cat(indices).sort().values.tolist() == list(range(len(records)))
        found[split] = records
    return found


# Hospitals that the data names.


@pytest.fixture
def sourced() -> ImageDataset:
    def draw(count: int) -> Records:
        rng = np.random.default_rng(count)
        words = rng.choice(SOURCES, count, p=[0.6, 0.3, 0.1]).tolist()
        return make_records(torch.from_numpy(rng.integers(0, 3, count)), source=words, sex=["female"] * count)

    return make_dataset(draw(100), draw(40), draw(61))


def test_every_record_is_at_its_sources_hospital_in_all_splits(sourced: ImageDataset) -> None:
    layout = lay_out(sourced, NATURAL, clients=3, seed=0)
    assert layout.names == ("Vienna_dias", "rosendahl", "vidir_modern")
    hospital_of = dict(zip(layout.names, ("Vienna dias", "rosendahl", "vidir_modern"), strict=True))
    for split, records in records_of(layout, sourced).items():
        for name, own in zip(layout.names, layout.parts[split].indices, strict=True):
            assert own.dtype == torch.int64
            assert own.tolist() == sorted(own.tolist())
            assert set(records.attributes["source"][own.numpy()].tolist()) <= {hospital_of[name]}


def test_named_hospitals_do_not_depend_on_the_seed(sourced: ImageDataset) -> None:
    first, second = (lay_out(sourced, NATURAL, clients=3, seed=seed) for seed in (0, 1))
    for split in SPLITS:
        assert torch.equal(first.parts[split].owners(), second.parts[split].owners())


def test_a_named_hospital_may_have_no_record_to_be_judged_on(sourced: ImageDataset) -> None:
    only = make_records(torch.tensor([0, 1]), source=["rosendahl", "rosendahl"])
    layout = lay_out(replace(sourced, val=only), NATURAL, clients=3, seed=0)
    assert layout.parts["val"].sizes == (0, 2, 0)


def test_a_patient_of_two_named_hospitals_is_known_to_both() -> None:
    records = make_records(torch.zeros(4, dtype=torch.int64), torch.tensor([7, 7, 8, 8]), source=["a", "b", "a", "a"])
    layout = lay_out(make_dataset(records, records, records), NATURAL, clients=2, seed=0)
    assert layout.parts["train"].owners().tolist() == [0, 1, 0, 0]


def test_another_number_of_hospitals_than_the_column_names_is_refused_with_the_right_one(sourced: ImageDataset) -> None:
    with pytest.raises(SettingError, match=r"'source' names 3 hospitals \(Vienna dias, .*\): set clients=3$") as caught:
        lay_out(sourced, NATURAL, clients=4, seed=0)
    assert caught.value.key == "clients"
    crowd = make_records(torch.zeros(30, dtype=torch.int64), source=[f"{number:02d}" for number in range(30)])
    with pytest.raises(SettingError, match=r"names 30 hospitals \(00, .*, 09, \.\.\.\): set clients=30$"):
        lay_out(make_dataset(crowd, crowd, crowd), NATURAL, clients=4, seed=0)


def test_an_unknown_column_is_refused_with_the_ones_that_are_there(sourced: ImageDataset) -> None:
    for column, message in (("scource", "'scource' is not known; choose one of: sex, source"), (None, ": sex, source")):
        with pytest.raises(SettingError, match=message) as caught:
            lay_out(sourced, replace(NATURAL, column=column), clients=3, seed=0)
        assert caught.value.key == "partition.column"


def test_a_data_set_without_columns_has_no_named_hospitals() -> None:
    plain = make_records(torch.arange(9) % 3)
    with pytest.raises(SettingError, match="has no column that names a hospital; take another scheme") as caught:
        lay_out(make_dataset(plain, plain, plain), NATURAL, clients=3, seed=0)
    assert caught.value.key == "partition.scheme"


def test_a_hospital_without_training_records_is_refused(sourced: ImageDataset) -> None:
    stranger = make_records(torch.tensor([0]), source=["elsewhere"])
    with pytest.raises(SettingError, match="elsewhere of 'source' has no training record, but is in test"):
        lay_out(replace(sourced, test=stranger), NATURAL, clients=3, seed=0)


def test_a_named_hospital_with_too_few_training_records_is_refused(sourced: ImageDataset) -> None:
    smallest = int((sourced.train.attributes["source"] == "Vienna dias").sum())
    lay_out(sourced, NATURAL, clients=3, seed=0, min_records=smallest)
    with pytest.raises(
        SettingError, match=rf"'Vienna dias' .* {smallest} training records, fewer than {smallest + 1}$"
    ):
        lay_out(sourced, NATURAL, clients=3, seed=0, min_records=smallest + 1)


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (("", "x"), ("unnamed", "x")),
        (("..", "x"), ("unnamed", "x")),
        (("../etc", "a/b"), ("_etc", "a_b")),
        (("St. Anna (Wien)", "Zürich"), ("St._Anna_Wien_", "Zürich")),
    ],
)
def test_every_named_hospital_can_have_a_folder_of_its_own(sources: tuple[str, str], names: tuple[str, str]) -> None:
    records = make_records(torch.tensor([0, 1]), source=sources)
    assert lay_out(make_dataset(records, records, records), NATURAL, clients=2, seed=0).names == names


@pytest.mark.parametrize("sources", [("a b", "a_b"), ("Wien", "wien"), ("", "unnamed")])
def test_hospitals_that_would_share_a_folder_are_refused(sources: tuple[str, str]) -> None:
    records = make_records(torch.tensor([0, 1]), source=sources)
    with pytest.raises(SettingError, match="differ in punctuation or case alone") as caught:
        lay_out(make_dataset(records, records, records), NATURAL, clients=2, seed=0)
    assert caught.value.key == "partition.column"


# Hospitals by a draw.

DRAWN = st.builds(
    PartitionSettings,
    scheme=st.sampled_from(["iid", "dirichlet"]),
    alpha=st.floats(0.5, 100),
    sizes=st.sampled_from(["equal", "power_law"]),
    exponent=st.floats(0, 1.2),
)


@st.composite
def patients(draw: st.DrawFn, task: str = "multiclass") -> ImageDataset:
    """Splits of patients with one to five records in random order; a patient's labels need not agree."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def split(smallest: int) -> Records:
        count = draw(st.integers(smallest, 60))
        groups = rng.permutation(np.repeat(rng.choice(10_000, count, replace=False), rng.integers(1, 6, count)))
        shape = {"multiclass": (len(groups),), "multilabel": (len(groups), 3), "segmentation": (len(groups), 2, 2)}[
            task
        ]
        return make_records(torch.from_numpy(rng.integers(0, 2, shape)), torch.from_numpy(groups).long())

    return make_dataset(split(30), split(1), split(1), task)


@settings(max_examples=40)
@given(st.sampled_from(["multiclass", "multilabel", "segmentation"]), st.data(), DRAWN, st.integers(1, 6))
def test_no_patient_is_divided_between_hospitals(task: str, data: Any, drawn: PartitionSettings, clients: int) -> None:
    dataset = data.draw(patients(task))
    layout = lay_out(dataset, drawn, clients=clients, seed=3)
    assert layout.names == tuple(f"hospital-{number:02d}" for number in range(1, clients + 1))
    for split, records in records_of(layout, dataset).items():
        assert records.groups is not None
        at = [set(records.groups[own].tolist()) for own in layout.parts[split].indices]
        assert sum(map(len, at)) == len(set.union(*at))
        assert split != "train" or min(map(len, at)) >= 1


@settings(max_examples=40)
@given(patients(), st.integers(1, 6))
def test_equal_hospitals_differ_by_at_most_one_patient_of_each_class(dataset: ImageDataset, clients: int) -> None:
    layout = lay_out(dataset, PartitionSettings(), clients=clients, seed=1)
    for split, records in records_of(layout, dataset).items():
        assert records.groups is not None
        # A patient counts for the class of the first record.
        class_of: dict[int, int] = {}
        for group, label in zip(records.groups.tolist(), records.labels.tolist(), strict=True):
            class_of.setdefault(group, label)
        for label in (0, 1):
            counts = [
                sum(class_of[group] == label for group in set(records.groups[own].tolist()))
                for own in layout.parts[split].indices
            ]
            assert max(counts) - min(counts) <= 1


def test_equal_hospitals_of_patients_have_close_class_mixes() -> None:
    rng = np.random.default_rng(0)
    kind = rng.choice(3, 2000, p=[0.2, 0.7, 0.1])
    member = rng.permutation(np.repeat(np.arange(2000), rng.integers(1, 4, 2000)))
    records = make_records(torch.from_numpy(kind[member]), torch.from_numpy(member))
    layout = lay_out(make_dataset(records, records, records), PartitionSettings(), clients=4, seed=0)
    shares = torch.stack(
        [records.labels[own].bincount(minlength=3) / len(own) for own in layout.parts["train"].indices]
    )
    assert (shares - records.labels.bincount() / len(records)).abs().max() < 0.03


def test_dirichlet_skews_the_classes_of_patients_and_power_law_their_number() -> None:
    kind = torch.arange(900) % 3
    member = torch.arange(900).repeat_interleave(2)
    records = make_records(kind[member], member)
    dataset = make_dataset(records, records, records)
    skewed = lay_out(dataset, PartitionSettings(scheme="dirichlet", alpha=0.3), clients=3, seed=0).parts["train"]
    shares = torch.stack([records.labels[own].bincount(minlength=3) / len(own) for own in skewed.indices])
    assert (shares - 1 / 3).abs().max() > 0.2
    sized = lay_out(dataset, PartitionSettings(sizes="power_law"), clients=3, seed=0).parts["train"]
    assert sized.sizes == pytest.approx([1800 * 6 / 11, 1800 * 3 / 11, 1800 * 2 / 11], abs=6)


@pytest.mark.parametrize("scheme", ["iid", "dirichlet"])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_without_patients_records_are_dealt_by_class_as_they_always_were(scheme: str, task: str) -> None:
    classes = 2 if task == "binary" else 3
    splits = tuple(make_records((torch.arange(count) * 7 // 3) % classes) for count in (90, 20, 40))
    drawn = PartitionSettings(scheme=scheme, alpha=1.0, sizes="power_law")
    layout = lay_out(make_dataset(splits[0], splits[1], splits[2], task), drawn, clients=4, seed=11, min_records=2)
    proportions = draw_proportions(
        drawn,
        clients=4,
        class_sizes=splits[0].labels.bincount(),
        generator=generator(11, "partition", "proportions"),
        min_records=2,
    )
    for split, records in zip(SPLITS, splits, strict=True):
        expected = assign(records.labels, proportions, generator(11, "partition", split))
        assert torch.equal(layout.parts[split].owners(), expected.owners())


def test_one_record_a_patient_is_as_without_patients() -> None:
    plain = make_records(torch.arange(60) % 3)
    alone = replace(plain, groups=torch.arange(60))
    drawn = PartitionSettings(scheme="dirichlet")
    first, second = (
        lay_out(make_dataset(records, records, records), drawn, clients=3, seed=5) for records in (plain, alone)
    )
    for split in SPLITS:
        assert torch.equal(first.parts[split].owners(), second.parts[split].owners())


def test_a_class_of_the_test_split_alone_is_dealt_too() -> None:
    common, rare = make_records(torch.arange(30) % 2), make_records(torch.tensor([0, 1, 2, 2, 2]))
    layout = lay_out(make_dataset(common, common, rare), PartitionSettings(), clients=3, seed=0)
    assert sorted(layout.parts["test"].owners()[2:].tolist()) == [0, 1, 2]


def test_of_several_findings_those_that_go_together_are_spread_together() -> None:
    # Both findings are half of all, but only ever together: dealt one by one, they would be spread by chance.
    together = make_records(torch.tensor([[1, 1], [0, 0]]).repeat(100, 1))
    layout = lay_out(make_dataset(together, together, together, "multilabel"), PartitionSettings(), clients=4, seed=0)
    for own in layout.parts["train"].indices:
        assert together.labels[own].sum(dim=0).tolist() == [25, 25]
    findings = make_records(torch.from_numpy(np.random.default_rng(0).integers(0, 2, (600, 3))))
    dataset = make_dataset(findings, findings, findings, "multilabel")
    skewed = lay_out(dataset, PartitionSettings(scheme="dirichlet", alpha=0.2), clients=3, seed=0)
    kinds = (findings.labels * torch.tensor([4, 2, 1])).sum(dim=1)
    shares = torch.stack([kinds[own].bincount(minlength=8) / len(own) for own in skewed.parts["train"].indices])
    assert shares.std(dim=0).max() > 0.1


def test_segmented_volumes_are_dealt_by_their_number_alone() -> None:
    volumes = make_records(torch.randint(0, 3, (110, 2, 3, 4), generator=torch.Generator().manual_seed(0)))
    dataset = make_dataset(volumes, volumes, volumes, "segmentation")
    layout = lay_out(dataset, PartitionSettings(sizes="power_law"), clients=3, seed=0)
    expected = deal_counts(torch.tensor([110]), torch.tensor([[6 / 11, 3 / 11, 2 / 11]], dtype=torch.float64))[0]
    for split in SPLITS:
        assert layout.parts[split].sizes == tuple(expected.tolist())


def test_more_hospitals_than_patients_is_refused_however_many_records_they_have() -> None:
    records = make_records(torch.zeros(50, dtype=torch.int64), torch.arange(50) // 10)
    with pytest.raises(SettingError, match=r"^clients: 6 hospitals need at least 6 records, but there are 5$"):
        lay_out(make_dataset(records, records, records), PartitionSettings(), clients=6, seed=0)


def test_the_same_seed_repeats_and_another_does_not() -> None:
    records = make_records(torch.arange(80) % 2, torch.arange(80) // 2)
    dataset = make_dataset(records, records, records)
    first, again, other = (lay_out(dataset, PartitionSettings(), clients=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.parts["train"].owners(), again.parts["train"].owners())
    assert not torch.equal(first.parts["train"].owners(), other.parts["train"].owners())
    # Each split has a stream of its own.
    assert not torch.equal(first.parts["train"].owners(), first.parts["val"].owners())
