"""Runs whose unit of privacy is a patient, and what cannot have one."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hbdp_fed.data import load_dataset
from hbdp_fed.privacy.ledger import verify
from hbdp_fed.types import HospitalPlan
from simulations.compose import compose_run, typed
from simulations.prepare import Prepared, prepare
from simulations.program import BAD_INPUT, OK
from simulations.run import main
from simulations.run_folder import RunFolder

SMALL = [
    "data=chest_xray", "data.image_size=16", "data.val_fraction=0.3", "model=cnn", "model.width=4",
    "engine=inprocess", "clients=3",
    "training.rounds=2", "training.local_steps=2", "training.expected_batch=4", "training.learning_rate=0.1",
    "training.max_grad_norm=1", "eps=1e9", "evaluation.bootstrap=0", "evaluation.matrix=0", "report=md",
]  # fmt: skip
PATIENT = "privacy.unit=patient"
QUIET = "adversary.attack=none"


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A few X-rays by the true names: patients of one to six images."""
    root = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for split, first in (("train", 1), ("test", 500)):
        for person in range(first, first + 24):
            for image in range(1 + person % 6):
                _write(root, split, "PNEUMONIA", f"person{person}_bacteria_{10 * person + image}.jpeg", draw)
            _write(root, split, "NORMAL", f"IM-{person:04d}-0001.jpeg", draw)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HBDP_DATA", str(root))
        yield root


def _write(root: Path, split: str, kind: str, name: str, draw: np.random.Generator) -> None:
    path = root / "chest_xray" / split / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = draw.integers(0, 256, (20, 20), dtype=np.uint8) // (1 if kind == "NORMAL" else 2)
    Image.fromarray(pixels).save(path)


def prepared(*arguments: str) -> Prepared:
    return prepare(typed(compose_run([*SMALL, *arguments])))


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    assert main([*SMALL, f"run_dir={folder}", *arguments]) == OK
    summary = json.loads((folder / "summary.json").read_text())
    assert isinstance(summary, dict)
    return summary


def test_plans_count_each_hospitals_patients() -> None:
    found = prepared(PATIENT, QUIET, "privacy.records_per_patient=3")
    assert found.units.word == "patient"
    assert found.local.records_per_patient == 3
    for plan, hospital in zip(found.plans, found.federated.hospitals, strict=True):
        assert hospital.records.groups is not None
        sizes = np.unique(hospital.records.groups.numpy(), return_counts=True)[1]
        assert plan.patients is not None
        assert (plan.patients.patients, plan.patients.records_at_once) == (len(sizes), np.minimum(sizes, 3).sum())
        assert plan.mechanism.sample_rate == 4 / len(sizes)
        assert plan.num_records == len(hospital.records)


def test_records_are_the_units_unless_patients_are_asked_for() -> None:
    found = prepared(QUIET)
    assert found.units.word == "record"
    assert found.local.records_per_patient is None
    assert all(plan.patients is None and plan.num_units == plan.num_records for plan in found.plans)


def test_hospitals_weigh_by_their_records_whatever_the_unit_is() -> None:
    assert prepared(PATIENT, QUIET).shares == prepared(QUIET).shares


def test_a_batch_of_the_whole_federation_is_shared_by_patients() -> None:
    found = prepared(PATIENT, QUIET, "training.batch_per=federation", "training.expected_batch=12")
    rates = {plan.mechanism.sample_rate for plan in found.plans}
    assert max(rates) - min(rates) < 1e-12


def test_pooled_patients_have_the_chance_that_they_had_at_home() -> None:
    apart, pooled = prepared(PATIENT, QUIET), prepared(PATIENT, QUIET, "federation.pooled=true")
    (plan,) = pooled.plans
    assert plan.num_units == sum(own.num_units for own in apart.plans)
    assert plan.expected_batch == pytest.approx(sum(own.expected_batch for own in apart.plans))


def test_a_run_for_patients_says_so_everywhere(tmp_path: Path) -> None:
    summary = run(
        tmp_path / "run",
        PATIENT,
        "adversary.attack=auto",
        "adversary.bins=16",
        "adversary.candidates=6",
        "adversary.targets=9",
        "smallest_count=1",
    )
    privacy = summary["privacy"]
    assert (privacy["unit"], privacy["unit_word"], privacy["records_per_patient"]) == ("patient", "patient", 4)
    plans = {plan.name: plan for plan in prepared(PATIENT, QUIET).plans}
    for entry in privacy["hospitals"]:
        plan: HospitalPlan = plans[entry["name"]]
        assert (entry["num_records"], entry["num_units"]) == (plan.num_records, plan.num_units)
    attacks = {attack["name"]: attack for entry in summary["risk"].values() for attack in entry["attacks"]}
    assert sorted(attacks) == ["candidate_matching", "imprint", "linear_reconstruction", "membership", "trap_weights"]
    assert attacks["candidate_matching"]["unit"] == attacks["linear_reconstruction"]["unit"] == "patient"
    assert not any(attack.get("above_bound") for attack in attacks.values())
    for account in verify(tmp_path / "run" / "ledger.jsonl").accounts.values():
        assert account.plan is not None
        assert (account.plan.unit, account.plan.patients) == ("patient", plans[account.plan.hospital].num_units)
    report = (tmp_path / "run" / "report.md").read_text()
    assert "one patient's budget at one hospital" in report
    assert "| hospital | records | patients | q |" in report
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["budget"]["unit"] == "patient"


