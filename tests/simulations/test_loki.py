"""Whole runs that LOKI attacks: plain and under secure aggregation, cut off and gone on with, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hbdp_fed.adversary import load_observation
from hbdp_fed.adversary.loki import first_block, of_one_hospital
from simulations import attack
from simulations.compose import compose_run, typed
from simulations.prepare import prepare
from simulations.probe import ProbeCampaign
from simulations.program import BAD_INPUT, OK
from simulations.run import main
from tests.simulations.test_resume import PowerCut, cut_off, outcome

HOSPITALS, BINS = 3, 32
SMALL = [
    "engine=inprocess", f"clients={HOSPITALS}", "eps=1e15", "data.num_train=60", "data.num_val=60",
    "data.num_test=40", "data.image_size=16", "model.width=4", "training.rounds=1", "training.local_steps=1",
    "training.expected_batch=8", "evaluation.bootstrap=0", "evaluation.matrix=0", f"adversary.bins={BINS}",
    "adversary.attack=loki", "adversary.surfaces=[aggregate]",
]  # fmt: skip
SECURE = [*SMALL, "federation.secure_aggregation=true"]
PROBE = 2


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "run"
    assert main([*SMALL, f"run_dir={folder}"]) == OK
    return folder


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secure") / "run"
    assert main([*SECURE, f"run_dir={folder}"]) == OK
    return folder


def entries(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    risk = json.loads((folder / "summary.json").read_text())["risk"]
    return {(entry["name"], entry["surface"]): entry for entry in risk["realistic"]["attacks"]}


def test_the_records_of_all_hospitals_come_back_out_of_their_sum(plain: Path) -> None:
    found = entries(plain)["loki", "aggregate"]
    assert found["records"] > 4 * HOSPITALS
    assert found["success_rate"] > 0.6
    assert found["settings"]["blocks"] == HOSPITALS
    assert found["settings"]["bins"] == BINS


def test_secure_aggregation_does_not_stop_it(plain: Path, secure: Path) -> None:
    found, expected = entries(secure)["loki", "aggregate"], entries(plain)["loki", "aggregate"]
    assert found["records"] == expected["records"]
    assert found["success_rate"] == pytest.approx(expected["success_rate"], abs=2 / found["records"])
    assert not list((secure / "observations").glob("loki*hospital-0*"))


def test_what_is_recorded_is_the_complete_model_and_answers_in_one_block_each(plain: Path) -> None:
    answers = [
        load_observation(plain / "observations", f"loki_round-{PROBE:04d}_hospital-{place:02d}")
        for place in range(1, HOSPITALS + 1)
    ]
    block, _ = first_block(answers[0].architecture, answers[0].model_before, HOSPITALS)
    assert block.args["rows"] == BINS
    for place, answer in enumerate(answers):
        assert torch.equal(answer.model_before["planted.bias"], answers[0].model_before["planted.bias"])
        # At this budget the noise is far below any record's gradient.
        energy = answer.released.delta["planted.weight"].square().sum(dim=1).reshape(HOSPITALS, BINS).sum(dim=1)
        assert int(energy.argmax()) == place
        assert float(energy[place]) > 1e6 * float(energy.sum() - energy[place])


def test_the_campaign_tailors_lokis_request_alone_and_for_each_hospital_by_name() -> None:
    prepared = prepare(typed(compose_run([*SMALL, "adversary.attack=[imprint,loki]"])))
    campaign = ProbeCampaign.planned(prepared)
    assert campaign is not None
    imprint, loki = campaign.requests(prepared.initial)
    assert imprint.tailored is None
    assert loki.tailored is not None
    for place, plan in enumerate(prepared.plans):
        handed, wanted = loki.to(plan.name), of_one_hospital(loki.weights, place, HOSPITALS)
        assert handed.architecture == loki.architecture
        assert all(torch.equal(handed.weights[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("settings", [SMALL, SECURE], ids=["plain", "secure"])
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Between the answers to LOKI's probe."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        cut_off(patched, "append_round", at=HOSPITALS + 2)
        with pytest.raises(PowerCut):
            main([*settings, f"run_dir={folder}"])
    assert main([f"resume={folder}"]) == OK
    assert outcome(folder) == outcome(request.getfixturevalue("plain" if settings == SMALL else "secure"))


def test_it_can_be_attacked_again_and_is_told_by_means_alone_where_hospitals_are_seen_too(
    plain: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    seen = "surfaces=[gradient,aggregate,global_model]"
    assert attack.main([f"run={plain}", "attack=loki", seen, f"output={again}"]) == OK
    found = json.loads((again / "risk.json").read_text())["risk"]["realistic"]["attacks"]
    assert [(entry["name"], entry["surface"]) for entry in found] == [("loki", "aggregate"), ("loki", "global_model")]
    assert found[0] == entries(plain)["loki", "aggregate"]
    assert found[1]["success_rate"] == pytest.approx(found[0]["success_rate"], abs=2 / found[0]["records"])


def test_a_later_attack_on_single_hospitals_is_refused(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"run={plain}", "attack=loki", "surfaces=[update]", f"output={tmp_path / 'again'}"]
    assert attack.main(given) == BAD_INPUT
    assert "attack: loki takes means apart" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["adversary.surfaces=[gradient]"], "adversary.attack: loki takes means apart"),
        (["training.weight_decay=1e-3"], "training.weight_decay: must be 0 for loki"),
        (["adversary.bins=100000"], "adversary.bins: must be at most 43690 for loki, got 100000"),
    ],
)
def test_where_it_cannot_work_it_is_refused_before_anything_is_written(
    settings: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, *settings, f"run_dir={tmp_path / 'run'}"]) == BAD_INPUT
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
