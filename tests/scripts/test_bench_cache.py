"""What workers that read kept records take: the records once, however many workers there are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hbdp_fed.data import ImageDataset, PartitionSettings, Records, deal
from hbdp_fed.data.cache import DataCache
from hbdp_fed.data.cache.folder import DATASET_FILE
from scripts.bench.cache import main, shared_memory

KEY = "a" * 64


def drawn(count: int, seed: int) -> Records:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 224, 224), generator=generator, dtype=torch.uint8)
    return Records(images=images, labels=torch.arange(count) % 2)


@pytest.mark.slow
def test_two_workers_that_read_50_mb_take_them_once(tmp_path: Path) -> None:
    cache = DataCache(tmp_path / "cache")
    dataset = ImageDataset("drawn", "binary", ("a", "b"), drawn(800, 0), drawn(100, 1), drawn(100, 2))
    kept = cache.keep(KEY, dataset, root=tmp_path, made_of={"name": "drawn", "options": {}})
    dealt = deal(kept, clients=2, partition=PartitionSettings(), seed=0, keep=cache.shards(KEY))
    shards = [hospital.shard for hospital in dealt.hospitals if hospital.shard is not None]
    file = cache.path / KEY / DATASET_FILE
    grown, read = shared_memory(shards, file, workers=2)
    size = file.stat().st_size
    assert read == 1000
    assert size > 50e6
    # Each a copy of its own would be twice the size; well below it, the pages would not have been read at all.
    assert 0.8 * size < grown <= 1.2 * size


@pytest.mark.slow
def test_the_benchmark_finds_its_limits_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--records", "1500", "--workers", "2"]) == 0
    assert "second start under 2 s: yes" in capsys.readouterr().out