def test_a_run_for_patients_that_was_cut_off_ends_as_the_one_that_nobody_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", PATIENT, QUIET)
    calls, original = 0, RunFolder.write_update

    def cut_off(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:  # in the middle of the second round
            raise KeyboardInterrupt
        return original(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write_update", cut_off)
        assert main([*SMALL, f"run_dir={tmp_path / 'cut'}", PATIENT, QUIET]) != OK
    assert main([f"resume={tmp_path / 'cut'}"]) == OK
    resumed = json.loads((tmp_path / "cut" / "summary.json").read_text())
    assert resumed["model_sha256"] == whole["model_sha256"]
    assert resumed["ledger"] == whole["ledger"]


@pytest.mark.slow
def test_patients_are_drawn_alike_by_every_engine(tmp_path: Path) -> None:
    alone = run(tmp_path / "inprocess", PATIENT, QUIET)
    spread = run(tmp_path / "ray", PATIENT, QUIET, "engine=ray", "engine.workers=2")
    assert spread["model_sha256"] == alone["model_sha256"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["privacy.unit=person"], "privacy.unit: 'person' is not known; choose one of: patient, record"),
        ([PATIENT, "privacy.records_per_patient=0"], "privacy.records_per_patient: must be at least 1, got 0"),
        (
            [PATIENT, "training.expected_batch=300"],
            "training.expected_batch: counts patients with privacy.unit=patient: 300 a step are more than any hospital",
        ),
        ([PATIENT, "delta=0.2"], "delta: 0.2 must be below 1/patients"),
        (
            [PATIENT, "adversary.attack=[linear_probe]"],
            "privacy.unit: must be record for linear_probe, which reads an image out of its own clipped gradient, and "
            "of a patient only the mean over all records is clipped and sent; with patients these work: imprint, "
            "trap_weights, loki, gradient_inversion, kkt, model_inversion, candidate_matching, membership, "
            "linear_reconstruction",
        ),
        (
            [PATIENT, "adversary.attack=[membership]", "adversary.candidates=200"],
            "adversary.candidates: must be at most 49: decoys come from the 48 test patients",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_patients_words(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = [*SMALL, *([] if any("attack" in one for one in arguments) else [QUIET]), *arguments]
    assert main([*given, f"run_dir={tmp_path / 'run'}"]) == BAD_INPUT
    said = " ".join("".join(capsys.readouterr()).split())
    assert told in said
    assert not (tmp_path / "run").exists()


def test_data_that_does_not_say_whose_records_are_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data=phantom", "engine=inprocess", PATIENT]) == BAD_INPUT
    said = " ".join("".join(capsys.readouterr()).split())
    assert "privacy.unit: must be record for phantom, which does not say which records are of one patient" in said


def test_real_hospitals_that_told_their_records_alone_have_records_as_units() -> None:
    from hbdp_fed.errors import SettingError

    given = ["engine=superlink", "federation.elsewhere={north: 100}", PATIENT]
    with pytest.raises(SettingError, match=r"privacy\.unit: must be record with federation\.elsewhere"):
        prepared(*given, QUIET)


def test_no_patient_trains_and_chooses_the_round(folder: Path) -> None:
    """Train and validation share none; the test split is the authors' own, and here has patients of its own."""
    dataset = load_dataset("chest_xray", root=folder, options={"image_size": 16})
    splits = [
        set(part.groups.tolist()) for part in (dataset.train, dataset.val, dataset.test) if part.groups is not None
    ]
    assert len(splits) == 3
    assert not splits[0] & splits[1]
    assert not splits[2] & (splits[0] | splits[1])


REAL = Path(os.environ.get("HBDP_DATA", "nowhere"))


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "chest_xray").is_dir(), reason="needs the chest X-rays in HBDP_DATA")
def test_of_the_real_chest_xrays_no_patient_trains_and_chooses_the_round() -> None:
    dataset = load_dataset("chest_xray", root=REAL, options={"image_size": 16})
    train, val = dataset.train.groups, dataset.val.groups
    assert train is not None
    assert val is not None
    assert not set(train.tolist()) & set(val.tolist())
    assert math.isclose(len(val.unique()) / (len(val.unique()) + len(train.unique())), 0.1, abs_tol=0.01)
