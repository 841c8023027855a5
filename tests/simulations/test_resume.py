"""Runs that are cut off and gone on with: the end is that of the run that nobody disturbed."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from hbdp_fed.privacy.ledger import verify
from simulations.headers import last_round
from simulations.program import BAD_INPUT, FAILED, INTERRUPTED, OK
from simulations.run import main
from simulations.run_folder import RunFolder
from simulations.run_list import listed

SMALL = [
    "engine=inprocess", "clients=3", "eps=1e9", "data.num_train=60", "data.num_val=40", "data.num_test=40",
    "model.width=4", "training.rounds=4", "training.local_steps=2", "training.expected_batch=8",
    "evaluation.bootstrap=0", "adversary.attack=[imprint]", "adversary.bins=16", "training.ema_decay=0.5",
    "federation.server_optimizer=nadam", "federation.server_learning_rate=0.05",
]  # fmt: skip


def outcome(folder: Path) -> dict[str, Any]:
    """Everything of a run that has to be the same."""
    summary = json.loads((folder / "summary.json").read_text())
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    logs = sorted((folder / "logs").iterdir())
    head = verify(folder / "ledger.jsonl").head
    assert summary["ledger"] == {"lines": head.count, "hash": head.hash}
    return {
        "ledger": head,
        "rounds": [{key: value for key, value in line.items() if key != "seconds"} for line in lines],
        "logs": {path.name: re.sub(r"^\S+ \S+|[0-9.]+ s ", "", path.read_text(), flags=re.MULTILINE) for path in logs},
        **{
            key: summary[key]
            for key in ("model_sha256", "utility", "utility_validation", "validation_history", "risk", "participation")
        },
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main([*SMALL, f"run_dir={folder}"]) == OK
    return outcome(folder)


class PowerCut(BaseException):
    """Nobody catches this, as nobody survives a power cut."""


def cut_off(monkeypatch: pytest.MonkeyPatch, method: str, *, at: int) -> None:
    """Let the ``at``-th call of one of the run folder's methods be the last thing that happens."""
    calls = 0
    original = getattr(RunFolder, method)

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise PowerCut
        return original(*arguments, **named)

    monkeypatch.setattr(RunFolder, method, counted)


