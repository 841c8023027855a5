"""Shards that are kept: the bits of a deal without them, mapped, found again, and of this deal alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hbdp_fed.data import ImageDataset, PartitionSettings, Records, deal, load_dataset, read_shard
from hbdp_fed.data.cache import DataCache
from hbdp_fed.data.federated import FederatedDataset
from hbdp_fed.data.keeping import Keep, in_memory

KEY = "a" * 64


def make_dataset() -> ImageDataset:
    drawn = load_dataset("phantom", options={"num_train": 60, "num_val": 20, "num_test": 30, "image_size": 16})

    def known(records: Records) -> Records:
        count = len(records)
        return Records(
            images=(records.images * 255).to(torch.uint8),
            labels=records.labels,
            masks=records.masks,
            groups=torch.arange(count) // 2,
            names=np.asarray([f"record {number}" for number in range(count)]),
            attributes={"sex": np.asarray(["f", "m"] * (count // 2))},
        )

    return ImageDataset("drawn", "binary", ("a", "b"), known(drawn.train), known(drawn.val), known(drawn.test))


def dealt(dataset: ImageDataset, keep: Keep, **settings: Any) -> FederatedDataset:
    given: Mapping[str, Any] = {"clients": 3, "seed": 1, "partition": PartitionSettings("dirichlet"), **settings}
    return deal(dataset, keep=keep, **given)


def all_records(federated: FederatedDataset) -> list[Records]:
    return [*(hospital.records for hospital in federated.hospitals), federated.val, federated.test]


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_kept_hospitals_hold_the_same_bits_the_first_time_and_after(tmp_path: Path, shift: float) -> None:
    dataset, keep = make_dataset(), DataCache(tmp_path / "cache").shards(KEY)
    (tmp_path / "cache" / KEY).mkdir(parents=True)
    expected = dealt(dataset, in_memory, scanner_shift=shift)
    for _ in range(2):
        found = dealt(dataset, keep, scanner_shift=shift)
        for fresh, kept in zip(all_records(expected), all_records(found), strict=True):
            assert fresh.images.dtype == kept.images.dtype
            assert fresh.masks is not None
            assert kept.masks is not None
            assert fresh.groups is not None
            assert kept.groups is not None
            assert fresh.names is not None
            assert kept.names is not None
            assert torch.equal(fresh.images, kept.images)
            assert torch.equal(fresh.labels, kept.labels)
            assert torch.equal(fresh.masks, kept.masks)
            assert torch.equal(fresh.groups, kept.groups)
            assert fresh.names.tolist() == kept.names.tolist()
            assert fresh.attributes["sex"].tolist() == kept.attributes["sex"].tolist()
        for before, after in zip(expected.hospitals, found.hospitals, strict=True):
            assert before.shard is None
            assert after.shard is not None
            assert torch.equal(read_shard(after.shard).images, before.records.images)
            assert torch.equal(before.indices, after.indices)


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_a_second_deal_writes_nothing_and_another_one_has_files_of_its_own(tmp_path: Path, shift: float) -> None:
    dataset, keep = make_dataset(), DataCache(tmp_path / "cache").shards(KEY)
    folder = tmp_path / "cache" / KEY
    dealt(dataset, keep, scanner_shift=shift)
    before = {file.name: (file.stat().st_mtime_ns, file.stat().st_ino) for file in folder.iterdir()}
    assert len(before) == (3 if shift == 0 else 5)
    dealt(dataset, keep, scanner_shift=shift)
    assert {file.name: (file.stat().st_mtime_ns, file.stat().st_ino) for file in folder.iterdir()} == before
    dealt(dataset, keep, scanner_shift=shift, seed=2)
    assert len(list(folder.iterdir())) == 2 * len(before)
    dealt(dataset, keep, scanner_shift=0.2, seed=1)
    assert len(list(folder.iterdir())) == 2 * len(before) + 5


def test_a_shard_tells_nobody_who_its_patients_are(tmp_path: Path) -> None:
    dealt(make_dataset(), DataCache(tmp_path / "cache").shards(KEY))
    for file in (tmp_path / "cache" / KEY).iterdir():
        assert b"record 1" not in file.read_bytes()
        assert "record".encode("utf-32-le") not in file.read_bytes()


def test_kept_records_are_mapped_and_the_file_is_safe_from_whoever_changes_them(tmp_path: Path) -> None:
    found = dealt(make_dataset(), DataCache(tmp_path / "cache").shards(KEY)).hospitals[0]
    assert found.shard is not None
    with Path("/proc/self/maps").open() as maps:
        mapped = [line.split() for line in maps if str(found.shard) in line]
    places = [tuple(int(end, 16) for end in fields[0].split("-")) for fields in mapped]
    assert any(low <= found.records.images.data_ptr() < high for low, high in places)
    before = found.shard.read_bytes()
    found.records.images.zero_()
    os.sync()
    assert found.shard.read_bytes() == before
