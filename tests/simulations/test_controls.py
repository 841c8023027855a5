"""Controls of the whole chain: client app, DP-SGD step, codec, tap, attack, audit. What lies between is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from simulations.run import main

QUICK = ["engine=inprocess", "adversary.attack=imprint", "training.rounds=1", "training.local_steps=1", "model.width=4"]
PHANTOM = ["data.num_val=200", "data.num_test=20"]


def imprint(folder: Path, *arguments: str) -> dict[str, Any]:
    assert main([*QUICK, *arguments, f"run_dir={folder}"]) == 0
    (attack,) = json.loads((folder / "summary.json").read_text())["risk"]["realistic"]["attacks"]
    assert isinstance(attack, dict)
    return attack


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
