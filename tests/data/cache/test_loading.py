"""Kept data sets: the same bits as fresh ones, found only while every file, option and the code are the same."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hbdp_fed.data import PartitionSettings, deal, load_dataset
from hbdp_fed.data.cache import DataCache, contents, keys, load_kept, loading
from hbdp_fed.data.cache.folder import DATASET_FILE
from hbdp_fed.data.cache.sealed import read_sealed, write_sealed
from hbdp_fed.data.contract import ImageDataset
from hbdp_fed.data.registry import DATASETS
from hbdp_fed.errors import DataFileError, SettingError
from tests.data.cache.small_sets import SMALL_SETS, SmallSet, differences

CHEST = SMALL_SETS["chest_xray"]
_OPENED: list[str] = []
_WATCHING = [False]


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _WATCHING[0] and event == "open":
        _OPENED.append(str(arguments[0]))


@pytest.fixture(scope="module")
def _hook() -> None:
    sys.addaudithook(_note)  # there is no way to take it off again


@pytest.fixture
def opened(_hook: None) -> Iterator[list[str]]:
    """The files that Python opens while a test runs."""
    _OPENED.clear()
    _WATCHING[0] = True
    yield _OPENED
    _WATCHING[0] = False


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written just now are remembered, too; nobody changes them twice in a tick here."""
    monkeypatch.setattr(contents, "SETTLED_NS", 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> DataCache:
    return DataCache(tmp_path / "cache")


def load(cache: DataCache | None, small: SmallSet, root: Path, **options: Any) -> ImageDataset:
    return load_kept(cache, small.name, root=root, options={**small.options, **options}).dataset


def kept_in(cache: DataCache) -> set[str]:
    return {path.parent.name for path in cache.path.glob(f"*/{DATASET_FILE}")}


def test_every_data_set_that_is_read_from_files_is_tried_here() -> None:
    with_files = {name for name, entry in DATASETS.items() if entry.files is not None}
    assert with_files <= {small.name for small in SMALL_SETS.values()} | {"breastmnist", "pneumoniamnist"}


@pytest.mark.parametrize("which", SMALL_SETS)
def test_a_kept_data_set_is_bit_for_bit_the_fresh_one_and_opens_no_data_file(
    which: str, root: Path, cache: DataCache, opened: list[str]
) -> None:
    small = SMALL_SETS[which]
    small.write(root)
    fresh = load_dataset(small.name, root=root, options=small.options)
    assert differences(fresh, load(cache, small, root)) == []
    assert any(name.endswith(small.image) for name in opened)
    opened.clear()
    again = load(cache, small, root)
    # Only what lists the records is read again: which images there are to ask for.
    lists = {".csv", ".json"}
    assert [name for name in opened if name.startswith(str(root)) and Path(name).suffix not in lists] == []
    assert differences(fresh, again) == []
    assert len(kept_in(cache)) == 1


def _changed(image: Path) -> None:
    data = bytearray(image.read_bytes())
    data[-30] ^= 1
    image.write_bytes(data)


def _renamed(image: Path) -> None:
    image.rename(image.with_name("IM-0990-0001.jpeg"))


def _added(image: Path) -> None:
    shutil.copy(image, image.with_name("IM-0991-0001.jpeg"))


HARMS: dict[str, Callable[[Path], None]] = {
    "changed": _changed,
    "removed": Path.unlink,
    "added": _added,
    "renamed": _renamed,
}


@pytest.mark.parametrize("harm", HARMS)
def test_another_file_is_another_key(harm: str, root: Path, cache: DataCache) -> None:
    CHEST.write(root)
    before = load(cache, CHEST, root)
    HARMS[harm](root / CHEST.image)
    after = load(cache, CHEST, root)
    assert len(kept_in(cache)) == 2
    assert differences(load_dataset("chest_xray", root=root, options=CHEST.options), after) == []
    assert differences(before, after) != [] or harm == "changed"


@pytest.mark.parametrize("which", SMALL_SETS)
def test_a_changed_or_missing_image_is_another_key_in_every_data_set(which: str, root: Path, cache: DataCache) -> None:
    small = SMALL_SETS[which]
    small.write(root)
    load(cache, small, root)
    with (root / small.image).open("ab") as file:
        file.write(b"\0")
    load(cache, small, root)
    assert len(kept_in(cache)) == 2
    (root / small.image).unlink()
    if small is CHEST:  # whose folders are all that says which images there should be
        load(cache, small, root)
        assert len(kept_in(cache)) == 3
    else:
        with pytest.raises(DataFileError):
            load(cache, small, root)


@pytest.mark.parametrize("which", SMALL_SETS)
def test_another_option_is_another_key(which: str, root: Path, cache: DataCache) -> None:
    small = SMALL_SETS[which]
    small.write(root)
    load(cache, small, root)
    other = load(cache, small, root, **small.other)
    assert len(kept_in(cache)) == 2
    assert differences(load_dataset(small.name, root=root, options={**small.options, **small.other}), other) == []


def test_a_default_that_is_written_out_is_the_same_key(root: Path, cache: DataCache) -> None:
    CHEST.write(root)
    load(cache, CHEST, root)
    load(cache, CHEST, root, task="binary", split_seed=0)
    assert len(kept_in(cache)) == 1


def test_the_same_files_elsewhere_or_touched_are_the_same_key(root: Path, cache: DataCache, tmp_path: Path) -> None:
    CHEST.write(root)
    load(cache, CHEST, root)
    (root / CHEST.image).touch()
    load(cache, CHEST, root)
    shutil.copytree(root, tmp_path / "elsewhere")
    load(cache, CHEST, tmp_path / "elsewhere")
    assert len(kept_in(cache)) == 1


def test_another_version_of_the_code_is_another_key(
    root: Path, cache: DataCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    CHEST.write(root)
    load(cache, CHEST, root)
    monkeypatch.setattr(keys, "code_version", lambda: "another")
    load(cache, CHEST, root)
    assert len(kept_in(cache)) == 2


def test_records_left_out_are_named_where_they_lie_now(root: Path, cache: DataCache, tmp_path: Path) -> None:
    CHEST.write(root)
    (root / CHEST.image).write_bytes(b"no image")
    first = load(cache, CHEST, root, on_bad_record="skip")
    assert first.skipped[0].startswith(f"{root / CHEST.image}: ")
    shutil.copytree(root, tmp_path / "elsewhere")
    second = load(cache, CHEST, tmp_path / "elsewhere", on_bad_record="skip")
    assert second.skipped[0].startswith(f"{tmp_path / 'elsewhere' / CHEST.image}: ")
    assert len(kept_in(cache)) == 1


def _truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _other_header(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data.replace(b"train", b"trAin", 1))


def _foreign(file: Path) -> None:
    file.write_bytes(b"PK\x03\x04" + bytes(1000))


def _other_entry(file: Path) -> None:
    tensors, about = read_sealed(file)
    write_sealed(file, {name: tensor.clone() for name, tensor in tensors.items()}, {**about, "key": "0" * 64})


def _another_program(file: Path) -> None:
    save_file({"weights": torch.zeros(3)}, file)


@pytest.mark.parametrize("damage", [_truncated, _other_header, _foreign, _other_entry, _another_program])
@pytest.mark.parametrize("what", ["data set", "shard"])
def test_a_damaged_file_is_noticed_and_made_again(
    what: str, damage: Callable[[Path], None], root: Path, cache: DataCache, caplog: pytest.LogCaptureFixture
) -> None:
    CHEST.write(root)
    fresh = load_dataset("chest_xray", root=root, options=CHEST.options)

    def start() -> tuple[ImageDataset, Path, torch.Tensor]:
        loaded = load_kept(cache, "chest_xray", root=root, options=CHEST.options)
        dealt = deal(loaded.dataset, clients=2, partition=PartitionSettings(), seed=0, keep=loaded.keep)
        shard = dealt.hospitals[0].shard
        assert shard is not None
        return loaded.dataset, shard, dealt.hospitals[0].records.images.clone()

    _, shard, images = start()
    [main] = cache.path.glob(f"*/{DATASET_FILE}")
    file = main if what == "data set" else shard
    damage(file)
    with caplog.at_level(logging.WARNING):
        dataset, _, again = start()
    assert [record.getMessage() for record in caplog.records if str(file) in record.getMessage()] != []
    assert "it is made again" in caplog.text
    assert differences(fresh, dataset) == []
    assert torch.equal(images, again)
    caplog.clear()
    start()
    assert caplog.records == []


def test_folders_are_for_nobody_but_their_owner(root: Path, cache: DataCache) -> None:
    CHEST.write(root)
    load(cache, CHEST, root)
    for folder in (cache.path, *(path for path in cache.path.rglob("*") if path.is_dir())):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_cannot_be_kept_is_loaded_all_the_same(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    CHEST.write(root)
    (tmp_path / "file").write_text("in the way")
    loaded = load_kept(DataCache(tmp_path / "file" / "cache"), "chest_xray", root=root, options=CHEST.options)
    assert differences(load_dataset("chest_xray", root=root, options=CHEST.options), loaded.dataset) == []
    assert "are not kept" in caplog.text


def test_a_full_disk_is_left_alone(
    root: Path, cache: DataCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    CHEST.write(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 10**6))  # type: ignore[attr-defined]
    load(cache, CHEST, root)
    assert kept_in(cache) == set()
    assert "the disk has 0.0 GB left" in caplog.text


def test_files_that_change_meanwhile_are_not_kept(
    root: Path, cache: DataCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    CHEST.write(root)

    def load_while_somebody_writes(*arguments: Any, **named: Any) -> ImageDataset:
        dataset = load_dataset(*arguments, **named)
        _changed(root / CHEST.image)
        return dataset

    monkeypatch.setattr(loading, "load_dataset", load_while_somebody_writes)
    load(cache, CHEST, root)
    assert kept_in(cache) == set()
    assert "files were changed while they were read" in caplog.text


def test_a_drawn_set_is_not_kept(cache: DataCache) -> None:
    load_kept(cache, "phantom", options={"num_train": 4, "num_val": 2, "num_test": 2})
    assert not cache.path.exists()


def test_errors_are_those_of_the_loader(root: Path, cache: DataCache) -> None:
    with pytest.raises(DataFileError, match="there is no such folder") as caught:
        load(cache, CHEST, root)
    assert caught.value.path == root / "chest_xray" / "train" / "NORMAL"
    with pytest.raises(SettingError, match=r"data\.set"):
        load_kept(cache, "medmnist", root=root, options={"set": "nomnist"})
    with pytest.raises(SettingError, match="no such option"):
        load_kept(cache, "chest_xray", root=root, options={"width": 3})


def _build(root: Path, folder: Path, barrier: Any, answers: Any) -> None:
    barrier.wait()
    dataset = load(DataCache(folder), CHEST, root)
    answers.put((int(dataset.train.images.sum()), len(dataset.train)))


def test_two_processes_that_build_the_same_at_once_both_succeed(root: Path, cache: DataCache) -> None:
    CHEST.write(root)
    fork = multiprocessing.get_context("fork")
    barrier, answers = fork.Barrier(2), fork.Queue()
    both: Sequence[Any] = [fork.Process(target=_build, args=(root, cache.path, barrier, answers)) for _ in range(2)]
    for process in both:
        process.start()
    found = [answers.get(timeout=60) for _ in both]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    fresh = load_dataset("chest_xray", root=root, options=CHEST.options)
    assert set(found) == {(int(fresh.train.images.sum()), len(fresh.train))}
    assert [path.name for path in cache.path.rglob("*.partial")] == []
    assert differences(fresh, load(cache, CHEST, root)) == []
