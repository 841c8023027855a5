"""Everything that can go wrong with a hospital, in one run on Ray: each is named, and none of it reaches the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hbdp_fed.federation.faults import FAULTS, NEED_PROCESSES
from hbdp_fed.privacy.ledger import verify
from simulations.program import FAILED, OK
from simulations.run import main

NAMED = {
    "exception": "exception", "timeout": "timeout", "killed": "lost", "not_a_number": "not_finite",
    "infinite": "not_finite", "wrong_shape": "wrong_shape", "wrong_dtype": "wrong_dtype", "oversize": "oversize",
    "empty": "empty", "duplicate": "duplicate",
}  # fmt: skip
"""By fault, what the server calls it."""

SETTINGS = [
    "clients=11", "eps=1e9", "data.num_train=220", "data.num_val=40", "data.num_test=40", "model.width=4",
    "training.rounds=4", "training.local_steps=2", "training.expected_batch=8", "evaluation.bootstrap=0",
    "evaluation.matrix=0", "adversary.attack=none", "engine.workers=2",
]  # fmt: skip


def faults_of(kinds: Mapping[str, str]) -> str:
    """Hospital by hospital, one fault each, spread over rounds 2 and 3."""
    placed = enumerate(kinds.values())
    return ", ".join(
        f"{{hospital: hospital-{place + 1:02d}, round: {2 + place % 2}, kind: {kind}}}" for place, kind in placed
    )


def run(folder: Path, faults: str, *more: str) -> int:
    return main([*SETTINGS, f"federation.faults=[{faults}]", f"run_dir={folder}", *more])


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    return json.loads((folder / "summary.json").read_text()), lines


def test_all_of_them_in_one_run(tmp_path: Path) -> None:
    assert set(NAMED) == set(FAULTS)
    kinds = {kind: kind for kind in NAMED}
    tolerant = ("federation.on_failure=tolerate",)
    assert run(tmp_path / "all", faults_of(kinds), *tolerant, "federation.round_timeout_s=6") == OK
    summary, lines = read(tmp_path / "all")
    expected = [(f"hospital-{place + 1:02d}", 2 + place % 2, NAMED[kind]) for place, kind in enumerate(NAMED)]
    failed = [(line["hospital"], line["round"], line["failure"]) for line in lines if line["status"] == "failed"]
    assert sorted(failed) == sorted(expected)
    verify(tmp_path / "all" / "ledger.jsonl")

    # The same model as where these hospitals sent nothing; of the answer that came twice, the first one counts.
    nothing = {kind: "duplicate" if kind == "duplicate" else "empty" for kind in NAMED}
    assert run(tmp_path / "nothing", faults_of(nothing), *tolerant, "engine=inprocess", "engine.workers=1") == OK
    assert summary["model_sha256"] == read(tmp_path / "nothing")[0]["model_sha256"]


def test_the_first_one_ends_a_run_that_tolerates_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = ("engine=inprocess", "engine.workers=1")
    kinds = {kind: kind for kind in NAMED if kind not in NEED_PROCESSES}
    assert run(tmp_path / "run", faults_of(kinds), "federation.on_failure=abort", *here) == FAILED
    assert "hospital-01" in capsys.readouterr().err
    assert not (tmp_path / "run" / "summary.json").exists()
    assert (tmp_path / "run" / "standing.safetensors").exists()
