"""The main job as a user starts it: what it leaves, and that it can be repeated."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from opacus.accountants import RDPAccountant
from safetensors.torch import load_file

from hbdp_fed.adversary import load_observation, load_reconstruction
from hbdp_fed.models import build_model, load_weights, weights_sha256
from hbdp_fed.privacy import relaxed_coherent, worst_case
from hbdp_fed.report import read_card
from hbdp_fed.types import ModelSpec
from simulations.run import main
from tests.simulations.small_runs import BARE, run


@dataclass(frozen=True)
class Finished:
    """A run that several tests look at; none may change its folder."""

    folder: Path
    summary: Mapping[str, Any]
    shown: str


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("usual") / "deep" / "run"
    with redirect_stdout(StringIO()) as shown:
        summary = run(folder)
    return Finished(folder, summary, shown.getvalue())


@pytest.fixture(scope="module")
def without_noise(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    return run(tmp_path_factory.mktemp("without_noise") / "r", "eps=inf")


def test_a_run_leaves_everything_that_other_programs_and_people_read(usual: Finished) -> None:
    folder, summary = usual.folder, usual.summary
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
    for word in ("hospital-03", "sigma", "risk, worst case", "risk, relaxed", "risk, realistic", "AUROC", str(folder)):
        assert word in usual.shown


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


def test_what_was_observed_is_what_was_averaged(usual: Finished) -> None:
    sizes = [hospital["num_records"] for hospital in usual.summary["privacy"]["hospitals"]]
    for number in (1, 2):
        before = load_file(usual.folder / f"checkpoints/round-{number - 1:04d}.safetensors")
        after = load_file(usual.folder / f"checkpoints/round-{number:04d}.safetensors")
        updates = [
            load_file(usual.folder / f"observations/round-{number:04d}/hospital-0{i}.safetensors") for i in (1, 2, 3)
        ]
        for name, value in after.items():
            mean = sum(u[name] * n for u, n in zip(updates, sizes, strict=True)) / sum(sizes)
            torch.testing.assert_close(value, before[name] + mean, rtol=0, atol=1e-14)


def test_a_probes_observation_and_reconstruction_can_be_read_again(usual: Finished) -> None:
    observation = load_observation(usual.folder / "observations", "imprint_round-0003_hospital-01")
    assert observation.released.hospital == "hospital-01"
    assert observation.threat_model.name == "realistic"
    rebuilt = load_reconstruction(usual.folder / "reconstructions", "imprint_round-0003_hospital-01_gradient")
    assert rebuilt.images.shape[1:] == (1, 28, 28)
    (attack,) = usual.summary["risk"]["realistic"]["attacks"]
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


def test_infinity_is_the_string_inf_and_nothing_is_noised_or_clipped(without_noise: Mapping[str, Any]) -> None:
    assert without_noise["privacy"]["eps"] == "inf"
    hospital = without_noise["privacy"]["hospitals"][0]
    assert (hospital["noise_multiplier"], hospital["max_grad_norm"], hospital["eps_rdp"]) == (0.0, "inf", "inf")
    assert hospital["eps_tight"] == "inf"
    q, steps = hospital["sample_rate"], hospital["steps"]
    assert hospital["worst_case_bound"] == pytest.approx(1 - (1 - q) ** steps * (1 - 0.01))


def test_the_same_seed_repeats_the_run_and_another_does_not(usual: Finished, tmp_path: Path) -> None:
    first, again, other = usual.summary, run(tmp_path / "b", "seed=0"), run(tmp_path / "c", "seed=1")
    assert first["model_sha256"] == again["model_sha256"] != other["model_sha256"]
    assert first["risk"] == again["risk"]
    assert first["utility"] == again["utility"]


def test_the_attack_changes_nothing_in_training_but_the_planned_steps(
    without_noise: Mapping[str, Any], tmp_path: Path
) -> None:
    left_alone = run(tmp_path / "b", "eps=inf", "adversary.attack=none")
    assert without_noise["model_sha256"] == left_alone["model_sha256"]
    steps = [summary["privacy"]["hospitals"][0]["steps"] for summary in (without_noise, left_alone)]
    assert steps == [5, 4]


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
    many = run(tmp_path / "many", "clients=50", "training.rounds=1", *BARE)
    assert len(many["privacy"]["hospitals"]) == 50
    participation = many["participation"]
    assert len(participation.pop("hospitals")) == 50
    assert participation == {
        "expected": 50, "completed": 50, "failed": 0, "offline": 0, "late": 0, "failures": [],
    }  # fmt: skip


def test_real_xrays_are_trained_on_and_the_official_test_split_is_reported(hbdp_data: Path, tmp_path: Path) -> None:
    arguments = ["data=pneumoniamnist", "engine=inprocess", "clients=3", "training.rounds=1", "training.local_steps=3"]
    assert main([*arguments, "adversary.attack=imprint", "adversary.bins=64", f"run_dir={tmp_path / 'r'}"]) == 0
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
