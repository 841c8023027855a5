"""Hospitals that do not agree to a run say so before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations.program import BAD_INPUT, OK
from simulations.run import main

SMALL = [
    "engine=inprocess", "clients=3", "eps=1e6", "data.num_train=60", "data.num_val=40", "data.num_test=40",
    "model.width=4", "training.rounds=1", "training.local_steps=2", "training.expected_batch=8",
    "evaluation.bootstrap=0", "adversary.attack=none",
]  # fmt: skip
POLICY = "federation.site_policy"


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("highest_epsilon=8", "hospital-01 refuses: the plan's epsilon 1e+06 is above the ceiling of 8 (and 2 more)"),
        ("lowest_records=21", "hospital-01 refuses: 20 records are fewer than the least of 21 (and 2 more)"),
        ("allowed_tasks=[segmentation]", "the task 'binary' is not allowed, only: segmentation"),
        ("allowed_models=[resnet9]", "the model 'cnn' is not allowed, only: resnet9"),
        ("secure_noise=true", "only secure noise is allowed"),
        ("highest_epsilon=0", "highest_epsilon must be positive"),
    ],
)
def test_a_hospital_that_would_break_its_policy_stops_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, reason: str
) -> None:
    assert main([*SMALL, f"{POLICY}.{setting}", f"run_dir={tmp_path / 'run'}"]) == BAD_INPUT
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_policy_that_is_kept_is_not_in_the_way(tmp_path: Path) -> None:
    policy = [f"{POLICY}.highest_epsilon=1e6", f"{POLICY}.lowest_records=20", f"{POLICY}.allowed_tasks=[binary]"]
    assert main([*SMALL, *policy, f"run_dir={tmp_path / 'run'}"]) == OK
