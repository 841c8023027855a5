"""Hashes of files: those of their bytes, read again when anything says that a file is another one."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from hbdp_fed.data.cache import contents as module
from hbdp_fed.data.cache.contents import ABSENT, contents


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose bytes were read."""
    found: list[str] = []
    genuine = module._sha256

    def noted(file: str) -> str:
        found.append(Path(file).name)
        return genuine(file)

    monkeypatch.setattr(module, "_sha256", noted)
    monkeypatch.setattr(module, "SETTLED_NS", 0)
    return found


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for name, text in (("a", "one"), ("b", "two")):
        (tmp_path / name).write_text(text)
    return [str(tmp_path / name) for name in ("a", "b", "c")]


def test_hashes_are_of_the_bytes_and_unchanged_files_are_not_read_again(
    tmp_path: Path, files: list[str], read: list[str]
) -> None:
    expected = [hashlib.sha256(text).hexdigest() for text in (b"one", b"two")]
    for _ in range(2):
        assert list(contents(files, tmp_path / "index").values()) == [*expected, ABSENT]
    assert sorted(read) == ["a", "b"]


def _same_size(file: Path) -> None:
    file.write_text("eno")


def _same_size_and_time(file: Path) -> None:
    before = file.stat()
    file.write_text("eno")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _another_in_its_place(file: Path) -> None:
    before = file.stat()
    other = file.with_name("other")
    other.write_text("eno")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)


@pytest.mark.parametrize("change", [_same_size, _same_size_and_time, _another_in_its_place])
def test_a_changed_file_is_read_again(tmp_path: Path, files: list[str], read: list[str], change: object) -> None:
    contents(files, tmp_path / "index")
    read.clear()
    time.sleep(0.02)  # longer than the tick of a file system's clock
    assert callable(change)
    change(tmp_path / "a")
    assert contents(files, tmp_path / "index")[files[0]] == hashlib.sha256(b"eno").hexdigest()
    assert read == ["a"]


def test_a_file_that_was_changed_just_now_is_not_remembered(
    tmp_path: Path, files: list[str], read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLED_NS", 10**12)
    contents(files, tmp_path / "index")
    contents(files, tmp_path / "index")
    assert sorted(read) == ["a", "a", "b", "b"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": [1]}', '{"files": [["a", 1]]}', '{"files": 3}'])
def test_a_broken_index_only_costs_time(tmp_path: Path, files: list[str], read: list[str], text: str) -> None:
    whole = contents(files, tmp_path / "index")
    (tmp_path / "index").write_text(text)
    read.clear()
    assert contents(files, tmp_path / "index") == whole
    assert sorted(read) == ["a", "b"]
    contents(files, tmp_path / "index")
    assert len(read) == 2


def test_an_index_that_cannot_be_written_only_costs_time(tmp_path: Path, files: list[str], read: list[str]) -> None:
    whole = contents(files, tmp_path / "index")
    assert contents(files, tmp_path / "no folder" / "index") == whole
    assert sorted(read) == ["a", "a", "b", "b"]
