"""Measure what prepared records that are kept save: memory of workers that share them, and the time of a second start.

    python -m scripts.bench.cache --records 10000 --workers 4

Makes a folder of grey 224x224 JPEG files in the layout of data=chest_xray, from the real ones in HBDP_DATA, repeated
under the names of further patients until there are --records. Then, each in processes of their own:

- *first start*: the data set is loaded, kept, dealt to --hospitals, and their shards are kept;
- *second start*: the same again, which finds everything;
- *workers*: --workers processes map every shard as the engine's workers do, and the other two splits, and read each
  record, batch by batch. Memory is the proportional set size (a page that n processes share counts as 1/n in each): the
  sum over the workers at the end, all of them still there, above what they had before they read, libraries aside.

Everything lies in a temporary folder and is deleted at the end.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import torch
from PIL import Image
from torch import Tensor

from hbdp_fed.data import PartitionSettings, deal, read_shard
from hbdp_fed.data.cache import DataCache, load_kept
from hbdp_fed.data.cache.folder import DATASET_FILE, SUFFIX
from hbdp_fed.data.cache.sealed import read_sealed
from hbdp_fed.data.contract import as_floats

SIZE = 224
BATCH = 16
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Start:
    """One start of a run, as far as its data goes.

    Attributes:
        seconds: For loading, dealing and shards.
        cpu_s: Of which a processor worked; on a machine with other work the rest is waiting.
        shards: The hospitals' files.
        records: How many records there are in all splits.
    """

    seconds: float
    cpu_s: float
    shards: tuple[Path, ...]
    records: int


def start(root: Path, folder: Path, hospitals: int) -> Start:
    """Load and deal, as a run with ``data.cache=folder`` does."""
    torch.set_num_threads(1)
    begun, worked = time.perf_counter(), time.process_time()
    loaded = load_kept(DataCache(folder), "chest_xray", root=root, options={"image_size": SIZE})
    dealt = deal(loaded.dataset, clients=hospitals, partition=PartitionSettings(), seed=0, keep=loaded.keep)
    seconds, cpu_s = time.perf_counter() - begun, time.process_time() - worked
    shards = tuple(hospital.shard for hospital in dealt.hospitals if hospital.shard is not None)
    splits = (loaded.dataset.train, loaded.dataset.val, loaded.dataset.test)
    return Start(seconds=seconds, cpu_s=cpu_s, shards=shards, records=sum(map(len, splits)))


def in_a_process(work: Any, *arguments: Any) -> Any:
    """The result of a fresh process."""
    with ProcessPoolExecutor(max_workers=1, mp_context=_SPAWN) as pool:
        return pool.submit(work, *arguments).result()


def shared_memory(shards: Sequence[Path], dataset: Path, workers: int) -> tuple[int, int]:
    """What workers take while they read, together.

    Args:
        shards: The hospitals' files.
        dataset: The data set's file, of which validation and test split are read.
        workers: How many processes read everything.

    Returns:
        How many bytes their proportional set sizes grew by, and how many records each of them read.
    """
    pairs = [_SPAWN.Pipe() for _ in range(workers)]
    processes = [
        _SPAWN.Process(target=_read_everything, args=(theirs, shards, dataset), daemon=True) for _, theirs in pairs
    ]
    for process in processes:
        process.start()
    ours = [mine for mine, _ in pairs]
    # Nobody goes on before all are there: what they share is counted by how many share it.
    [mine.recv() for mine in ours]
    before = _asked(ours)
    for mine in ours:
        mine.send("read")
    read = [mine.recv() for mine in ours]
    after = _asked(ours)
    for mine, process in zip(ours, processes, strict=True):
        mine.send("end")
        process.join()
    assert len(set(read)) == 1
    return sum(after) - sum(before), read[0]


def _asked(workers: Sequence[Connection]) -> list[int]:
    """Each worker's proportional set size in bytes, while none of them does anything else."""
    for worker in workers:
        worker.send("measure")
    return [worker.recv() for worker in workers]


def _read_everything(parent: Connection, shards: Sequence[Path], dataset: Path) -> None:
    torch.set_num_threads(1)
    # Libraries, and room for a few batches, are there before: what is measured is what the records themselves take.
    _batches(torch.zeros((16 * BATCH, 1, SIZE, SIZE), dtype=torch.uint8))
    # One record of each file, so that what reads files is there, too.
    for images in _images(shards, dataset):
        _batches(images[:1])
    parent.send("ready")
    kept: list[Tensor] = []
    while (asked := parent.recv()) != "end":
        if asked == "measure":
            parent.send(_own_memory())
            continue
        kept = _images(shards, dataset)
        parent.send(sum(map(_batches, kept)))


