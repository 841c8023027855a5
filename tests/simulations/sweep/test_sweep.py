"""A sweep as a user starts it: killed, gone on with, and read by other programs."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulations.run import main as run
from simulations.sweep.__main__ import main as sweep

SMALL = [
    "engine=inprocess", "clients=2", "training.rounds=2", "training.local_steps=2", "training.expected_batch=8",
    "data.num_train=60",
    "data.num_val=40", "data.num_test=60", "model.width=4", "adversary.bins=32", "evaluation.bootstrap=0",
    "adversary.attack=[imprint,candidate_matching]", "adversary.targets=4", "adversary.candidates=4",
]  # fmt: skip
BUDGETS = "eps=[8,inf]"
WAIT_S = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that was killed once its first run was done, and then gone on with."""
    path = tmp_path_factory.mktemp("sweeps") / "sweep"
    command = [sys.executable, "-m", "simulations.sweep", BUDGETS, "seeds=1", "parallel=1", f"sweep_dir={path}", *SMALL]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = time.monotonic() + WAIT_S
    while not (path / "eps-8_seed-0" / "summary.json").exists():
        assert process.poll() is None, "the sweep ended by itself"
        assert time.monotonic() < until, "no run was done in time"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = (path / "eps-8_seed-0" / "summary.json").stat().st_mtime_ns
    # The run that was at work sees that the sweep is gone, and lets go of the folder.
    while (code := sweep([f"resume={path}", "parallel=2"])) == 2:
        assert time.monotonic() < until, "an orphan keeps the folder"
        time.sleep(0.2)
    assert code == 0
    assert (path / "eps-8_seed-0" / "summary.json").stat().st_mtime_ns == first, "a finished run was run again"
    return path


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "sweep.json").read_text(), parse_constant=pytest.fail)
    return value


def budgets(found: dict[str, Any]) -> list[dict[str, Any]]:
    (group,) = found["groups"]
    entries: list[dict[str, Any]] = group["budgets"]
    return entries


def test_every_budget_has_its_runs_and_nothing_is_left(folder: Path, found: dict[str, Any]) -> None:
    assert [(entry["eps"], entry["runs"]) for entry in budgets(found)] == [
        (8.0, ["eps-8_seed-0"]), ("inf", ["eps-inf_seed-0"]),
    ]  # fmt: skip
    assert (found["pending"], found["failures"]) == (0, [])
    for entry in budgets(found):
        for name in entry["runs"]:
            assert (folder / name / "summary.json").is_file()
            assert (folder / f"{name}_pooled" / "summary.json").is_file()


def test_figures_are_those_of_the_runs(folder: Path, found: dict[str, Any]) -> None:
    for entry in budgets(found):
        summary = json.loads((folder / entry["runs"][0] / "summary.json").read_text())
        assert entry["utility"]["auroc"]["values"] == [summary["utility"]["auroc"]]
        for model in ("worst_case", "realistic"):
            (own,), (pooled,) = summary["risk"][model]["attacks"], entry["risk"][model]["attacks"]
            assert pooled["success_rate"] == pytest.approx(own["success_rate"])
            assert pooled["success_rate_ci95"] == pytest.approx(own["success_rate_ci95"], abs=1e-12)
        assert entry["risk"]["worst_case"]["bound"] == summary["risk"]["worst_case"]["bound"]
    private, control = budgets(found)
    difference = private["utility"]["auroc"]["difference"]
    assert difference["mean"] == pytest.approx(
        private["utility"]["auroc"]["mean"] - control["utility"]["auroc"]["mean"]
    )
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert control["utility"]["auroc"]["difference"] is None


def test_a_run_of_a_sweep_is_the_run_that_one_would_start_oneself(folder: Path, tmp_path: Path) -> None:
    assert run([*SMALL, "eps=8", "seed=0", "engine=inprocess", f"run_dir={tmp_path / 'own'}"]) == 0
    own, swept = (
        json.loads((path / "summary.json").read_text()) for path in (tmp_path / "own", folder / "eps-8_seed-0")
    )
    assert own["model_sha256"] == swept["model_sha256"]
    assert own["risk"] == swept["risk"]


