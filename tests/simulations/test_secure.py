"""Runs under secure aggregation: what they refuse, what they write, and that no hospital's own update is in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from hbdp_fed.models import read_weights
from hbdp_fed.privacy.ledger import verify
from simulations import attack
from simulations.program import BAD_INPUT, OK
from simulations.run import main
from tests.simulations.test_resume import PowerCut, cut_off, outcome

SMALL = [
    "engine=inprocess", "clients=5", "eps=1e9", "data.num_train=60", "data.num_val=40", "data.num_test=40",
    "model.width=4", "training.rounds=2", "training.local_steps=1", "training.expected_batch=8",
    "evaluation.bootstrap=0", "adversary.bins=16", "adversary.candidates=4", "adversary.targets=5",
    "adversary.attack=[imprint,membership]", "adversary.surfaces=[aggregate]",
    "federation.on_failure=tolerate",
]  # fmt: skip
FAULTS = (
    "federation.faults=[{hospital: hospital-02, round: 3, kind: exception},"
    "{hospital: hospital-03, round: 1, kind: exception, phase: release},"
    "{hospital: hospital-04, round: 2, kind: empty, phase: enrol}]"
)
SECURE = [*SMALL, "federation.secure_aggregation=true", FAULTS]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secure") / "run"
    assert main([*SECURE, f"run_dir={folder}"]) == OK
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, whose updates travel as they are."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    # Who fails when keys are exchanged is, in a plain run, one that does not answer.
    faults = FAULTS.replace(", phase: enrol", "").replace(
        "{hospital: hospital-03, round: 1, kind: exception, phase: release},", ""
    )
    assert main([*SMALL, faults, f"run_dir={folder}"]) == OK
    return folder


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())  # type: ignore[no-any-return]


def single_updates(plain: Path) -> dict[str, dict[str, torch.Tensor]]:
    """What hospitals sent in the plain run, rounds and probes alike."""
    files = [*plain.glob("observations/round-*/*.safetensors"), *plain.glob("observations/*_hospital-*.safetensors")]
    return {f"{path.parent.name}/{path.stem}": dict(read_weights(path)) for path in files}


def test_no_file_of_the_run_holds_a_single_update(secure: Path, plain: Path) -> None:
    """Neither an update as it would have travelled, nor a hospital's own model; the plain run has both."""
    sent = single_updates(plain)
    assert len(sent) == 5 + 4 + 4
    start = {number: read_weights(plain / f"checkpoints/round-000{number - 1}.safetensors") for number in (1, 2)}
    needles = {}
    for name, update in sent.items():
        widest = max(update, key=lambda key: update[key].numel())
        needles[name] = update[widest].numpy().tobytes()
        if (number := re.match(r"round-000(\d)/", name)) is not None:
            own = (start[int(number[1])][widest] + update[widest]).float()
            needles[f"model of {name}"] = own.numpy().tobytes()
    contents = {path: path.read_bytes() for path in secure.rglob("*") if path.is_file()}
    for name, needle in needles.items():
        assert not [path for path, content in contents.items() if needle in content], name
    # The search finds what is there.
    everything = [path.read_bytes() for path in plain.rglob("*.safetensors")]
    missing = [name for name, needle in needles.items() if not any(needle in content for content in everything)]
    assert all(name.startswith("model of") for name in missing)
    assert len(missing) < len([name for name in needles if name.startswith("model of")])
    # A hospital's log holds the figures that it told besides.
    assert {path.suffix for path in secure.rglob("*hospital-0*") if path.is_file()} == {".log"}
    assert b"secure_sum" not in (secure / "standing.safetensors").read_bytes()


def test_what_was_recorded_is_the_mean_and_the_model_is_that_of_the_plain_run(secure: Path, plain: Path) -> None:
    error = summary(secure)["secure_aggregation"]["largest_error"]
    assert 0 < error < 1e-12
    hospitals = [f"hospital-{place:02d}" for place in range(1, 6)]
    answered = {1: hospitals, 2: [name for name in hospitals if name != "hospital-04"]}
    rounding = 1e-14
    for number in (1, 2):
        mean = read_weights(secure / f"observations/round-000{number}/all-hospitals.safetensors")
        for name, value in mean.items():
            sent = [
                read_weights(plain / f"observations/round-000{number}/{hospital}.safetensors")[name]
                for hospital in answered[number]
            ]
            # Round 2 starts from weights that differ by the first one's error, rounded to float32.
            allowed = error + rounding if number == 1 else 1e-4
            assert float((value - torch.stack(sent).mean(dim=0)).abs().max()) <= allowed
    after, expected = (read_weights(folder / "checkpoints/round-0001.safetensors") for folder in (secure, plain))
    for name, value in expected.items():
        assert float((after[name] - value).abs().max()) <= error + rounding


def test_the_summary_and_the_report_say_how_it_was_summed(secure: Path, plain: Path) -> None:
    entry = summary(secure)["secure_aggregation"]
    assert entry["thresholds"] == [{"asked": 5, "needed": 4}]
    assert entry["bits"] == 54
    assert entry["least_noise_to_step"] > 1e3
    assert entry["effectively_gaussian"] is True
    assert "run's seed" in entry["secrets"]
    assert summary(secure)["utility_matrix"] is None
    page = (secure / "report.html").read_text()
    assert "Updates were summed securely" in page
    assert re.search(r"of 5 hospitals that were asked, 4 had to\s+help", page)
    assert summary(plain)["secure_aggregation"] is None
    assert "summed securely" not in (plain / "report.html").read_text()


