"""The main job as a user starts it: what it leaves, what it refuses, and that it can be repeated."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from opacus.accountants import RDPAccountant
from safetensors.torch import load_file
from torch import nn

from hbdp_fed.adversary import load_observation, load_reconstruction
from hbdp_fed.models import MODELS, build_model, load_weights, weights_sha256
from hbdp_fed.privacy import relaxed_coherent, worst_case
from hbdp_fed.report import read_card
from hbdp_fed.types import ModelSpec
from simulations.run import main

SMALL = [
    "engine=inprocess", "clients=3", "training.rounds=2", "training.local_steps=2", "training.expected_batch=8",
    "data.num_train=90", "data.num_val=60", "data.num_test=60", "model.width=4", "adversary.bins=64",
    "adversary.attack=imprint",
]  # fmt: skip


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    assert main([*SMALL, f"run_dir={folder}", *arguments]) == 0
    summary = json.loads((folder / "summary.json").read_text(), parse_constant=pytest.fail)
    assert isinstance(summary, dict)
    return summary


def test_a_run_leaves_everything_that_other_programs_and_people_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "deep" / "run"
    summary = run(folder)
    assert {
        "schema", "task", "dataset", "model", "clients", "rounds", "seed", "model_sha256", "privacy", "utility",
        "utility_per_hospital", "worst_hospital", "utility_by_subgroup", "utility_matrix", "partition", "skipped",
        "risk", "participation", "time",
    } <= summary.keys()  # fmt: skip
    assert summary["schema"] == 1
    assert summary["metrics"] == ["mcc", "auroc", "accuracy", "balanced_accuracy", "ece"]
    assert summary["utility"].keys() == {*summary["metrics"], "ci95", "records", "groups", "point", "round"}
    assert summary["utility"]["ci95"].keys() == set(summary["metrics"])
    assert 0 <= summary["utility"]["point"]["threshold"] <= 1
    assert [entry["name"] for entry in summary["utility_per_hospital"]] == ["hospital-01", "hospital-02", "hospital-03"]
    assert sum(entry["records"] for entry in summary["utility_per_hospital"]) == 60
    assert summary["time"].keys() >= {
        "total_s", "startup_s", "rounds_s", "client_compute_s", "attack_s", "engine_efficiency",
    }  # fmt: skip
    released = load_file(folder / "model.safetensors")
    assert weights_sha256(released) == summary["model_sha256"]
    rounds = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert [(line["round"], line["hospital"], line["kind"]) for line in rounds] == [
        (number, f"hospital-0{i}", kind)
        for number, kind in ((1, "train"), (2, "train"), (3, "probe"))
        for i in (1, 2, 3)
    ]
    ledger = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    charges = [line for line in ledger if line["kind"] == "charge" and line["hospital"] == "hospital-02"]
    assert [line["steps_spent"] for line in charges] == [2, 4, 5]
    spent = [line["eps_spent"] for line in charges]
    assert spent == sorted(spent)
    assert spent[-1] == pytest.approx(summary["privacy"]["hospitals"][1]["eps_rdp"])
    assert "hospital-02" in (folder / "report.html").read_text()
    assert not (folder / "report.md").exists()
    card = read_card(folder)
    model = build_model(ModelSpec(**card["architecture"]))
    load_weights(model, released)
    assert model(torch.zeros(2, *card["input"]["shape"])).shape == (2, len(card["class_names"]))
    assert card["model_sha256"] == summary["model_sha256"]
    assert card["point"] == summary["utility"]["point"]
    assert card["input"]["preparation"]["kind"] == "drawn"
    # Where this machine keeps its files is in no file that is shared.
    assert str(folder) not in (folder / "card.json").read_text()
    assert str(folder) not in (folder / "report.html").read_text()
    assert (folder / "reconstructions" / "imprint_gradient.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "predictions.npz").exists()
    assert OmegaConf.load(folder / "config.yaml").clients == 3
    assert json.loads((folder / "environment.json").read_text())["versions"]["flwr"]
    shown = capsys.readouterr().out
    for word in ("hospital-03", "sigma", "risk, worst case", "risk, relaxed", "risk, realistic", "AUROC", str(folder)):
        assert word in shown


def test_the_report_is_written_as_asked_and_small_counts_are_in_none_of_it(tmp_path: Path) -> None:
    skewed = ["partition.scheme=dirichlet", "partition.alpha=0.1", "adversary.attack=none", "evaluation.bootstrap=0"]
    summary = run(tmp_path / "r", *skewed, "report=md")
    sizes = {hospital["name"]: hospital["num_records"] for hospital in summary["privacy"]["hospitals"]}
    small = [name for name, count in sizes.items() if count < 10]
    assert small, sizes
    text = (tmp_path / "r/report.md").read_text()
    assert not (tmp_path / "r/report.html").exists()
    for name in small:
        assert f"| {name} | fewer than 10 | not shown |" in text or f"| {name} | not shown | not shown |" in text
        assert f"| {name} | {sizes[name]} |" not in text
    assert "![Training records of each hospital by class](figures/partition.png)" in text
    assert (tmp_path / "r/figures/partition.png").exists()
    known = {entry["name"]: entry["num_records"] for entry in read_card(tmp_path / "r")["budget"]["hospitals"]}
    assert [known[name] for name in small] == [None] * len(small)
    run(tmp_path / "all", *skewed, "report=both", "smallest_count=1")
    shown = (tmp_path / "all/report.md").read_text()
    assert all(f"| {name} | {sizes[name]} |" in shown for name in small)
    assert (tmp_path / "all/report.html").exists()


def test_what_was_observed_is_what_was_averaged(tmp_path: Path) -> None:
    summary = run(tmp_path / "r")
    sizes = [hospital["num_records"] for hospital in summary["privacy"]["hospitals"]]
    for number in (1, 2):
        before = load_file(tmp_path / f"r/checkpoints/round-{number - 1:04d}.safetensors")
        after = load_file(tmp_path / f"r/checkpoints/round-{number:04d}.safetensors")
        updates = [
            load_file(tmp_path / f"r/observations/round-{number:04d}/hospital-0{i}.safetensors") for i in (1, 2, 3)
        ]
        for name, value in after.items():
            mean = sum(u[name] * n for u, n in zip(updates, sizes, strict=True)) / sum(sizes)
            torch.testing.assert_close(value, before[name] + mean, rtol=0, atol=1e-14)


def test_a_probes_observation_and_reconstruction_can_be_read_again(tmp_path: Path) -> None:
    summary = run(tmp_path / "r")
    observation = load_observation(tmp_path / "r/observations", "imprint_round-0003_hospital-01")
    assert observation.released.hospital == "hospital-01"
    assert observation.threat_model.name == "realistic"
    rebuilt = load_reconstruction(tmp_path / "r/reconstructions", "imprint_round-0003_hospital-01_gradient")
    assert rebuilt.images.shape[1:] == (1, 28, 28)
    (attack,) = summary["risk"]["realistic"]["attacks"]
    assert attack["surface"] == "gradient"
    assert 0.9 < attack["share"] <= 1.0
    assert attack["control_success_rate"] is not None


def test_the_bounds_are_those_of_the_least_protected_hospital(tmp_path: Path) -> None:
    summary = run(tmp_path / "r", "adversary.attack=none", "eps=3", "adversary.prior=0.05", "partition.sizes=power_law")
    hospitals, risk = summary["privacy"]["hospitals"], summary["risk"]
    assert len({hospital["sample_rate"] for hospital in hospitals}) > 1
    for name, function in (("worst_case", worst_case), ("relaxed", relaxed_coherent)):
        own = [
            function(
                prior=0.05,
                noise_multiplier=hospital["noise_multiplier"],
                sample_rate=hospital["sample_rate"],
                steps=hospital["steps"],
            )
            for hospital in hospitals
        ]
        assert [hospital[f"{name}_bound"] for hospital in hospitals] == pytest.approx(own)
        assert risk[name] == {"bound": pytest.approx(max(own)), "prior": 0.05, "attacks": []}
        assert 0.05 < max(own) < 0.5
    assert risk["realistic"] == {"bound": None, "prior": None, "attacks": []}


def test_both_epsilons_are_reported_and_either_can_be_meant(tmp_path: Path) -> None:
    for accountant in ("rdp", "tight"):
        summary = run(tmp_path / accountant, "eps=1e6", f"privacy.accountant={accountant}", "adversary.attack=none")
        assert summary["privacy"]["accountant"] == accountant
        for hospital in summary["privacy"]["hospitals"]:
            assert 0.999e6 <= hospital[f"eps_{accountant}"] <= 1e6
            assert hospital["eps_lower"] <= hospital["eps_tight"] < hospital["eps_rdp"]
        ledger = [json.loads(line) for line in (tmp_path / accountant / "ledger.jsonl").read_text().splitlines()]
        assert ledger[-1]["eps_spent"] == pytest.approx(summary["privacy"]["hospitals"][-1][f"eps_{accountant}"])


@pytest.mark.filterwarnings("ignore:Optimal order")
@pytest.mark.parametrize(("eps", "sizes"), [(eps, "equal") for eps in (1.0, 1e6, 1e15)] + [(1e9, "power_law")])
def test_the_summarys_epsilon_is_the_composed_one(tmp_path: Path, eps: float, sizes: str) -> None:
    summary = run(tmp_path / "r", f"eps={eps}", "adversary.probes=2", f"partition.sizes={sizes}")
    for hospital in summary["privacy"]["hospitals"]:
        assert hospital["steps"] == 2 * 2 + 2
        accountant = RDPAccountant()
        accountant.history = [(hospital["noise_multiplier"], hospital["sample_rate"], hospital["steps"])]
        assert hospital["eps_rdp"] == pytest.approx(accountant.get_epsilon(delta=1e-5), rel=1e-6)
        assert 0.99 * eps <= hospital["eps_rdp"] <= eps


def test_infinity_is_the_string_inf_and_nothing_is_noised_or_clipped(tmp_path: Path) -> None:
    summary = run(tmp_path / "r", "eps=inf")
    assert summary["privacy"]["eps"] == "inf"
    hospital = summary["privacy"]["hospitals"][0]
    assert (hospital["noise_multiplier"], hospital["max_grad_norm"], hospital["eps_rdp"]) == (0.0, "inf", "inf")
    assert hospital["eps_tight"] == "inf"
    q, steps = hospital["sample_rate"], hospital["steps"]
    assert hospital["worst_case_bound"] == pytest.approx(1 - (1 - q) ** steps * (1 - 0.01))


def test_the_same_seed_repeats_the_run_and_another_does_not(tmp_path: Path) -> None:
    first, again, other = (run(tmp_path / n, f"seed={s}") for n, s in (("a", 0), ("b", 0), ("c", 1)))
    assert first["model_sha256"] == again["model_sha256"] != other["model_sha256"]
    assert first["risk"] == again["risk"]
    assert first["utility"] == again["utility"]


def test_the_attack_changes_nothing_in_training_but_the_planned_steps(tmp_path: Path) -> None:
    attacked, left_alone = run(tmp_path / "a", "eps=inf"), run(tmp_path / "b", "eps=inf", "adversary.attack=none")
    assert attacked["model_sha256"] == left_alone["model_sha256"]
    steps = [summary["privacy"]["hospitals"][0]["steps"] for summary in (attacked, left_alone)]
    assert steps == [5, 4]


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
    # What is attacked under each optimiser is held below.
    summary = run(
        tmp_path / "r", *(f"training.{key}={value}" for key, value in chosen.items()), "adversary.attack=none"
    )
    assert summary["hyperparameters"].items() >= chosen.items()
    assert summary["hyperparameters"]["rounds"] == 2
    plain = run(tmp_path / "p", "training.learning_rate=0.002", "adversary.attack=none")
    for key in ("optimizer", "schedule", "augmentation", "multiplicity", "precision", "grad_mode"):
        wanted = chosen[key] if key != "precision" else "bf16"
        other = run(tmp_path / key, f"training.{key}={wanted}", "training.learning_rate=0.002", "adversary.attack=none")
        assert other["model_sha256"] != plain["model_sha256"], key


def test_the_released_model_is_the_moving_average_and_training_goes_on_from_the_weights(tmp_path: Path) -> None:
    plain = run(tmp_path / "a", "training.rounds=4", "adversary.attack=none")
    averaged = run(tmp_path / "b", "training.rounds=4", "adversary.attack=none", "training.ema_decay=0.9")
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
    first, again = (run(tmp_path / name, "privacy.secure_noise=true", "eps=8") for name in ("a", "b"))
    assert first["model_sha256"] != again["model_sha256"]
    assert "nobody can repeat" in first["privacy"]["noise"]
    assert "run's seed: repeatable" in run(tmp_path / "c", "adversary.attack=none")["privacy"]["noise"]
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
    for entry in run(tmp_path / "r", "eps=inf", "adversary.attack=none")["noise_to_resolution"]:
        assert entry["clipped_sum"] is None
        assert entry["effectively_gaussian"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clinets=5"], "clinets: there is no such setting; did you mean 'clients'?"),
        (["eps=-1"], "eps: must be a positive number or inf"),
        (["eps=0"], "eps: must be a positive number or inf"),
        (["eps=nan"], "eps: must be a positive number or inf"),
        (["eps=abc"], "eps: Value 'abc' of type 'str' is not a number"),
        (["eps=0.01"], "never falls below"),
        (["clients=0"], "clients: must be at least 1, got 0"),
        (["report=pdf"], "report: 'pdf' is not known; choose one of: both, html, md"),
        (["smallest_count=0"], "smallest_count: must be at least 1, got 0"),
        (["clients=91"], "clients:"),
        (["data=nosuch"], "data: 'nosuch' is not known; choose one of: breastmnist, chest_xray, ham10000, medmnist,"),
        (["delta=0.5"], "delta: 0.5 must be below 1/records"),
        (["delta=2"], "delta: must lie strictly between 0 and 1"),
        (["device=tpu"], "device: 'tpu' is not known"),
        (["seed=-1"], "seed: must be at least 0"),
        (["model.width=5"], "width must be a positive multiple of 4"),
        (["partition.scheme=cut"], "partition.scheme: 'cut' is not known; choose one of: dirichlet, iid"),
        (["partition.alpha=-1"], "partition.alpha:"),
        (["data.scanner_shift=2"], "data.scanner_shift:"),
        (["data.image_size=2"], "data.image_size:"),
        (["privacy.accountant=prv"], "privacy.accountant: 'prv' is not known; choose one of: rdp"),
        (["training.learning_rate=-1"], "training.learning_rate: must be positive"),
        (["training.momentum=1"], "training.momentum: must lie in [0, 1)"),
        (["training.optimizer=lion"], "training.optimizer: 'lion' is not known; choose one of: adamw, nadam, sgd"),
        (["training.weight_decay=-1"], "training.weight_decay: must be a number of at least 0, got -1"),
        (["training.weight_decay=inf"], "training.weight_decay: must be a number of at least 0, got inf"),
        (["training.schedule=step"], "training.schedule: 'step' is not known; choose one of: constant, cosine, linear"),
        (["training.warmup=1"], "training.warmup: must lie in [0, 1), got 1"),
        (["training.final_fraction=0"], "training.final_fraction: must lie in (0, 1], got 0"),
        (
            ["training.augmentation=x"],
            "training.augmentation: 'x' is not known; choose one of: flip, flip_all, flip_all_shift, flip_shift, none",
        ),
        (["training.multiplicity=0"], "training.multiplicity: must be at least 1, got 0"),
        (["training.ema_decay=1"], "training.ema_decay: must lie in [0, 1), got 1"),
        (["training.ema_decay=nan"], "training.ema_decay: must lie in [0, 1), got nan"),
        (
            ["training.grad_mode=x"],
            "training.grad_mode: 'x' is not known; choose one of: hbdp, opacus, torch_func",
        ),
        (["training.precision=fp8"], "training.precision: 'fp8' is not known; choose one of: bf16, float32, float64"),
        (
            ["training.precision=bf16", "training.grad_mode=opacus"],
            "training.precision: bf16 needs training.grad_mode=hbdp; opacus takes float32 or float64",
        ),
        (["training.max_physical_batch=0"], "training.max_physical_batch: must be at least 1, got 0"),
        (["privacy.secure_noise=perhaps"], "privacy.secure_noise: Value 'perhaps' is not a valid bool"),
        (["federation.weighting=x"], "federation.weighting: 'x' is not known; choose one of: equal, records"),
        (
            ["adversary.attack=x"],
            "adversary.attack: 'x' is not known; choose one of: auto, candidate_matching,",
        ),
        (["evaluation.bootstrap=-1"], "evaluation.bootstrap: must be at least 0, got -1"),
        (["evaluation.matrix=-1"], "evaluation.matrix: must be at least 0, got -1"),
        (["data.num_val=7"], "adversary.attack: imprint needs at least"),
        (["adversary.bins=1"], "adversary.bins: must be at least 2"),
        (["engine.threads_per_client=0"], "engine.threads_per_client: must be at least 1"),
        (["engine.workers=0"], "engine.workers: must be at least 1"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_before_anything_is_written(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, *arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert shown.out in {"", "reading phantom\n"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        (lambda: nn.BatchNorm2d(1), "'0' (BatchNorm2d) mixes records; use GroupNorm"),
        (lambda: nn.Conv2d(1, 1, kernel_size=99), "Kernel size can't be greater than actual input size"),
    ],
)
def test_a_model_that_cannot_be_trained_on_the_images_is_refused_before_anything_is_written(
    layer: Callable[[], nn.Module],
    problem: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    def build(**_: Any) -> nn.Module:
        return nn.Sequential(layer(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))

    monkeypatch.setitem(MODELS, "cnn", build)  # type: ignore[arg-type]
    assert main(SMALL) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: model: cnn cannot be trained on phantom: ")
    assert problem in shown.err.replace("\n", " ")
    assert shown.out == "reading phantom\n"
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_without_its_file_names_the_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HBDP_DATA", str(tmp_path / "data"))
    path = tmp_path / "data" / "medmnist" / "pneumoniamnist.npz"
    assert main(["data=pneumoniamnist"]) == 2
    assert str(path.parent.parent) in capsys.readouterr().err
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK\x03\x04 not an archive")
    assert main(["data=pneumoniamnist"]) == 2
    assert str(path) in capsys.readouterr().err
    monkeypatch.delenv("HBDP_DATA")
    assert main(["data=pneumoniamnist"]) == 2
    assert "HBDP_DATA" in capsys.readouterr().err


def test_a_folder_that_holds_something_is_never_written_into(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main([*SMALL, f"run_dir={tmp_path}"]) == 2
    assert "run_dir" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_hospital_that_raises_ends_the_run_with_its_name_and_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hbdp_fed.federation import client_app

    genuine = client_app.train_locally

    def fails_late(**arguments: Any) -> Any:
        if len(arguments["labels"]) and arguments["batch_generator"].initial_seed() == fails_late.seed:  # type: ignore[attr-defined]
            raise FloatingPointError("the scanner's disk is full of stars")
        return genuine(**arguments)

    from hbdp_fed.seeding import batch_stream

    fails_late.seed = batch_stream(0, "hospital-02", 2).initial_seed()  # type: ignore[attr-defined]
    monkeypatch.setattr(client_app, "train_locally", fails_late)
    assert main([*SMALL, f"run_dir={tmp_path / 'r'}"]) == 1
    shown = capsys.readouterr().err
    assert "hospital-02 failed" in shown
    assert "Traceback" in shown
    assert "full of stars" in shown
    # Nothing that was computed before is lost.
    assert (tmp_path / "r/checkpoints/round-0001.safetensors").exists()
    lines = [json.loads(line) for line in (tmp_path / "r/rounds.jsonl").read_text().splitlines()]
    assert [(line["round"], line["status"]) for line in lines] == [*[(1, "ok")] * 3, (2, "ok"), (2, "failed")]
    assert lines[-1]["hospital"] == "hospital-02"
    assert not (tmp_path / "r/summary.json").exists()


@pytest.mark.parametrize("attack", ["none", "auto"])
def test_training_that_diverges_ends_with_one_line_that_says_so(
    attack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["eps=8", "training.learning_rate=1e10", f"adversary.attack={attack}", f"run_dir={tmp_path / 'r'}"]
    assert main([*SMALL, *given]) == 1
    shown = capsys.readouterr()
    assert shown.err == (
        "error: no round left a model whose outputs are finite: training has diverged; "
        "take a smaller training.learning_rate\n"
    )
    assert "not finished; what was computed so far is in" in shown.out
    assert not (tmp_path / "r/model.safetensors").exists()
    assert not (tmp_path / "r/summary.json").exists()


def test_an_update_that_is_not_finite_ends_the_run_with_its_hospitals_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without clipping, a gradient that has overflowed is sent as it is."""
    given = ["eps=inf", "training.learning_rate=1e30", f"run_dir={tmp_path / 'r'}"]
    assert main([*SMALL, *given]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: hospital-01 failed:\n")
    assert "round 1: the update is not finite in " in shown
    assert "Traceback" not in shown


def test_help_tells_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for word in (
        "clients: 5",
        "learning_rate",
        "data= one of: breastmnist, chest_xray",
        "experiment= one of: msd",
        "exit codes",
    ):
        assert word in shown


def test_one_hospital_and_fifty_hospitals_work(tmp_path: Path) -> None:
    assert run(tmp_path / "one", "clients=1")["clients"] == 1
    many = run(tmp_path / "many", "clients=50", "training.rounds=1")
    assert len(many["privacy"]["hospitals"]) == 50
    participation = many["participation"]
    assert len(participation.pop("hospitals")) == 50
    assert participation == {
        "expected": 100, "completed": 100, "failed": 0, "offline": 0, "late": 0, "failures": [],
    }  # fmt: skip


def test_real_xrays_are_trained_on_and_the_official_test_split_is_reported(hbdp_data: Path, tmp_path: Path) -> None:
    arguments = ["data=pneumoniamnist", "engine=inprocess", "clients=3", "training.rounds=1", "training.local_steps=3"]
    assert main([*arguments, "adversary.bins=64", f"run_dir={tmp_path / 'r'}"]) == 0
    summary = json.loads((tmp_path / "r/summary.json").read_text())
    assert summary["utility"]["records"] == 624
    assert sum(hospital["num_records"] for hospital in summary["privacy"]["hospitals"]) == 4708
    with np.load(hbdp_data / "medmnist" / "pneumoniamnist.npz") as file:
        positives = int(file["test_labels"].sum())
    assert positives == 390
    assert math.isfinite(summary["utility"]["auroc"])


def test_a_run_can_be_repeated_from_its_own_config(tmp_path: Path) -> None:
    first = run(tmp_path / "a", "seed=3", "eps=8")
    recorded = OmegaConf.to_container(OmegaConf.load(tmp_path / "a" / "config.yaml"))
    assert recorded["seed"] == 3
    assert recorded["training"]["rounds"] == 2
    shutil.rmtree(tmp_path / "a" / "observations")
    again = run(tmp_path / "b", f"seed={recorded['seed']}", f"eps={recorded['eps']}")
    assert again["model_sha256"] == first["model_sha256"]