def test_whoever_is_compared_has_the_same_noise_and_is_judged_on_the_same_records(folder: Path) -> None:
    federated = json.loads((folder / "eps-8_seed-0" / "summary.json").read_text())
    others = [
        json.loads((folder / f"eps-8_seed-0_{how}" / "summary.json").read_text())
        for how in ("pooled", "alone-hospital-01", "alone-hospital-02")
    ]
    mechanism = ("sample_rate", "steps", "noise_multiplier", "max_grad_norm")
    wanted = [federated["privacy"]["hospitals"][0][name] for name in mechanism]
    truth = np.load(folder / "eps-8_seed-0" / "predictions.npz", allow_pickle=False)["labels"]
    for other, how in zip(others, ("pooled", "alone-hospital-01", "alone-hospital-02"), strict=True):
        (own,) = other["privacy"]["hospitals"]
        assert [own[name] for name in mechanism] == wanted
        assert [entry["name"] for entry in other["utility_per_hospital"]] == ["hospital-01", "hospital-02"]
        labels = np.load(folder / f"eps-8_seed-0_{how}" / "predictions.npz", allow_pickle=False)["labels"]
        assert np.array_equal(labels, truth)
    assert [other["privacy"]["hospitals"][0]["num_records"] for other in others] == [60, 30, 30]


def test_what_joining_is_worth_is_the_difference_on_a_hospitals_own_records(
    folder: Path, found: dict[str, Any]
) -> None:
    (entry,) = (one for one in budgets(found)[0]["joining"] if one["name"] == "hospital-02")
    together, alone = (
        next(one for one in json.loads((folder / name / "summary.json").read_text())["utility_per_hospital"]
             if one["name"] == "hospital-02")["auroc"]
        for name in ("eps-8_seed-0", "eps-8_seed-0_alone-hospital-02")
    )  # fmt: skip
    assert entry["gain"]["auroc"]["mean"] == pytest.approx(together - alone)


def test_tables_and_pictures_are_there(folder: Path, found: dict[str, Any]) -> None:
    page = (folder / "sweep.md").read_text()
    assert "| 8 |" in page
    assert "candidate matching" in page
    assert (folder / "figures" / "imprint_gradient.png").stat().st_size > 1000
    report = (folder / "report.html").read_text()
    assert "Utility and risk at each budget" in report
    assert report.count("data:image/png;base64,") == 3
    with (folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    (value,) = (row["value"] for row in rows if (row["eps"], row["figure"]) == ("8.0", "utility.auroc.mean"))
    assert float(value) == budgets(found)[0]["utility"]["auroc"]["mean"]


def test_a_finished_sweep_repeats_nothing_and_another_one_is_kept_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/summary.json")}
    assert sweep([BUDGETS, "seeds=1", f"sweep_dir={folder}", *SMALL]) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/summary.json")} == before
    capsys.readouterr()
    assert sweep([BUDGETS, "seeds=1", f"sweep_dir={folder}", *SMALL, "training.learning_rate=0.5"]) == 2
    assert "choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seeds=0"], "seeds: must be how many"),
        (["seeds=[1,1]"], "names a seed twice"),
        (["compared=[together]"], "choose one of: alone, pooled"),
        (["parallel=0"], "parallel: must be at least 1"),
        (["cpus_per_run=1000"], "cpus_per_run: must be from 1"),
        (["clients=[2,100000]"], "clients"),
        (["eps=[1,-1]"], "eps: must be a positive number"),
        (["data=pneumoniamnist", "data.size=29"], "data"),
        (["resume=/nowhere"], "holds no sweep"),
        (["resume=/nowhere", "eps=1"], "cannot be set beside it"),
    ],
)
def test_what_cannot_be_swept_is_told_in_one_line_before_anything_is_made(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "sweep"
    own = [] if any(text.startswith("resume") for text in arguments) else [f"sweep_dir={target}"]
    assert sweep([*arguments, *own]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
    assert not target.exists()