def test_whoever_computed_is_charged_and_every_failure_is_named(secure: Path) -> None:
    found = summary(secure)["participation"]
    assert found["failures"] == [
        {"hospital": "hospital-03", "round": 1, "kind": "exception", "phase": "release"},
        {"hospital": "hospital-04", "round": 2, "kind": "empty", "phase": "enrol"},
        {"hospital": "hospital-02", "round": 3, "kind": "exception"},
    ]
    # The one that did not help to take the masks off had sent its update.
    assert (found["expected"], found["completed"], found["failed"]) == (15, 13, 2)
    accounts = verify(secure / "ledger.jsonl").accounts
    assert {name: (account.steps_spent, account.lost) for name, account in accounts.items()} == {
        "hospital-01": (3, 0),
        "hospital-02": (3, 1),
        "hospital-03": (3, 0),
        "hospital-04": (2, 0),
        "hospital-05": (3, 0),
    }
    lines = [json.loads(line) for line in (secure / "rounds.jsonl").read_text().splitlines()]
    failed = [(line["hospital"], line["failure"], line.get("phase")) for line in lines if line["status"] == "failed"]
    assert failed == [
        ("hospital-03", "exception", "release"),
        ("hospital-04", "empty", "enrol"),
        ("hospital-02", "exception", None),
    ]


def test_attacks_see_the_sum_that_was_unmasked(secure: Path, plain: Path, tmp_path: Path) -> None:
    found, expected = (summary(folder)["risk"]["realistic"]["attacks"] for folder in (secure, plain))
    assert [(one["name"], one["surface"]) for one in found] == [("imprint", "aggregate")]
    # The same records in the same sum, which is off by less than the noise.
    assert found[0]["records"] == expected[0]["records"] > 0
    assert found[0]["ssim_max"] == pytest.approx(expected[0]["ssim_max"], abs=0.02)
    assert found[0]["ssim_max"] > 0.8
    # It can be attacked again from what was recorded, to the last digit.
    again = tmp_path / "again"
    assert attack.main([f"run={secure}", "attack=imprint", f"output={again}"]) == OK
    assert json.loads((again / "risk.json").read_text())["risk"]["realistic"]["attacks"] == found


def test_a_single_hospital_is_not_shown_to_a_later_attack_either(
    secure: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert attack.main([f"run={secure}", "surfaces=[gradient]", f"output={tmp_path / 'out'}"]) == BAD_INPUT
    assert "surfaces: gradient cannot be seen under federation.secure_aggregation" in capsys.readouterr().err


def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(
    secure: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a sum, when some hospitals had sent their masked updates."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        cut_off(patched, "append_round", at=9)
        with pytest.raises(PowerCut):
            main([*SECURE, f"run_dir={folder}"])
    assert main([f"resume={folder}"]) == OK
    assert outcome(folder) == outcome(secure)
    assert summary(folder)["secure_aggregation"] == summary(secure)["secure_aggregation"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["adversary.surfaces=[gradient]"], "adversary.surfaces: gradient cannot be seen .* choose aggregate"),
        (["adversary.surfaces=[aggregate,update]"], "adversary.surfaces: update cannot be seen"),
        (["federation.aggregation=median"], "federation.aggregation: must be mean under federation.secure_aggregation"),
        (["clients=2"], "federation.secure_aggregation: needs at least 3 hospitals in every round, and a round asks 2"),
        (["federation.participation=0.4"], "and a round asks 2"),
        (["eps=inf"], "there is none without clipping: set training.clip_without_noise=true"),
        (["eps=1e20", "training.weight_decay=1e6"], "a hospital's noise is .* of them: below 10"),
        (
            ["federation.secure_aggregation=false"],
            "federation.faults: the phase release needs federation.secure_aggregation=true",
        ),
        (
            ["federation.faults=[{hospital: hospital-01, round: 1, kind: oversize, phase: deal}]"],
            "in the phase deal a kind is one of: exception, timeout, killed, empty",
        ),
        (["federation.faults=[{hospital: hospital-01, round: 1, kind: empty, phase: tea}]"], "'tea' is not known"),
    ],
)
def test_what_cannot_be_summed_securely_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: list[str], words: str
) -> None:
    assert main([*SECURE, *settings, f"run_dir={tmp_path / 'run'}"]) == BAD_INPUT
    assert re.search(words, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_a_control_without_noise_can_be_summed_and_the_surface_follows(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    quick = [
        "eps=inf",
        "training.clip_without_noise=true",
        "training.rounds=1",
        "clients=3",
        "adversary.attack=[linear_probe]",
    ]
    given = [*SECURE, "federation.faults=[]", "adversary.surfaces=auto", *quick, f"run_dir={folder}"]
    assert main(given) == OK
    entry = summary(folder)
    assert [one["surface"] for one in entry["risk"]["relaxed"]["attacks"]] == ["aggregate"]
    assert entry["risk"]["relaxed"]["attacks"][0]["success_rate"] > 0.9
    assert entry["secure_aggregation"]["least_noise_to_step"] is None
