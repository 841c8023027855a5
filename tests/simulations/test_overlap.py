"""Patients whom several hospitals know, in a run: counted, composed by Opacus' accountant too, and told everywhere."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from opacus.accountants import RDPAccountant

from hbdp_fed.audit.overlap_words import overlap_words
from hbdp_fed.data import ImageDataset
from hbdp_fed.data.cache.loading import Loaded
from hbdp_fed.data.contract import Records
from simulations import prepare as preparing
from simulations.compose import compose_run, typed
from simulations.overlap import overlap_summary
from simulations.program import BAD_INPUT, OK
from simulations.run import main

SMALL = [
    "engine=inprocess", "clients=3", "eps=1e3", "data.num_train=200", "data.num_val=60", "data.num_test=90",
    "model.width=4", "training.rounds=2", "training.local_steps=2", "training.expected_batch=10",
    "evaluation.bootstrap=0", "partition.sizes=power_law",
]  # fmt: skip


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("overlap") / "run"
    given = ["partition.overlap=0.2", "adversary.attack=candidate_matching", "report=both", "adversary.prior=0.05"]
    games = ["adversary.candidates=4", "adversary.targets=9", "training.momentum=0"]
    assert main([*SMALL, *given, *games, f"run_dir={folder}"]) == OK
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return {**found, "folder": folder}


def by_opacus(hospitals: list[dict[str, Any]]) -> float:
    accountant = RDPAccountant()
    accountant.history = [(own["noise_multiplier"], own["sample_rate"], own["steps"]) for own in hospitals]
    return float(accountant.get_epsilon(1e-5))


def test_the_largest_epsilon_is_that_of_the_two_least_protected_hospitals_joined(summary: dict[str, Any]) -> None:
    found, hospitals = summary["privacy"]["overlap"], summary["privacy"]["hospitals"]
    pairs = list(itertools.combinations(hospitals, 2))
    largest = max(by_opacus(list(pair)) for pair in pairs)
    assert found["eps_rdp"] == pytest.approx(largest, rel=1e-6)
    weakest = max(pairs, key=lambda pair: by_opacus(list(pair)))
    assert found["hospitals"] == [own["name"] for own in weakest]
    assert max(own["eps_tight"] for own in hospitals) < found["eps_tight"] < found["eps_rdp"]
    assert found["exact"]


def test_records_count_at_both_hospitals_in_privacy_and_in_the_mean(summary: dict[str, Any]) -> None:
    found = summary["privacy"]["overlap"]
    assert (found["unit"], found["patients"], found["of"], found["share"]) == ("record", 40, 200, 0.2)
    assert (found["records"], found["composed"]) == (40, "same_records")
    assert sum(own["num_records"] for own in summary["privacy"]["hospitals"]) == 240
    assert [own["train"] for own in summary["partition"]["hospitals"]] == [
        own["num_records"] for own in summary["privacy"]["hospitals"]
    ]
    assert sum(own["records"] for own in summary["utility_per_hospital"]) == 90


def test_the_risk_is_that_of_the_least_protected_record_whoever_holds_it(summary: dict[str, Any]) -> None:
    bound = summary["privacy"]["overlap"]["worst_case_bound"]
    assert bound > max(own["worst_case_bound"] for own in summary["privacy"]["hospitals"])
    assert summary["risk"]["worst_case"]["bound"] == bound
    assert summary["risk"]["relaxed"]["bound"] == bound
    assert all(not attack["above_bound"] for attack in summary["risk"]["worst_case"]["attacks"])
    assert summary["risk"]["worst_case"]["attacks"]


def test_report_card_and_plain_words_say_so(summary: dict[str, Any]) -> None:
    words = overlap_words(summary["privacy"])
    assert words.startswith("40 of 200 records (20.0%) are known to several hospitals, which all hold their records.")
    assert "for such a record epsilon" in words
    assert words in (summary["folder"] / "report.html").read_text()
    assert "are known to several hospitals, which all hold" in (summary["folder"] / "report.md").read_text()
    card = json.loads((summary["folder"] / "card.json").read_text())
    assert card["budget"]["overlap"]["eps_rdp"] == summary["privacy"]["overlap"]["eps_rdp"]


def photographed_twice(*, patients: int = 60) -> ImageDataset:
    """Two records a patient; every tenth patient was seen at both hospitals."""
    patient = torch.arange(2 * patients) // 2
    there = [bool(p % 2) if p % 10 else index % 2 == 0 for index, p in enumerate(patient.tolist())]
    records = Records(
        images=torch.rand((2 * patients, 1, 28, 28), generator=torch.Generator().manual_seed(0)),
        labels=torch.arange(2 * patients) % 2,
        groups=patient,
        attributes={"site": np.asarray(["north" if flag else "south" for flag in there])},
    )
    return ImageDataset("phantom", "binary", ("a", "b"), train=records, val=records, test=records, group="patient")


def test_patients_of_a_natural_partition_at_two_hospitals_are_told_with_what_their_records_keep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preparing, "load_kept", lambda *_, **__: Loaded(photographed_twice()))
    natural = ["clients=2", "partition.scheme=natural", "partition.column=site", "adversary.attack=none"]
    prepared = preparing.prepare(typed(compose_run([*SMALL, *natural])))
    found = overlap_summary(prepared)
    assert found is not None
    assert (found["unit"], found["patients"], found["of"], found["records"]) == ("patient", 6, 60, 0)
    assert found["composed"] == "one_record_each"
    assert found["hospitals"] == ["north", "south"]
    mechanisms = [vars(plan.mechanism) for plan in prepared.plans]
    assert found["eps_rdp"] == pytest.approx(by_opacus(mechanisms), rel=1e-6)
    words = overlap_words({"overlap": found})
    assert words.startswith("6 of 60 patients (10.0%) are known to several hospitals. Each record lies at one of them")
    # Who is pooled or alone meets one mechanism.
    for setting in ("federation.pooled=true", "federation.members=[north]"):
        assert overlap_summary(preparing.prepare(typed(compose_run([*SMALL, *natural, setting])))) is None


def test_a_patients_own_guarantee_composes_whichever_records_each_hospital_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preparing, "load_kept", lambda *_, **__: Loaded(photographed_twice()))
    natural = ["clients=2", "partition.scheme=natural", "partition.column=site", "adversary.attack=none"]
    prepared = preparing.prepare(typed(compose_run([*SMALL, *natural, "privacy.unit=patient"])))
    found = overlap_summary(prepared)
    assert found is not None
    assert (found["patients"], found["records"], found["composed"]) == (6, 0, "whole_patients")
    mechanisms = [vars(plan.mechanism) for plan in prepared.plans]
    assert found["eps_rdp"] == pytest.approx(by_opacus(mechanisms), rel=1e-6)
    # Patients, not records, are drawn: of whoever has two records at one hospital there are fewer.
    batch = prepared.hyper.expected_batch
    patients = [len(hospital.records.groups.unique()) for hospital in prepared.federated.hospitals]  # type: ignore[union-attr]
    assert [plan.mechanism.sample_rate for plan in prepared.plans] == pytest.approx([batch / held for held in patients])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["partition.overlap=1"], "partition.overlap: must lie in [0, 1), got 1"),
        (["partition.overlap=-0.1"], "partition.overlap: must be a number between 0 and 1"),
        (["partition.overlap=0.5", "clients=1"], "partition.overlap: 0.5 of the patients need a second hospital"),
        (["partition.overlap=0.001"], "partition.overlap: 0.001 of 200 patients is nobody"),
    ],
)
def test_an_overlap_that_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: Any, settings: list[str], words: str
) -> None:
    assert main([*SMALL, *settings, f"run_dir={tmp_path / 'run'}"]) == BAD_INPUT
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
