"""A data set laid over hospitals: nothing is lost, everyone's records come from their own scanner, and it repeats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hbdp_fed.data.contract import ImageDataset, Records, as_floats
from hbdp_fed.data.federated import FederatedDataset, deal
from hbdp_fed.data.partition import PartitionSettings, deal_counts
from hbdp_fed.data.phantom import load_phantom
from hbdp_fed.data.sites import Scanner, bias_field
from hbdp_fed.errors import SettingError

SKEWED = PartitionSettings(scheme="dirichlet", alpha=1.0, sizes="power_law")


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    return load_phantom(num_train=90, num_val=30, num_test=50, image_size=16)


def test_training_records_are_dealt_once_with_labels_and_outlines(dataset: ImageDataset) -> None:
    federation = deal(dataset, clients=4, partition=SKEWED, seed=0, min_records=3)
    assert [hospital.name for hospital in federation.hospitals] == [f"hospital-0{i}" for i in (1, 2, 3, 4)]
    assert torch.cat([h.indices for h in federation.hospitals]).sort().values.tolist() == list(range(90))
    assert dataset.train.masks is not None
    for hospital in federation.hospitals:
        assert len(hospital.records) == len(hospital.indices) >= 3
        assert hospital.records.masks is not None
        assert torch.equal(hospital.records.labels, dataset.train.labels[hospital.indices])
        assert torch.equal(hospital.records.masks, dataset.train.masks[hospital.indices])


def test_without_scanner_shift_images_are_the_data_sets_own_bit_for_bit(dataset: ImageDataset) -> None:
    federation = deal(dataset, clients=3, partition=SKEWED, scanner_shift=0.0, seed=0)
    assert torch.equal(federation.val.images, dataset.val.images)
    assert torch.equal(federation.test.images, dataset.test.images)
    assert set(federation.scanners) == {Scanner()}
    for hospital in federation.hospitals:
        assert torch.equal(hospital.records.images, dataset.train.images[hospital.indices])


def test_without_scanner_shift_no_image_is_copied_or_changes_its_form() -> None:
    stored = Records(images=torch.arange(240, dtype=torch.uint8).view(60, 1, 2, 2), labels=torch.arange(60) % 2)
    volumes = Records(images=torch.rand((60, 1, 2, 3, 4)), labels=torch.arange(60) % 2)
    for records in (stored, volumes):
        dataset = ImageDataset("any", "binary", ("a", "b"), train=records, val=records, test=records)
        federation = deal(dataset, clients=3, partition=PartitionSettings(), seed=0)
        assert federation.val.images is records.images
        assert federation.test.images is records.images
        for hospital in federation.hospitals:
            assert hospital.records.images.dtype == records.images.dtype
            assert torch.equal(hospital.records.images, records.images[hospital.indices])


def test_bytes_seen_by_a_scanner_are_floats_and_the_same_as_of_float_images() -> None:
    stored = Records(images=torch.arange(240, dtype=torch.uint8).view(60, 1, 2, 2), labels=torch.arange(60) % 2)
    before = stored.images.clone()
    as_bytes, as_floats = (
        deal(
            ImageDataset("any", "binary", ("a", "b"), train=records, val=records, test=records),
            clients=3,
            partition=PartitionSettings(),
            scanner_shift=0.5,
            seed=0,
        )
        for records in (stored, replace(stored, images=stored.images.float() / 255))
    )
    assert same(as_bytes, as_floats)
    for records in (as_bytes.val, as_bytes.test, *(hospital.records for hospital in as_bytes.hospitals)):
        assert records.images.dtype == torch.float32
        assert 0 <= records.images.min() <= records.images.max() <= 1
    assert torch.equal(stored.images, before)


def test_volumes_have_scanners_as_images_have() -> None:
    volumes = Records(images=torch.full((8, 1, 6, 9, 7), 0.5), labels=torch.arange(8) % 2)
    dataset = ImageDataset("any", "binary", ("a", "b"), train=volumes, val=volumes, test=volumes)
    federation = deal(dataset, clients=2, partition=PartitionSettings(), scanner_shift=1.0, seed=0)
    for hospital, scanner in zip(federation.hospitals, federation.scanners, strict=True):
        seen = hospital.records.images
        assert seen.shape == (4, 1, 6, 9, 7)
        expected = (0.5 * bias_field(scanner, (6, 9, 7))) ** scanner.gamma
        assert float((seen.mean(dim=0)[0] - expected).abs().max()) < 4 * scanner.noise
        assert float((seen - expected).std()) == pytest.approx(scanner.noise, rel=0.15)
    first, second = (hospital.records.images.mean(dim=0) for hospital in federation.hospitals)
    assert float((first - second).abs().mean()) > 0.02


def test_a_record_looks_the_same_whoever_else_is_at_its_hospital(dataset: ImageDataset) -> None:
    """A scanner is its hospital's own, and a record's grain its own: the batch has no part in either."""
    few = replace(dataset, train=dataset.train.select(torch.arange(40)))
    all_of_them, some = (
        deal(each, clients=1, partition=PartitionSettings(), scanner_shift=1.0, seed=0).hospitals[0].records.images
        for each in (dataset, few)
    )
    assert torch.allclose(all_of_them[:40], some, atol=1e-6)


def test_every_site_strays_as_far_as_its_own_shift_and_bytes_of_all_become_floats() -> None:
    stored = Records(images=torch.arange(240, dtype=torch.uint8).view(60, 1, 2, 2), labels=torch.arange(60) % 2)
    dataset = ImageDataset("any", "binary", ("a", "b"), train=stored, val=stored, test=stored)
    own = [0.0, 0.3, 1.0]
    federation = deal(dataset, clients=3, partition=PartitionSettings(), scanner_shift=own, seed=0)
    alike = [deal(dataset, clients=3, partition=PartitionSettings(), scanner_shift=one, seed=0) for one in own]
    assert federation.scanners == tuple(alike[site].scanners[site] for site in range(3))
    assert federation.scanners[0] == Scanner()
    for site, hospital in enumerate(federation.hospitals):
        assert hospital.records.images.dtype == torch.float32
        floats = as_floats(alike[site].hospitals[site].records.images)
        assert torch.equal(hospital.records.images, floats)
    assert torch.equal(federation.hospitals[0].records.images, stored.images[federation.hospitals[0].indices] / 255)


def test_as_many_shifts_as_sites_are_needed(dataset: ImageDataset) -> None:
    with pytest.raises(ValueError, match="zip"):
        deal(dataset, clients=3, partition=PartitionSettings(), scanner_shift=[0.0, 1.0], seed=0)


def test_a_record_that_two_hospitals_hold_is_seen_by_the_scanner_of_each(dataset: ImageDataset) -> None:
    federation = deal(dataset, clients=3, partition=PartitionSettings(overlap=0.4), scanner_shift=1.0, seed=0)
    plain = deal(dataset, clients=3, partition=PartitionSettings(), scanner_shift=1.0, seed=0)
    assert sum(federation.site_sizes) == sum(len(hospital.records) for hospital in federation.hospitals) == 90 + 36
    assert federation.site_sizes == tuple(hospital.size for hospital in federation.hospitals)
    for hospital, own in zip(federation.hospitals, plain.hospitals, strict=True):
        kept = torch.isin(hospital.indices, own.indices)
        assert torch.equal(hospital.records.images[kept], own.records.images)
        assert torch.equal(hospital.records.labels, dataset.train.labels[hospital.indices])
    a, b = federation.hospitals[:2]
    both = [(i, j) for i, x in enumerate(a.indices.tolist()) for j, y in enumerate(b.indices.tolist()) if x == y]
    assert both
    assert all(not torch.equal(a.records.images[i], b.records.images[j]) for i, j in both)
    # Nobody is judged twice.
    assert torch.equal(federation.test.images, plain.test.images)
    assert torch.equal(federation.val_site, plain.val_site)


def test_a_hospital_may_have_no_record_to_be_judged_on(dataset: ImageDataset) -> None:
    few = replace(dataset, val=dataset.val.select(torch.tensor([0])), test=dataset.test.select(torch.tensor([3, 4])))
    federation = deal(few, clients=4, partition=PartitionSettings(), scanner_shift=0.5, seed=0)
    assert federation.val.images.shape == (1, 1, 16, 16)
    assert len(federation.test_site) == 2
    assert federation.val.images.isfinite().all()


def test_names_groups_and_attributes_follow_their_records(dataset: ImageDataset) -> None:
    words = np.asarray([f"record {number}" for number in range(90)])
    train = replace(dataset.train, names=words, groups=torch.arange(90) // 2, attributes={"source": words})
    for shift in (0.0, 0.5):
        federation = deal(
            replace(dataset, train=train), clients=3, partition=PartitionSettings(), scanner_shift=shift, seed=0
        )
        for hospital in federation.hospitals:
            assert hospital.records.names is not None
            assert hospital.records.groups is not None
            assert hospital.records.names.tolist() == words[hospital.indices.numpy()].tolist()
            assert torch.equal(hospital.records.groups, hospital.indices // 2)
            assert hospital.records.attributes["source"].tolist() == hospital.records.names.tolist()


def test_with_scanner_shift_every_record_has_its_own_sites_look() -> None:
    # Constant mid-grey records: without grain, what a scanner makes of them is its field under its curve.
    grey = Records(images=torch.full((60, 1, 8, 8), 0.5), labels=torch.arange(60) % 2)
    dataset = ImageDataset("grey", "binary", ("a", "b"), train=grey, val=grey, test=grey)
    federation = deal(dataset, clients=3, partition=PartitionSettings(), scanner_shift=0.5, seed=0)
    looks = []
    for hospital in federation.hospitals:
        (site,) = hospital.sites
        scanner = federation.scanners[site]
        expected = (0.5 * bias_field(scanner, (8, 8))) ** scanner.gamma
        at_site = (hospital.records, federation.val.select(torch.where(federation.val_site == site)[0]))
        for records in (*at_site, federation.test.select(torch.where(federation.test_site == site)[0])):
            assert float((records.images.mean(dim=0)[0] - expected).abs().max()) < 0.03
        looks.append(float(expected.mean()))
    assert max(looks) - min(looks) > 0.02


def test_test_records_keep_their_order_and_follow_the_training_proportions(dataset: ImageDataset) -> None:
    federation = deal(dataset, clients=3, partition=PartitionSettings(sizes="power_law"), scanner_shift=0.3, seed=0)
    assert torch.equal(federation.test.labels, dataset.test.labels)
    assert federation.test_site.dtype == torch.int64
    shares = torch.tensor([6 / 11, 3 / 11, 2 / 11], dtype=torch.float64).expand(2, 3)
    expected = deal_counts(dataset.test.labels.bincount(), shares).sum(dim=0)
    assert torch.equal(federation.test_site.bincount(minlength=3), expected)


def same(a: FederatedDataset, b: FederatedDataset) -> bool:
    pairs = [(x.records.images, y.records.images) for x, y in zip(a.hospitals, b.hospitals, strict=True)]
    pairs += [(a.val.images, b.val.images), (a.test.images, b.test.images), (a.test_site, b.test_site)]
    return all(torch.equal(x, y) for x, y in pairs)


def test_the_same_seed_repeats_every_bit_and_another_does_not(dataset: ImageDataset) -> None:
    def once(seed: int) -> FederatedDataset:
        return deal(dataset, clients=3, partition=SKEWED, scanner_shift=0.7, seed=seed)

    assert same(once(5), once(5))
    assert not same(once(5), once(6))


def test_scanners_do_not_change_who_holds_what(dataset: ImageDataset) -> None:
    plain = deal(dataset, clients=3, partition=SKEWED, seed=5)
    shifted = deal(dataset, clients=3, partition=SKEWED, scanner_shift=1.0, seed=5)
    for a, b in zip(plain.hospitals, shifted.hospitals, strict=True):
        assert torch.equal(a.indices, b.indices)


def test_one_hospital_is_the_centralised_data_set(dataset: ImageDataset) -> None:
    (hospital,) = deal(dataset, clients=1, partition=SKEWED, seed=0).hospitals
    assert torch.equal(hospital.records.images, dataset.train.images)
    assert torch.equal(hospital.records.labels, dataset.train.labels)


def test_more_hospitals_than_records_is_refused(dataset: ImageDataset) -> None:
    with pytest.raises(SettingError, match=r"^clients: 91 hospitals .* 90$"):
        deal(dataset, clients=91, partition=PartitionSettings(), seed=0)


@pytest.mark.parametrize("clients", [0, 2.0, True])
def test_an_impossible_number_of_hospitals_is_refused(dataset: ImageDataset, clients: Any) -> None:
    with pytest.raises(SettingError, match=r"^clients: must be an integer of at least 1"):
        deal(dataset, clients=clients, partition=PartitionSettings(), seed=0)


def test_a_scanner_shift_out_of_range_is_refused(dataset: ImageDataset) -> None:
    with pytest.raises(SettingError, match=r"^data\.scanner_shift"):
        deal(dataset, clients=2, partition=PartitionSettings(), scanner_shift=2.0, seed=0)
