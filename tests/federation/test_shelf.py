"""Shards that a worker's machine lacks: fetched once, and never left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hbdp_fed.data import Records, read_shard, write_shard
from hbdp_fed.federation.shelf import Shelf


def test_a_missing_shard_is_fetched_once_and_has_no_name_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(images=torch.rand(3, 1, 4, 4), labels=torch.tensor([0, 1, 1]))
    own, far = tmp_path / "own.safetensors", tmp_path / "far.safetensors"
    write_shard(far, records)
    write_shard(own, records)
    own_disk = tmp_path / "disk"
    own_disk.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(own_disk))
    asked: list[int] = []

    def fetch(place: int) -> bytes:
        asked.append(place)
        return far.read_bytes()

    shelf = Shelf(fetch)
    assert shelf.find(0, str(own)) == str(own)
    assert asked == []
    found = shelf.find(7, str(tmp_path / "nowhere" / "records.safetensors"))
    assert shelf.find(7, str(tmp_path / "nowhere" / "records.safetensors")) == found
    assert asked == [7]
    copy = read_shard(Path(found))
    assert torch.equal(copy.images, records.images)
    assert torch.equal(copy.labels, records.labels)
    assert list(own_disk.iterdir()) == []