@pytest.mark.parametrize(
    ("method", "at"),
    [
        ("write_checkpoint", 1),  # before the first round
        ("write_checkpoint", 3),  # when all hospitals had answered round 2
        ("write_update", 5),  # in the middle of round 2
        ("append_round", 8),  # charged, but not written down
        ("append_round", 14),  # between the answers to the probe
        ("write_predictions", 1),  # after training
        ("write_summary", 1),  # at the very end
    ],
)
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(
    undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, at: int
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        cut_off(patched, method, at=at)
        with pytest.raises(PowerCut):
            main([*SMALL, f"run_dir={folder}"])
    assert not (folder / "summary.json").exists()
    assert listed(folder).can_go_on
    assert main([f"resume={folder}"]) == OK
    assert outcome(folder) == undisturbed


def test_a_run_may_be_cut_off_again_and_again(
    undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    first = [*SMALL, f"run_dir={folder}"]
    for at in (2, 2, 3):
        with monkeypatch.context() as patched:
            cut_off(patched, "write_checkpoint", at=at)
            with pytest.raises(PowerCut):
                main(first)
        first = [f"resume={folder}"]
    assert main(first) == OK
    assert outcome(folder) == undisturbed


def test_rounds_that_were_not_written_down_are_computed_again(
    undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed outright, so that nothing can be saved at the end, in round 4 of a run that saves every third round."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        cut_off(patched, "write_update", at=11)
        patched.setattr("simulations.execute._Log.save_the_rest", lambda _: None)
        with pytest.raises(PowerCut):
            main([*SMALL, "federation.save_every=3", f"run_dir={folder}"])
    assert last_round(folder / "standing.safetensors") == 3
    assert main([f"resume={folder}"]) == OK
    assert outcome(folder) == undisturbed


def test_a_run_that_ends_early_saves_what_was_not_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        cut_off(patched, "write_update", at=8)
        with pytest.raises(PowerCut):
            main([*SMALL, "federation.save_every=3", f"run_dir={folder}"])
    assert last_round(folder / "standing.safetensors") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_round_and_says_how_to_go_on(
    undisturbed: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    folder = tmp_path / "run"
    original = RunFolder.write_update

    def signalled(self: RunFolder, update: Any) -> None:
        original(self, update)
        if (update.round, update.hospital) == (2, "hospital-01"):
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write_update", signalled)
        assert main([*SMALL, f"run_dir={folder}"]) == INTERRUPTED
    printed = capsys.readouterr()
    assert "finishing this round" in printed.out
    assert f"go on with: python -m simulations.run resume={folder}" in printed.out
    assert "interrupted after round 2" in printed.err
    assert sorted(path.name for path in (folder / "checkpoints").iterdir())[-1] == "round-0002.safetensors"
    run = listed(folder)
    assert (run.state, run.rounds_done, run.rounds) == ("interrupted", 2, 4)
    assert main([f"resume={folder}"]) == OK
    assert outcome(folder) == undisturbed
    run = listed(folder)
    assert (run.state, run.model_sha256) == ("finished", undisturbed["model_sha256"])
    assert (run.metric, run.utility) == ("mcc", undisturbed["utility"]["mcc"])
    assert not (folder / "ending.json").exists()


def test_what_cannot_be_gone_on_with_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refusal(*arguments: str) -> str:
        assert main(arguments) == BAD_INPUT
        return capsys.readouterr().err

    assert "holds no run" in refusal(f"resume={tmp_path}")
    folder = tmp_path / "run"
    assert main([*SMALL, "training.rounds=1", "adversary.attack=none", f"run_dir={folder}"]) == OK
    assert "is finished" in refusal(f"resume={folder}")
    assert "only engine.* can be set, not eps=8" in refusal(f"resume={folder}", "eps=8")


def test_a_ledger_that_was_tampered_with_stops_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        cut_off(patched, "write_checkpoint", at=3)
        with pytest.raises(PowerCut):
            main([*SMALL, f"run_dir={folder}"])
    ledger = folder / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join([*lines[:4], lines[4].replace("hospital-02", "hospital-03"), *lines[5:]]))
    assert main([f"resume={folder}"]) == FAILED
    assert "ledger.jsonl: line 5" in capsys.readouterr().err


def test_failures_that_are_tolerated_are_told_and_charged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    faults = "[{hospital: hospital-02, round: 2, kind: oversize}, {hospital: hospital-03, round: 5, kind: empty}]"
    arguments = [*SMALL, "federation.on_failure=tolerate", f"federation.faults={faults}", f"run_dir={folder}"]
    assert main(arguments) == OK
    summary = json.loads((folder / "summary.json").read_text())
    participation = summary["participation"]
    assert [hospital["course"] for hospital in participation.pop("hospitals")] == ["uuuuu", "ufuuu", "uuuuf"]
    assert participation == {
        "expected": 15,
        "completed": 13,
        "failed": 2,
        "offline": 0,
        "late": 0,
        "failures": [
            {"hospital": "hospital-02", "round": 2, "kind": "oversize"},
            {"hospital": "hospital-03", "round": 5, "kind": "empty"},
        ],
    }
    accounts = verify(folder / "ledger.jsonl").accounts
    # Computed and perhaps seen by somebody: charged like every other round.
    assert {name: (account.steps_spent, account.lost) for name, account in accounts.items()} == {
        "hospital-01": (9, 0),
        "hospital-02": (9, 1),
        "hospital-03": (9, 1),
    }
    failed = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines() if '"failed"' in line]
    assert [(line["hospital"], line["round"], line["failure"]) for line in failed] == [
        ("hospital-02", 2, "oversize"),
        ("hospital-03", 5, "empty"),
    ]
    assert "round 2     FAILED: oversize  steps 4 of 9" in (folder / "logs" / "hospital-02.log").read_text()
    shown = capsys.readouterr().out
    assert "round 2: hospital-02 failed (oversize): the update has norm" in shown
    assert "round 5: hospital-03 failed (empty): the answer holds no update" in shown


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("federation.participation=0", "must lie in \\(0, 1\\], got 0"),
        ("federation.min_hospitals=4", "at most the 3 hospitals that a round asks, got 4"),
        ("federation.on_failure=ignore", "'ignore' is not known; choose one of: abort, tolerate"),
        ("federation.aggregation=krum", "federation.byzantine"),
        ("federation.faults=[{hospital: nobody, round: 1, kind: empty}]", "'nobody' is not known"),
        ("federation.faults=[{hospital: hospital-01, round: 1, kind: flood}]", "'flood' is not known"),
        ("federation.faults=[{hospital: hospital-01, round: 1, kind: killed}]", "needs processes of their own"),
        ("federation.faults=[1]", "must be a list of"),
    ],
)
def test_settings_of_failures_are_checked_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, words: str
) -> None:
    assert main([*SMALL, setting, f"run_dir={tmp_path / 'run'}"]) == BAD_INPUT
    assert re.search(words, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_hospitals_plan_with_the_rounds_that_they_are_asked_in(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main([*SMALL, "federation.participation=0.34", f"run_dir={folder}"]) == OK
    accounts = verify(folder / "ledger.jsonl").accounts
    rounds = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    for name, account in accounts.items():
        asked = sum(line["hospital"] == name and line["kind"] == "train" for line in rounds)
        assert account.steps_spent == account.plan.steps_planned == 2 * asked + 1
    assert len([line for line in rounds if line["kind"] == "train"]) == 4


def test_a_hospital_that_is_never_asked_is_in_the_summary_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    once = ["federation.participation=0.34", "training.rounds=1", "adversary.attack=none", "evaluation.matrix=2"]
    assert main([*SMALL, *once, f"run_dir={folder}"]) == OK
    summary = json.loads((folder / "summary.json").read_text())
    asked = {json.loads(line)["hospital"] for line in (folder / "rounds.jsonl").read_text().splitlines()}
    assert len(asked) < len(summary["noise_to_resolution"])
    assert summary["utility_matrix"] is None  # by the hospitals that there are, not by those that were asked
    for entry in summary["noise_to_resolution"]:
        assert (entry["clipped_sum"] is None) == (entry["name"] not in asked)
        assert (entry["effectively_gaussian"] is None) == (entry["name"] not in asked)
    assert (folder / "report.html").exists()
