"""Controls of the whole chain: client app, DP-SGD step, codec, tap, attack, audit. What lies between is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simulations.run import main

QUICK = ["engine=inprocess", "training.rounds=1", "training.local_steps=1", "model.width=4", "evaluation.bootstrap=0"]
PHANTOM = ["data.num_val=200", "data.num_test=20"]
GAMES = ["data.num_val=20", "data.num_test=60", "adversary.candidates=16", "adversary.targets=200"]


def attacked(name: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """The one entry of a run that was put to one attack."""
    assert main([*QUICK, f"adversary.attack={name}", *arguments, f"run_dir={folder}"]) == 0
    risk = json.loads((folder / "summary.json").read_text())["risk"]
    (attack,) = (entry for model in risk.values() for entry in model["attacks"])
    assert isinstance(attack, dict)
    return attack


def imprint(folder: Path, *arguments: str) -> dict[str, Any]:
    return attacked("imprint", folder, *arguments)


def test_positive_control_without_noise_a_lone_record_comes_back(tmp_path: Path) -> None:
    attack = imprint(tmp_path / "r", *PHANTOM, "eps=inf", "clients=3", "data.num_train=3")
    assert attack["records"] == 3
    assert attack["ssim_mean"] >= 0.95
    assert attack["success_rate"] == 1.0


def test_positive_control_with_clipping_a_lone_record_comes_back(tmp_path: Path) -> None:
    # At 1e15 and two steps the noise is as good as none, but every gradient is clipped.
    attack = imprint(tmp_path / "r", *PHANTOM, "eps=1e15", "clients=3", "data.num_train=3")
    assert attack["ssim_mean"] >= 0.95
    assert attack["success_rate"] == 1.0


def test_negative_control_at_epsilon_one_nothing_succeeds(tmp_path: Path) -> None:
    attack = imprint(tmp_path / "r", *PHANTOM, "eps=1", "clients=2", "data.num_train=200", "adversary.probes=3")
    assert attack["records"] > 50
    assert attack["success_rate"] == 0.0


def test_negative_control_at_epsilon_one_no_xray_comes_back(tmp_path: Path, hbdp_data: Path) -> None:
    attack = imprint(tmp_path / "r", "data=pneumoniamnist", "eps=1", "clients=5")
    assert attack["records"] > 100
    assert attack["success_rate"] == 0.0


def test_positive_control_without_noise_trap_weights_give_back_records_of_a_batch(tmp_path: Path) -> None:
    attack = attacked(
        "trap_weights", tmp_path / "r", *PHANTOM, "eps=inf", "clients=2", "data.num_train=48",
        "training.expected_batch=12", "adversary.bins=128", "adversary.thresholds=[0.95]",
    )  # fmt: skip
    assert attack["records"] > 12
    assert attack["success_rate"] >= 0.25
    assert attack["ssim_max"] >= 0.95
    assert attack["control_success_rate"] == 0.0


@pytest.mark.parametrize("eps", ["inf", "1e15"])
def test_positive_control_the_linear_probe_gives_back_every_record(tmp_path: Path, eps: str) -> None:
    # At 1e15 the noise is as good as none, but every gradient is clipped.
    attack = attacked(
        "linear_probe", tmp_path / "r", *PHANTOM, f"eps={eps}", "clients=2", "data.num_train=48",
        "training.expected_batch=12",
    )  # fmt: skip
    assert attack["records"] > 12
    assert attack["success_rate"] == 1.0
    assert attack["ssim_mean"] >= 0.95
    assert attack["control_success_rate"] == 0.0


@pytest.mark.parametrize("eps", ["inf", "1e15"])
@pytest.mark.parametrize("surface", ["gradient", "update"])
def test_positive_control_every_record_that_was_drawn_is_named_among_candidates(
    tmp_path: Path, eps: str, surface: str
) -> None:
    # An expected batch of all records draws each of them in every step.
    attack = attacked(
        "candidate_matching", tmp_path / "r", *GAMES, f"eps={eps}", "clients=3", "data.num_train=30",
        "training.expected_batch=10", f"adversary.surfaces=[{surface}]",
    )  # fmt: skip
    assert attack["records"] == 30
    assert attack["success_rate"] == 1.0
    assert attack["bound"] == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["linear_probe", "trap_weights"])
def test_negative_control_at_epsilon_one_no_other_probe_gives_anything_back(tmp_path: Path, name: str) -> None:
    attack = attacked(
        name, tmp_path / "r", *PHANTOM, "eps=1", "clients=2", "data.num_train=200", "adversary.bins=128",
    )  # fmt: skip
    assert attack["records"] > 50
    assert attack["success_rate"] == 0.0
    assert attack["ssim_max"] < 0.6


def test_negative_control_at_epsilon_one_naming_a_record_is_little_better_than_a_guess(tmp_path: Path) -> None:
    # Games of one hospital share its noise: many hospitals make an interval that says something.
    attack = attacked(
        "candidate_matching", tmp_path / "r", *GAMES, "eps=1", "clients=10", "data.num_train=200",
        "training.expected_batch=4", "evaluation.matrix=0",
    )  # fmt: skip
    low, high = attack["success_rate_ci95"]
    assert attack["records"] == 200
    assert attack["baseline_success_rate"] == 1 / 16 < attack["optimal"] <= attack["bound"] < 0.1
    assert low <= attack["bound"]
    assert low < attack["baseline_success_rate"] < high
    assert attack["success_rate"] < 0.2
    assert attack["above_bound"] is False
