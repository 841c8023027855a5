"""The setting data.cache: a second start of a run reads and writes no records, and comes to the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hbdp_fed.data.cache import contents
from simulations import data_cache, execute
from simulations.run import main
from tests.data import test_chest_xray
from tests.simulations.small_runs import BARE

CHEST = [
    "data=chest_xray", "data.image_size=16", "engine=inprocess", "clients=2", "model.width=4", "training.rounds=1",
    "training.local_steps=2", "training.expected_batch=8", *BARE,
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("HBDP_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(contents, "SETTLED_NS", 0)
    monkeypatch.setattr(data_cache, "AUTO_FOLDER", tmp_path / "auto")
    test_chest_xray.write_set(tmp_path / "data", persons=10)
    return tmp_path / "data"


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    assert main([*CHEST, f"run_dir={folder}", *arguments]) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert isinstance(summary, dict)
    return summary


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file's inode and size: a file that is written again is another one."""
    return {str(path): (path.stat().st_ino, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("a second start reads and writes no records")


@pytest.mark.parametrize("shift", ["0", "0.5"])
def test_a_second_start_reads_and_writes_no_records_and_trains_the_same_model(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: str
) -> None:
    own = [f"data.cache={tmp_path / 'own'}", f"data.scanner_shift={shift}"]
    without = run(tmp_path / "without", "data.cache=none", f"data.scanner_shift={shift}")
    first = run(tmp_path / "first", *own)
    kept = state(tmp_path / "own")
    # Two hospitals' shards and, where scanners differ, the two other splits as they show them.
    assert sum(name.endswith(".safetensors") for name in kept) == (3 if shift == "0" else 5)
    monkeypatch.setattr("hbdp_fed.data.photographs.Image.open", refuse)
    monkeypatch.setattr(execute, "write_shard", refuse)
    second = run(tmp_path / "second", *own)
    assert state(tmp_path / "own") == kept
    for summary in (first, second):
        assert summary["model_sha256"] == without["model_sha256"]
        assert summary["utility"] == without["utility"]
        assert summary["partition"] == without["partition"]


def test_auto_keeps_records_that_are_read_and_none_keeps_nothing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "none", "data.cache=none")
    assert "kept" not in capsys.readouterr().out
    assert not (tmp_path / "auto").exists()
    run(tmp_path / "auto_run")
    assert f"(prepared records are kept in {tmp_path / 'auto'}; data.cache=none keeps none)" in capsys.readouterr().out
    assert state(tmp_path / "auto")


def test_where_records_are_kept_is_nobody_elses_business(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(folder, f"data.cache={tmp_path / 'secret_place'}")
    assert "secret_place" in (folder / "config.yaml").read_text()
    for name in ("report.md", "card.json", "summary.json"):
        assert "secret_place" not in (folder / name).read_text()


def test_a_cache_that_is_a_file_is_refused_before_anything_is_read(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main([*CHEST, f"data.cache={tmp_path / 'file'}", f"run_dir={tmp_path / 'run'}"]) == 2
    assert "error: data.cache: " in capsys.readouterr().err
    assert main([*CHEST, "data.cache=", f"run_dir={tmp_path / 'run'}"]) == 2
    assert "error: data.cache: must not be empty" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
