"""Who trains: the records of those who do, and everybody's test records, whoever does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hbdp_fed.data import (
    POOLED,
    FederatedDataset,
    ImageDataset,
    PartitionSettings,
    Records,
    deal,
    held_elsewhere,
    pooled,
    restricted,
)
from hbdp_fed.data.phantom import load_phantom
from hbdp_fed.errors import SettingError


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    return load_phantom(num_train=60, num_val=30, num_test=40, image_size=16)


@pytest.fixture(scope="module")
def federated(dataset: ImageDataset) -> FederatedDataset:
    return deal(dataset, clients=3, partition=PartitionSettings(sizes="power_law"), scanner_shift=0.4, seed=0)


def test_whoever_stays_keeps_its_records_and_all_are_judged(federated: FederatedDataset) -> None:
    some = restricted(federated, ["hospital-03", "hospital-01"])
    assert [hospital.name for hospital in some.hospitals] == ["hospital-01", "hospital-03"]
    assert all(here is there for here, there in zip(some.hospitals, federated.hospitals[::2], strict=True))
    assert some.test is federated.test
    assert some.sites == federated.sites
    assert some.site_sizes == federated.site_sizes


def test_who_does_not_take_part_gives_no_validation_record(federated: FederatedDataset) -> None:
    some = restricted(federated, ["hospital-02"])
    own = federated.val_site == 1
    assert 0 < len(some.val) == int(own.sum()) < len(federated.val)
    assert torch.equal(some.val.images, federated.val.images[own])
    assert set(some.val_site.tolist()) == {1}


@pytest.mark.parametrize("members", [["hospital-4"], ["hospital-01", "nobody"]])
def test_a_stranger_is_refused_with_the_names_that_there_are(federated: FederatedDataset, members: list[str]) -> None:
    with pytest.raises(SettingError, match=r"federation\.members.*hospital-01"):
        restricted(federated, members)


def test_a_hospital_without_a_validation_record_cannot_train_alone(dataset: ImageDataset) -> None:
    little = ImageDataset(
        "any", "binary", ("a", "b"), train=dataset.train, val=dataset.val.select(torch.tensor([0])), test=dataset.test
    )
    federated = deal(little, clients=3, partition=PartitionSettings(), seed=0)
    without = [name for place, name in enumerate(federated.sites) if place not in federated.val_site.tolist()]
    with pytest.raises(SettingError, match="no validation record"):
        restricted(federated, without[:1])


def test_one_place_holds_every_record_once_as_its_own_scanner_shows_it(
    federated: FederatedDataset, dataset: ImageDataset
) -> None:
    whole = pooled(federated)
    (place,) = whole.hospitals
    assert place.name == POOLED
    assert place.indices.sort().values.tolist() == list(range(len(dataset.train)))
    assert torch.equal(place.records.labels, dataset.train.labels[place.indices])
    for hospital in federated.hospitals:
        own = torch.isin(place.indices, hospital.indices)
        assert torch.equal(place.records.images[own], hospital.records.images)
    assert place.sites == (0, 1, 2)
    assert whole.val is federated.val


def test_records_that_are_joined_keep_all_that_is_known_of_them() -> None:
    records = Records(
        images=torch.rand((4, 1, 2, 2)),
        labels=torch.arange(4) % 2,
        groups=torch.tensor([7, 7, 8, 9]),
        names=np.array(["a", "b", "c", "d"]),
        attributes={"sex": np.array(["f", "m", "f", "m"])},
    )
    dataset = ImageDataset("any", "binary", ("a", "b"), train=records, val=records, test=records)
    (place,) = pooled(deal(dataset, clients=2, partition=PartitionSettings(), seed=1)).hospitals
    assert place.records.names is not None
    assert place.records.groups is not None
    assert place.records.names.tolist() == [["a", "b", "c", "d"][index] for index in place.indices]
    assert place.records.groups.tolist() == [[7, 7, 8, 9][index] for index in place.indices]
    assert place.records.attributes["sex"].tolist() == [["f", "m", "f", "m"][index] for index in place.indices]
    assert place.records.masks is None


def test_hospitals_whose_records_are_elsewhere_count_and_hold_nothing_here(dataset: ImageDataset) -> None:
    far = held_elsewhere(dataset, {"north": 1200, "south": 80})
    assert [(one.name, one.size, len(one.records)) for one in far.hospitals] == [("north", 1200, 0), ("south", 80, 0)]
    assert far.site_sizes == (1200, 80)
    assert torch.equal(far.val.images, dataset.val.images)
    # No record of the splits is one of the hospitals'.
    assert not (torch.cat([far.val_site, far.test_site]) >= 0).any()
    with pytest.raises(SettingError, match=r"federation\.elsewhere: north must hold at least 1 record"):
        held_elsewhere(dataset, {"north": 0})
