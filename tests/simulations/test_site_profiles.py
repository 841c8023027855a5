"""Runs whose hospitals are offline or late as planned: counted, charged, timed, and the same after a power cut."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hbdp_fed.errors import SettingError
from hbdp_fed.federation.profiles import is_online
from hbdp_fed.privacy.ledger import verify
from hbdp_fed.training.pace import SiteProfile
from simulations.ledger import main as ledger_main
from simulations.program import BAD_INPUT, OK
from simulations.run import main
from simulations.site_profiles import site_profiles
from tests.simulations.test_resume import PowerCut, cut_off
from tests.simulations.test_resume import outcome as same_outcome

SMALL = [
    "engine=inprocess", "clients=4", "eps=1e9", "data.num_train=80", "data.num_val=40", "data.num_test=40",
    "model.width=4", "training.rounds=5", "training.local_steps=2", "training.expected_batch=8",
    "evaluation.bootstrap=0", "adversary.attack=none",
]  # fmt: skip
# hospital-02 is sometimes offline; hospital-03 takes (8 records x 2 steps) / (4 records a second) = 4 seconds and more.
ABSENT = [
    "federation.profiles={default:{latency_s:1},hospital-02:{availability:0.5},hospital-03:{records_per_s:4}}",
    "federation.deadline_s=3",
]


def outcome(folder: Path) -> dict[str, Any]:
    time = json.loads((folder / "summary.json").read_text())["time"]
    return {**same_outcome(folder), "simulated_s": time["simulated_s"], "waited_for": time["waited_for"]}


@pytest.fixture(scope="module")
def absent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("absent") / "run"
    assert main([*SMALL, *ABSENT, f"run_dir={folder}"]) == OK
    return folder


def offline_rounds() -> set[int]:
    sometimes = SiteProfile(availability=0.5)
    return {n for n in range(1, 6) if not is_online(sometimes, seed=0, hospital="hospital-02", number=n)}


def test_absences_stand_in_the_books_and_only_stragglers_are_charged(absent: Path, capsys: Any) -> None:
    offline = offline_rounds()
    assert 0 < len(offline) < 5
    accounts = verify(absent / "ledger.jsonl").accounts
    assert {name: (account.steps_spent, account.lost) for name, account in accounts.items()} == {
        "hospital-01": (10, 0),
        "hospital-02": (10 - 2 * len(offline), 0),
        "hospital-03": (10, 5),
        "hospital-04": (10, 0),
    }
    # Nobody knew of the outages beforehand.
    assert {account.plan.steps_planned for account in accounts.values() if account.plan} == {10}
    assert ledger_main(["verify", str(absent)]) == OK
    assert "ledger intact" in capsys.readouterr().out
    lines = [json.loads(line) for line in (absent / "rounds.jsonl").read_text().splitlines()]
    assert {line["round"] for line in lines if line["status"] == "offline"} == offline
    assert [line["round"] for line in lines if line["status"] == "late"] == [1, 2, 3, 4, 5]
    assert len(lines) == 20


def test_the_summary_counts_who_took_part_and_what_the_clock_says(absent: Path) -> None:
    summary = json.loads((absent / "summary.json").read_text())
    found, offline = summary["participation"], offline_rounds()
    assert (found["expected"], found["completed"], found["failed"]) == (20 - len(offline), 15 - len(offline), 0)
    assert (found["offline"], found["late"]) == (len(offline), 5)
    hospitals = {hospital["name"]: hospital for hospital in found["hospitals"]}
    sometimes = "".join("o" if number in offline else "u" for number in range(1, 6))
    assert [hospital["course"] for hospital in hospitals.values()] == ["uuuuu", sometimes, "lllll", "uuuuu"]
    # Every round lasts until the deadline, and hospital-03 is why.
    assert summary["time"]["simulated_s"] == pytest.approx(15.0)
    assert summary["time"]["waited_for"] == {
        "hospital-01": 0.0, "hospital-02": 0.0, "hospital-03": 1.0, "hospital-04": 0.0,
    }  # fmt: skip
    lines = [json.loads(line) for line in (absent / "rounds.jsonl").read_text().splitlines()]
    parameters = next(line["bytes"] for line in lines if line["status"] == "late") / 8
    transfer = parameters * 32 / 100e6 + parameters * 64 / 40e6
    assert hospitals["hospital-03"]["simulated_s"] == pytest.approx(1 + 4 + transfer)
    assert hospitals["hospital-01"]["simulated_s"] == pytest.approx(1 + 16 / 500 + transfer)
    assert hospitals["hospital-03"]["sent_gb"] == pytest.approx(5 * parameters * 8 / 1e9)
    spent = {name: hospital["eps_spent"] for name, hospital in hospitals.items()}
    assert spent["hospital-02"] < spent["hospital-01"] == spent["hospital-03"]


def test_a_hospital_that_never_took_part_has_no_model_and_breaks_nothing(absent: Path) -> None:
    summary = json.loads((absent / "summary.json").read_text())
    rows = [row["model"] for row in summary["utility_matrix"]["rows"]]
    assert "hospital-03" not in rows
    assert {"released", "hospital-01", "hospital-04"} <= set(rows)
    noise = {entry["name"]: entry for entry in summary["noise_to_resolution"]}
    assert noise["hospital-03"]["clipped_sum"] is noise["hospital-03"]["effectively_gaussian"] is None
    assert noise["hospital-01"]["effectively_gaussian"] is True
    assert len(summary["utility_per_hospital"]) == 4
    assert (absent / "figures" / "participation.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("method", "at"), [("append_round", 7), ("write_checkpoint", 4)])
def test_a_run_with_absences_that_was_cut_off_ends_as_if_it_had_not_been(
    absent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, at: int
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        cut_off(patched, method, at=at)
        with pytest.raises(PowerCut):
            main([*SMALL, *ABSENT, f"run_dir={folder}"])
    assert main([f"resume={folder}"]) == OK
    assert outcome(folder) == outcome(absent)


def test_a_hospital_s_own_fields_come_before_those_of_all() -> None:
    wanted = {"b": {"availability": 0.5, "records_per_s": 7}, "default": {"records_per_s": 3, "latency_s": 2}}
    assert site_profiles(wanted, ["a", "b"]) == (
        SiteProfile(records_per_s=3, latency_s=2),
        SiteProfile(records_per_s=7, latency_s=2, availability=0.5),
    )
    assert site_profiles({}, ["a"]) == (SiteProfile(),)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"default": {"speed": 1}}, "default has no field 'speed'; the fields are: records_per_s, "),
        ({"default": {"availability": "often"}}, "default: availability must be a number, got often"),
        ({"default": {"availability": True}}, "default: availability must be a number, got True"),
        ({"b": {"availability": 0}}, "b: availability must lie in (0, 1], got 0"),
        ({"b": 3}, "b needs a mapping of: records_per_s, "),
    ],
)
def test_what_is_no_profile_is_refused_with_what_is_one(wanted: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=re.escape(words)):
        site_profiles(wanted, ["a", "b"])


def test_attacks_read_the_answers_that_are_there(tmp_path: Path, capsys: Any) -> None:
    """hospital-03's own training rounds were never seen, and no round's mean has everybody in it."""
    folder = tmp_path / "run"
    arguments = [
        "adversary.attack=candidate_matching", "adversary.surfaces=[update,aggregate]", "adversary.candidates=4",
        "adversary.targets=8", "training.momentum=0", "training.rounds=2",
    ]  # fmt: skip
    assert main([*SMALL, *ABSENT, *arguments, f"run_dir={folder}"]) == OK
    assert "attack left out: candidate_matching on aggregate" in capsys.readouterr().out
    risk = json.loads((folder / "summary.json").read_text())["risk"]
    (matching,) = risk["worst_case"]["attacks"]
    assert matching["surface"] == "update"
    online = [is_online(SiteProfile(availability=0.5), seed=0, hospital="hospital-02", number=n) for n in (1, 2)]
    # Two targets of each hospital of which at least one round was seen.
    assert matching["records"] == 2 * (2 + any(online))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["federation.profiles={nobody:{availability:0.5}}"], "no hospital 'nobody'; name default or: hospital-01, "),
        (["federation.profiles=[1]"], "federation.profiles: must be a mapping by name"),
        (["federation.deadline_s=0"], "federation.deadline_s: must be a positive number of simulated seconds or null"),
        (["federation.deadline_s=0.01"], "federation.deadline_s: round 1 cannot count: of its 4 hospitals 0 are"),
        (["federation.profiles={default:{availability:0.01}}"], "federation.profiles: round 1 cannot count: of its 4"),
        (
            ["federation.profiles={hospital-01:{latency_s:9},hospital-02:{latency_s:9}}", "federation.deadline_s=3",
             "federation.aggregation=median"],
            "federation.aggregation: 'median' needs at least 3 hospitals",
        ),
    ],
)  # fmt: skip
def test_profiles_that_cannot_be_used_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: Any, settings: list[str], words: str
) -> None:
    assert main([*SMALL, *settings, f"run_dir={tmp_path / 'run'}"]) == BAD_INPUT
    assert re.search(re.escape(words), capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
