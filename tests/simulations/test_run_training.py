"""The main job's settings of training and noise: that they reach the hospitals, and what the run says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hbdp_fed.adversary import load_observation
from hbdp_fed.models import weights_sha256
from tests.simulations.small_runs import BARE, run


@pytest.mark.parametrize("optimizer", ["sgd", "nadam", "adamw"])
def test_every_way_to_train_is_attacked_as_well(tmp_path: Path, optimizer: str) -> None:
    """The probe's learning rate is the schedule's last; the optimiser's step is undone; views are what is matched."""
    rate = 0.1 if optimizer == "sgd" else 1e-3
    summary = run(
        tmp_path / "r", f"training.optimizer={optimizer}", f"training.learning_rate={rate}", "training.schedule=cosine",
        "training.weight_decay=1e-3", "training.warmup=0.2", "training.augmentation=flip",
    )  # fmt: skip
    observation = load_observation(tmp_path / "r/observations", "imprint_round-0003_hospital-01")
    assert observation.public.optimizer.name == optimizer
    assert observation.public.optimizer.learning_rate == pytest.approx(0.01 * rate)
    (attack,) = summary["risk"]["realistic"]["attacks"]
    assert attack["success_rate"] > 0.6
    assert attack["control_success_rate"] < 0.1


def test_all_training_settings_reach_the_hospitals_and_the_summary(tmp_path: Path) -> None:
    chosen = {
        "optimizer": "nadam", "learning_rate": 0.002, "momentum": 0.8, "weight_decay": 1e-4, "schedule": "linear",
        "warmup": 0.25, "final_fraction": 0.1, "augmentation": "flip_shift", "multiplicity": 2, "ema_decay": 0.5,
        "grad_mode": "torch_func", "precision": "float64", "max_physical_batch": 8,
    }  # fmt: skip
    # What is attacked under each optimiser is held above.
    summary = run(tmp_path / "r", *(f"training.{key}={value}" for key, value in chosen.items()), *BARE)
    assert summary["hyperparameters"].items() >= chosen.items()
    assert summary["hyperparameters"]["rounds"] == 2
    plain = run(tmp_path / "p", "training.learning_rate=0.002", *BARE)
    for key in ("optimizer", "schedule", "augmentation", "multiplicity", "precision", "grad_mode"):
        wanted = chosen[key] if key != "precision" else "bf16"
        other = run(tmp_path / key, f"training.{key}={wanted}", "training.learning_rate=0.002", *BARE)
        assert other["model_sha256"] != plain["model_sha256"], key


def test_the_released_model_is_the_moving_average_and_training_goes_on_from_the_weights(tmp_path: Path) -> None:
    plain = run(tmp_path / "a", "training.rounds=4", *BARE)
    averaged = run(tmp_path / "b", "training.rounds=4", "training.ema_decay=0.9", *BARE)
    checkpoints = [load_file(tmp_path / f"b/checkpoints/round-{number:04d}.safetensors") for number in range(5)]
    assert weights_sha256(checkpoints[4]) == weights_sha256(
        load_file(tmp_path / "a/checkpoints/round-0004.safetensors")
    )
    average = checkpoints[0]
    for number in range(1, averaged["utility"]["round"] + 1):
        rate = min(0.9, (1 + number) / (10 + number))
        average = {name: rate * average[name] + (1 - rate) * value for name, value in checkpoints[number].items()}
    released = load_file(tmp_path / "b/model.safetensors")
    for name, value in average.items():
        torch.testing.assert_close(released[name], value.float(), rtol=1e-6, atol=1e-9)
    assert averaged["model_sha256"] != plain["model_sha256"]


def test_secure_noise_is_named_and_never_repeats(tmp_path: Path) -> None:
    first, again = (run(tmp_path / name, "privacy.secure_noise=true", "eps=8", *BARE) for name in ("a", "b"))
    assert first["model_sha256"] != again["model_sha256"]
    assert "nobody can repeat" in first["privacy"]["noise"]
    assert "run's seed: repeatable" in run(tmp_path / "c", *BARE)["privacy"]["noise"]
    # The batches are the seed's all the same, or the audit would not know whom to look for.
    batches = [
        [json.loads(line)["records_seen"] for line in (tmp_path / name / "rounds.jsonl").read_text().splitlines()]
        for name in ("a", "b")
    ]
    assert batches[0] == batches[1]


@pytest.mark.parametrize(("precision", "gaussian"), [("float32", False), ("float64", True)])
def test_noise_that_float32_sums_swallow_is_reported_and_float64_restores_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str, gaussian: bool
) -> None:
    summary = run(tmp_path / "r", "eps=1e15", f"training.precision={precision}", "adversary.attack=none")
    rounds = [json.loads(line) for line in (tmp_path / "r/rounds.jsonl").read_text().splitlines()]
    for entry in summary["noise_to_resolution"]:
        reported = [r["metrics"]["noise_to_resolution"] for r in rounds if r["hospital"] == entry["name"]]
        assert entry["clipped_sum"] == min(reported)
        assert (entry["clipped_sum"] >= 10) is gaussian
        assert entry["effectively_gaussian"] is gaussian
        assert entry["float64_delta"] > 1e3
    assert ("WARNING" in capsys.readouterr().out) is not gaussian
    assert ("not effectively Gaussian" in (tmp_path / "r/report.html").read_text()) is not gaussian


def test_without_noise_there_is_no_ratio_to_report(tmp_path: Path) -> None:
    for entry in run(tmp_path / "r", "eps=inf", *BARE)["noise_to_resolution"]:
        assert entry["clipped_sum"] is None
        assert entry["effectively_gaussian"] is None
