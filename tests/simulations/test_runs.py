"""The list of runs: which folders are runs, in which state, and that one broken folder spoils nothing."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import simulations.cli
from simulations.run_list import Risk, listed, runs_in
from simulations.runs import main

Capture = pytest.CaptureFixture[str]

CONFIG = """name: {name}
clients: 3
eps: 1000000000000.0
data:
  name: phantom
training:
  rounds: {rounds}
"""
SUMMARY: dict[str, Any] = {
    "dataset": "phantom",
    "clients": 3,
    "rounds": 4,
    "privacy": {"eps": "inf"},
    "selection": ["auroc", "mcc"],
    "utility": {"mcc": 0.5, "auroc": 0.875},
    "model_sha256": "0123456789abcdef" * 4,
    "risk": {
        "worst_case": {"bound": 1.0, "attacks": [{"name": "membership", "success_rate": 0.25}]},
        "relaxed": {"bound": 1.0, "attacks": [{"name": "linear_probe", "success_rate": None}]},
        "realistic": {"bound": None, "attacks": [{"name": "imprint", "success_rate": 0.75}]},
    },
}


def begin(folder: Path, *, name: str = "trial", rounds: str = "4", done: int | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG.format(name=name, rounds=rounds))
    if done is not None:
        standing = json.dumps({"round": done, "course": {}})
        save_file({"global|w": torch.zeros(3)}, folder / "standing.safetensors", metadata={"standing": standing})
    return folder


def finish(folder: Path, **changes: Any) -> Path:
    (folder / "summary.json").write_text(json.dumps(SUMMARY | changes))
    return folder


def test_a_finished_run_has_its_figures(tmp_path: Path) -> None:
    run = listed(finish(begin(tmp_path / "r")))
    assert (run.state, run.name, run.data, run.clients, run.eps) == ("finished", "trial", "phantom", 3, float("inf"))
    assert (run.metric, run.utility, run.short_hash) == ("auroc", 0.875, "01234567")
    assert run.risk == Risk("imprint", "realistic", 0.75)
    assert not run.can_go_on


def test_a_figure_that_does_not_exist_and_a_run_without_attacks_are_listed(tmp_path: Path) -> None:
    nothing = {"worst_case": {"bound": 1.0, "attacks": []}}
    run = listed(finish(begin(tmp_path / "r"), utility={"auroc": None}, risk=nothing))
    assert (run.state, run.utility, run.risk) == ("finished", None, None)


@pytest.mark.parametrize("state", ["interrupted", "failed"])
def test_a_run_that_said_how_it_ended(tmp_path: Path, state: str, capsys: Capture) -> None:
    folder = begin(tmp_path / "r", rounds="null", done=2)
    (folder / "ending.json").write_text(json.dumps({"state": state, "reason": "hospital-01: boom", "rounds": 7}))
    run = listed(folder)
    assert (run.state, run.rounds_done, run.rounds) == (state, 2, 7)
    assert run.reason == ("hospital-01: boom" if state == "failed" else None)
    assert main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"{state} after round 2 of 7" in shown
    assert f"go on with: hbdp-fed run resume={folder}" in shown


def test_a_run_that_left_no_word_may_still_be_running(tmp_path: Path, capsys: Capture) -> None:
    folder = begin(tmp_path / "r")
    run = listed(folder)
    assert (run.state, run.rounds_done, run.rounds) == ("unfinished", 0, 4)
    assert main([str(tmp_path)]) == 0
    assert "or still running" in capsys.readouterr().out


def test_runs_of_nested_folders_are_sorted_by_time_and_not_searched_themselves(tmp_path: Path) -> None:
    finish(begin(tmp_path / "20260102-000000_new"))
    finish(begin(tmp_path / "table" / "eps-1" / "20260101-000000_old"))
    begin(tmp_path / "20260102-000000_new" / "attacks" / "20250101-000000")
    begin(tmp_path / ".hidden" / "run")
    assert [run.folder.name for run in runs_in(tmp_path)] == ["20260101-000000_old", "20260102-000000_new"]
    assert [run.folder for run in runs_in(tmp_path / "20260102-000000_new")] == [tmp_path / "20260102-000000_new"]


def broken(folder: Path, kind: str) -> Path:
    begin(folder)
    contents = {
        "config": ("config.yaml", b"name: ["),
        "empty config": ("config.yaml", b""),
        "binary config": ("config.yaml", b"\xff\xfe\x00"),
        "other config": ("config.yaml", b"name: x"),
        "half a summary": ("summary.json", b'{"dataset": '),
        "another summary": ("summary.json", b"[]"),
        "a summary that lacks all": ("summary.json", b"{}"),
        "a standing that is none": ("standing.safetensors", b"abc"),
        "a longer standing that is none": ("standing.safetensors", b"\xff" * 100),
        "an ending that is none": ("ending.json", b"[1]"),
    }
    name, content = contents[kind]
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    "kind",
    ["config", "empty config", "binary config", "other config", "half a summary", "another summary",
     "a summary that lacks all", "a standing that is none", "a longer standing that is none", "an ending that is none"],
)  # fmt: skip
def test_a_broken_folder_is_shown_as_such_among_the_others(tmp_path: Path, capsys: Capture, kind: str) -> None:
    broken(tmp_path / "bad", kind)
    finish(begin(tmp_path / "good"))
    assert {run.folder.name: run.state for run in runs_in(tmp_path)} == {"bad": "broken", "good": "finished"}
    assert main([str(tmp_path)]) == 0
    assert f"broken: {tmp_path / 'bad'}: " in capsys.readouterr().out


def test_json_and_csv_have_every_figure(tmp_path: Path, capsys: Capture) -> None:
    finish(begin(tmp_path / "20260101-000000_a"))
    begin(tmp_path / "20260102-000000_b c", done=3)
    assert main([str(tmp_path), "--format", "json"]) == 0
    done, cut_off = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert done["eps"] == "inf"
    assert done["risk"] == {"attack": "imprint", "threat_model": "realistic", "success_rate": 0.75}
    assert done["model_sha256"] == SUMMARY["model_sha256"]
    assert done["resume"] is None
    assert cut_off["resume"] == f"hbdp-fed run resume='{tmp_path / '20260102-000000_b c'}'"
    assert cut_off["when"] == "2026-01-02 00:00:00"
    assert main([str(tmp_path), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["state"] for row in rows] == ["finished", "unfinished"]
    assert (rows[0]["risk_attack"], rows[0]["risk_success_rate"], rows[0]["utility"]) == ("imprint", "0.75", "0.875")
    assert (rows[1]["rounds_done"], rows[1]["rounds"]) == ("3", "4")


def test_the_table_never_loses_the_folder(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "a_table_of_budgets/eps-1e12_and_seed-0"
    finish(begin(tmp_path / folder))
    assert main([str(tmp_path)]) == 0
    wide = capsys.readouterr().out
    for part in (folder, "trial", "AUROC 0.875", "75.0% imprint", "01234567", "inf"):
        assert part in wide
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    assert main([str(tmp_path)]) == 0
    narrow = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out)
    assert folder in "".join(narrow.split())
    assert "no room for: " in narrow
    assert max(map(len, narrow.partition("no room")[0].splitlines()[1:])) <= 60


def test_an_empty_folder_has_no_runs_and_a_missing_one_is_refused(tmp_path: Path, capsys: Capture) -> None:
    assert main([str(tmp_path)]) == 0
    assert "no runs" in capsys.readouterr().out
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "is no folder" in capsys.readouterr().err
    assert main(["--format", "xml"]) == 2
    assert main(["--help"]) == 0
    assert simulations.cli.main(["runs", str(tmp_path)]) == 0


def test_listing_loads_no_pytorch() -> None:
    program = "import sys, simulations.runs; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
