"""The program that lists kept records and deletes them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch

import simulations.cli
from hbdp_fed.data import ImageDataset, Records
from hbdp_fed.data.cache import DataCache, folder, listing
from simulations.cache import main

Capture = pytest.CaptureFixture[str]
DAY_S = 86_400


def make_records(count: int) -> Records:
    return Records(images=torch.zeros((count, 1, 16, 16), dtype=torch.uint8), labels=torch.arange(count))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three data sets: used just now, ten days ago, and made by another version; and a broken one."""
    kept = DataCache(tmp_path / "cache")
    for digit, name, version in (("a", "now", "this"), ("b", "before", "this"), ("c", "outdated", "another")):
        monkeypatch.setattr(folder, "code_version", lambda version=version: version)
        dataset = ImageDataset(name, "binary", ("x", "y"), make_records(40), make_records(2), make_records(3))
        kept.keep(digit * 64, dataset, root=tmp_path, made_of={"name": name, "options": {"image_size": 16}})
    monkeypatch.setattr(listing, "code_version", lambda: "this")
    kept.shards("a" * 64)({"split": "train"}, lambda: make_records(20))
    before = time.time() - 10 * DAY_S
    os.utime(kept.path / ("b" * 64) / "dataset.safetensors", (before, before))
    (kept.path / ("d" * 64)).mkdir()
    (kept.path / ("d" * 64) / "dataset.safetensors").write_bytes(b"cut off")
    (kept.path / "contents").mkdir()
    (kept.path / "somebody's own").mkdir()
    return kept.path


def left(cache: Path) -> list[str]:
    return sorted(path.name[0] for path in cache.iterdir() if len(path.name) == 64)


def test_the_list_tells_of_every_data_set_its_size_use_and_state(cache: Path, capsys: Capture) -> None:
    assert main(["--folder", str(cache), "--format", "json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "now": "usable", "before": "usable", "outdated": "outdated", None: "broken",
    }  # fmt: skip
    assert rows["now"]["shards"] == 1
    assert rows["now"]["size"] == sum(file.stat().st_size for file in (cache / ("a" * 64)).iterdir())
    assert rows["now"]["options"] == {"image_size": 16}
    assert main(["list", "--folder", str(cache)]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("before", "image_size=16", "bbbbbbbb", "outdated", "broken"))


def test_prune_deletes_what_no_run_can_use(cache: Path, capsys: Capture) -> None:
    assert main(["prune", "--folder", str(cache)]) == 0
    assert left(cache) == ["a", "b"]
    assert "removed 2 of 4 data sets" in capsys.readouterr().out


def test_prune_deletes_what_was_not_used_for_so_long(cache: Path) -> None:
    assert main(["prune", "--unused", "11", "--folder", str(cache)]) == 0
    assert left(cache) == ["a", "b"]
    assert main(["prune", "--unused", "9", "--folder", str(cache)]) == 0
    assert left(cache) == ["a"]


def test_prune_all_leaves_what_is_not_its_own(cache: Path) -> None:
    assert main(["prune", "--all", "--folder", str(cache)]) == 0
    assert [path.name for path in cache.iterdir()] == ["somebody's own"]
    assert main(["--folder", str(cache)]) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--folder", "nowhere"], "error: folder: 'nowhere' is no folder"),
        (["prune", "--unused", "-1", "--folder", "."], "error: --unused: must be at least 0 days"),
        (["eat"], "invalid choice: 'eat'"),
    ],
)
def test_what_cannot_be_done_is_exit_code_2(arguments: list[str], told: str, capsys: Capture) -> None:
    assert main(arguments) == 2
    assert told in capsys.readouterr().err


def test_it_is_a_command(cache: Path, capsys: Capture) -> None:
    assert simulations.cli.main(["cache", "--folder", str(cache)]) == 0
    assert "usable" in capsys.readouterr().out