def _images(shards: Sequence[Path], dataset: Path) -> list[Tensor]:
    """The hospitals' images and those of the two other splits, mapped."""
    tensors, _ = read_sealed(dataset)
    return [*(read_shard(shard).images for shard in shards), *(tensors[f"{s}/tensor/images"] for s in ("val", "test"))]


def _own_memory() -> int:
    """Proportional set size of kept files and of memory without a file.

    Libraries do not count: how many programs on the machine share their pages changes from one moment to the next.
    """
    maps = psutil.Process().memory_maps(grouped=True)
    return sum(part.pss for part in maps if part.path.startswith("[") or part.path.endswith(SUFFIX))


def _batches(images: Tensor) -> int:
    """Take every record as training does, in batches of float32; how many they were."""
    count, total = 0, 0.0
    for indices in torch.arange(len(images)).split(BATCH):
        batch = as_floats(images[indices])
        count, total = count + len(batch), total + float(batch.sum())
    assert total >= 0
    return count


def write_images(root: Path, records: int, source: Path | None) -> None:
    """So many grey JPEG files in the layout of chest_xray: the real ones, or drawn where there are none."""
    target = root / "chest_xray"
    known = _pictures(source, records)
    for number in range(records):
        place, picture = known[number % len(known)]
        path = target / _renamed(place, number // len(known))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)


def _pictures(source: Path | None, wanted: int) -> list[tuple[str, bytes]]:
    """Places below the data set's folder, and JPEG files of 224x224 grey pixels; about as many as are wanted."""
    if source is None:
        return list(_drawn())
    files = sorted(path for path in source.rglob("*.jp*g") if path.parts[-3] in {"train", "test"})
    files = files[:: max(1, len(files) // wanted)]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return [
            (file.relative_to(source).as_posix(), picture)
            for file, picture in zip(files, pool.map(_scaled, files), strict=True)
        ]


def _drawn() -> Iterator[tuple[str, bytes]]:
    for number in range(400):
        level = torch.randint(0, 256, (SIZE, SIZE), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        name = ("NORMAL/IM-{}-0001.jpeg", "PNEUMONIA/person{}_virus_1.jpeg")[number % 2].format(number)
        yield f"{('train', 'train', 'train', 'test')[number // 2 % 4]}/{name}", _jpeg(Image.fromarray(level.numpy()))


def _scaled(file: Path) -> bytes:
    with Image.open(file) as picture:
        return _jpeg(picture.convert("L").resize((SIZE, SIZE)))


def _jpeg(picture: Image.Image) -> bytes:
    stored = io.BytesIO()
    picture.save(stored, "JPEG")
    return stored.getvalue()


def _renamed(place: str, turn: int) -> str:
    """The same picture of another patient, by a number that no real one has."""
    if turn == 0:
        return place
    folder, name = place.rsplit("/", 1)
    if name.startswith("person"):
        return f"{folder}/person{turn}0000{name.removeprefix('person')}"
    return f"{folder}/{name.replace('IM-', f'IM-{turn}0000', 1)}"


def measured(folder: Path, given: argparse.Namespace) -> Mapping[str, Any]:
    """All figures, in MB and seconds."""
    source = Path(os.environ["HBDP_DATA"]) / "chest_xray" if os.environ.get("HBDP_DATA") else None
    write_images(folder / "data", given.records, source)
    cache = folder / "cache"
    first = in_a_process(start, folder / "data", cache, given.hospitals)
    second = in_a_process(start, folder / "data", cache, given.hospitals)
    [dataset] = cache.glob(f"*/{DATASET_FILE}")
    grown, read = shared_memory(second.shards, dataset, given.workers)
    size = dataset.stat().st_size
    return {
        "images": "real" if source else "drawn",
        "records": second.records,
        "read_by_each_worker": read,
        "workers": given.workers,
        "cache_mb": size / 1e6,
        "shards_mb": sum(shard.stat().st_size for shard in second.shards) / 1e6,
        "workers_pss_mb": grown / 1e6,
        "pss_over_cache": grown / size,
        "first_start_s": first.seconds,
        "second_start_s": second.seconds,
        "second_start_cpu_s": second.cpu_s,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--hospitals", type=int, default=5)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="hbdp_fed_bench_") as folder:
        row = measured(Path(folder), given)
    print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
    print(f"| {' | '.join(f'{cell:.2f}' if isinstance(cell, float) else str(cell) for cell in row.values())} |")
    kept = row["pss_over_cache"] <= 1.2 and row["second_start_s"] < 2
    print(f"workers within 1.2 times the cache and a second start under 2 s: {'yes' if kept else 'NO'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
