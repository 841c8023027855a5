"""Patients known to two hospitals: as many as asked, whole, each at two, counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hbdp_fed.data.contract import ImageDataset, Records
from hbdp_fed.data.federated import deal
from hbdp_fed.data.layout import lay_out
from hbdp_fed.data.members import pooled
from hbdp_fed.data.overlap import Acquaintance, acquaintance, let_two_know
from hbdp_fed.data.partition import Partition, PartitionSettings, by_owner
from hbdp_fed.errors import SettingError


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dealt(patients: int = 100, hospitals: int = 4) -> tuple[Partition, torch.Tensor]:
    """Patients of one to three records, dealt whole: the first hospital has half of them."""
    groups = torch.arange(patients).repeat_interleave(torch.arange(patients) % 3 + 1)
    owner = torch.where(torch.arange(patients) % 2 == 0, 0, torch.arange(patients) % hospitals)
    return by_owner(owner[groups], hospitals), groups + 1000


def holders(held: tuple[torch.Tensor, ...], groups: torch.Tensor) -> dict[int, set[int]]:
    """By patient who holds a record of theirs, one by one."""
    found: dict[int, set[int]] = {}
    for hospital, own in enumerate(held):
        for index in own.tolist():
            found.setdefault(int(groups[index]), set()).add(hospital)
    return found


@pytest.mark.parametrize("overlap", [0.03, 0.25, 0.99])
def test_the_share_of_patients_is_known_to_exactly_two_hospitals_which_hold_all_of_their_records(
    overlap: float,
) -> None:
    part, groups = dealt()
    held = let_two_know(part, groups, overlap=overlap, generator=stream())
    known = holders(held, groups)
    assert sum(len(hospitals) == 2 for hospitals in known.values()) == round(100 * overlap)
    assert {len(hospitals) for hospitals in known.values()} <= {1, 2}
    for own, had in zip(held, part.indices, strict=True):
        assert set(had.tolist()) <= set(own.tolist())
        assert own.tolist() == sorted(set(own.tolist()))
        # Whoever knows a patient holds all of the patient's records.
        for patient in set(groups[own].tolist()):
            assert set((groups == patient).nonzero().flatten().tolist()) <= set(own.tolist())


def test_second_hospitals_are_drawn_in_proportion_to_their_patients() -> None:
    groups = torch.arange(3000)
    part = by_owner(torch.tensor([0] * 1500 + [1] * 1000 + [2] * 500), 3)
    held = let_two_know(part, groups, overlap=0.9, generator=stream())
    guests = [len(own) - len(had) for own, had in zip(held, part.indices, strict=True)]
    # Of those of the first hospital two thirds go to the second and a third to the third, and so on.
    expected = [900 * 1500 / 2000 + 450 * 1500 / 2500, 1350 * 1000 / 1500 + 450 * 1000 / 2500, 1350 / 3 + 900 / 4]
    assert guests == pytest.approx(expected, rel=0.08)
    assert sum(guests) == 2700


def test_no_overlap_changes_nothing_and_the_same_stream_repeats() -> None:
    part, groups = dealt()
    assert let_two_know(part, groups, overlap=0.0, generator=stream()) is part.indices
    once, again, other = (let_two_know(part, groups, overlap=0.3, generator=stream(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not all(a.tolist() == b.tolist() for a, b in zip(once, other, strict=True))


def test_without_groups_a_record_is_a_patient() -> None:
    part = by_owner(torch.arange(50) % 5, 5)
    held = let_two_know(part, None, overlap=0.2, generator=stream())
    assert acquaintance(held, None).shared == acquaintance(held, None).records == 10


def test_who_knows_whom_is_counted_as_one_would_by_hand() -> None:
    #                      patient: 0  0  1  1  2  3
    groups = torch.tensor([7, 7, 8, 8, 9, 5])
    held = (torch.tensor([0, 2, 4]), torch.tensor([1, 2, 4]), torch.tensor([3, 5]))
    # 7 has a record at each of two, 8 at all three (one of them twice), 9's one record is at two, 5 is known to one.
    assert acquaintance(held, groups) == Acquaintance(patients=4, known_to={(0, 1): 2, (0, 1, 2): 1}, records=2)
    assert acquaintance(held, groups).shared == 3
    assert acquaintance((torch.arange(3), torch.arange(3, 6)), None) == Acquaintance(6, {}, 0)


def natural() -> ImageDataset:
    """Sixty records of thirty patients; every third patient was photographed at both hospitals."""
    patient = torch.arange(60) // 2
    north = [index % 2 == 0 if patient[index] % 3 == 0 else bool(patient[index] % 2) for index in range(60)]
    records = Records(
        images=torch.rand((60, 1, 4, 4), generator=stream()),
        labels=torch.arange(60) % 2,
        groups=patient,
        attributes={"site": np.asarray(["north" if flag else "south" for flag in north])},
    )
    return ImageDataset("any", "binary", ("a", "b"), train=records, val=records, test=records, group="patient")


def test_a_natural_partition_has_patients_of_its_own_at_two_hospitals_and_overlap_comes_on_top() -> None:
    dataset = natural()
    settings = PartitionSettings(scheme="natural", column="site")
    plain = lay_out(dataset, settings, clients=2, seed=0)
    assert acquaintance(plain.held, dataset.train.groups) == Acquaintance(30, {(0, 1): 10}, records=0)
    more = lay_out(dataset, PartitionSettings(scheme="natural", column="site", overlap=0.5), clients=2, seed=0)
    assert acquaintance(more.held, dataset.train.groups) == Acquaintance(30, {(0, 1): 25}, records=30)
    # The other splits are laid out as ever.
    assert all(
        torch.equal(a, b)
        for split in ("val", "test")
        for a, b in zip(plain.parts[split].indices, more.parts[split].indices, strict=True)
    )


def test_a_pool_holds_everybody_once() -> None:
    federated = deal(natural(), clients=3, partition=PartitionSettings(overlap=0.5), seed=0)
    (place,) = pooled(federated).hospitals
    assert place.indices.sort().values.tolist() == list(range(60))
    assert torch.equal(place.records.images, natural().train.images[place.indices])
    assert sum(federated.site_sizes) == 90


@pytest.mark.parametrize(
    ("clients", "overlap", "words"),
    [(1, 0.5, "need a second hospital: set clients=2"), (2, 0.004, "0.004 of 100 patients is nobody")],
)
def test_an_overlap_of_nobody_or_with_nobody_is_refused(clients: int, overlap: float, words: str) -> None:
    part = by_owner(torch.arange(100) % clients, clients)
    with pytest.raises(SettingError, match=rf"^partition\.overlap: .*{words}"):
        let_two_know(part, None, overlap=overlap, generator=stream())


@pytest.mark.parametrize("overlap", [-0.1, 1.0, 1.5, float("nan"), True, "some"])
def test_an_overlap_outside_its_range_is_refused(overlap: Any) -> None:
    with pytest.raises(SettingError, match=r"^partition\.overlap: must"):
        PartitionSettings(overlap=overlap)
