"""The planner as a program: its three examples, its files, its mistakes, and that its noise is a run's."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from hbdp_fed.planning import Throughput
from hbdp_fed.strict_json import dumps
from scripts.check_plan import consortium_of
from simulations import cli, plan
from simulations.calibrating import Calibration, CalibrationFailed
from simulations.compose import compose_run, typed
from simulations.consortium_file import example_names, load_consortium
from simulations.prepare import prepare
from tests.planning.consortia import small
from tests.planning.sweeps import attack, budget, control, sweep

PACE = Throughput(call_s=0.1, step_s=0.02, gradient_s=0.003, judged_s=0.001)
CHEAP = [1e6, 1e9]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: Path, **changes: Any) -> str:
    path = folder / "ours.yaml"
    path.write_text(yaml.safe_dump(small(**{"budgets": CHEAP, **changes})))
    return f"consortium={path}"


def planned(folder: Path, *arguments: str, **changes: Any) -> dict[str, Any]:
    assert plan.main([written(folder, **changes), f"output={folder / 'out'}", *arguments]) == 0
    found: dict[str, Any] = json.loads((folder / "out" / "plan.json").read_text(), parse_constant=pytest.fail)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert plan.main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_noise_is_that_of_a_run_with_the_same_settings(here: Path) -> None:
    settings = ["clients=3", "eps=1e9", "partition.sizes=power_law", "data.num_train=300", "training.rounds=4"]
    prepared = prepare(typed(compose_run(settings)))
    path = here / "phantom.yaml"
    path.write_text(yaml.safe_dump(consortium_of(prepared)))
    assert plan.main([f"consortium={path}", "calibrate=false", f"output={here / 'out'}"]) == 0
    found = json.loads((here / "out" / "plan.json").read_text())
    for own, used in zip(found["hospitals"], prepared.plans, strict=True):
        row = own["budgets"][0]
        assert (own["name"], own["records"], own["steps"]) == (used.name, used.num_records, used.mechanism.steps)
        assert own["sample_rate"] == used.mechanism.sample_rate
        assert row["noise_multiplier"] == used.mechanism.noise_multiplier
        assert row["eps_rdp"] == used.eps_rdp
    assert found["training"]["spare_steps"] > 0
    assert found["parameters"] == sum(value.numel() for value in prepared.initial.values())


def test_the_plan_has_all_that_programs_read(here: Path) -> None:
    found = planned(here, "budgets=[1e6,inf]", b__ceiling=1e6, b__patients=150)
    assert (found["schema"], found["kind"], found["name"]) == (1, "plan", "three")
    assert found["image_shape"] == [1, 28, 28]
    assert found["training"]["steps"] == 50
    own = found["hospitals"][1]
    assert (own["records"], own["patients"], own["ceiling"], own["expected_batch"]) == (200, 150, 1e6, 20)
    assert own["speed"] == {"records_per_s": 50.0, "source": "given"}
    assert [row["eps"] for row in own["budgets"]] == [1e6, "inf"]
    assert [row["allowed"] for row in own["budgets"]] == [True, False]
    assert found["refused"][0]["eps"] == "inf"
    assert set(found["cost"]) == {"round", "total", "hospitals", "simulation", "calibration"}
    assert found["cost"]["simulation"] is None
    assert [entry["name"] for entry in found["leaving"]] == ["a", "b", "c"]
    assert found["weakest"]["name"] == "c"
    assert found["frontier"] is found["recommendation"] is None


def test_only_hospitals_without_a_speed_get_this_machines(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def calibrated(job: Any, *, workers: int) -> Calibration:
        asked.append(workers)
        assert (job.batch, job.steps, job.image_shape) == (20.0, 5, (1, 28, 28))
        return Calibration(PACE, PACE, workers, 2.0, 5.0)

    monkeypatch.setattr(plan, "calibrated", calibrated)
    found = planned(here, "workers=2", a__records_per_s=None)
    assert asked == [2]
    speeds = [own["speed"] for own in found["hospitals"]]
    expected = PACE.records_per_s(steps=5, batch=20, views=1)
    assert speeds[0] == {"records_per_s": pytest.approx(expected), "source": "calibrated"}
    assert speeds[1]["source"] == "given"
    assert found["cost"]["simulation"]["workers"] == 2
    assert found["cost"]["calibration"]["alone"] == vars(PACE)


def test_without_calibration_a_hospital_without_a_speed_has_a_plausible_one(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = planned(here, "calibrate=false", a__records_per_s=None)
    assert found["hospitals"][0]["speed"] == {"records_per_s": 500.0, "source": "profile"}
    assert "plausible, not measured" in capsys.readouterr().out


def test_a_machine_that_cannot_be_measured_ends_with_exit_code_1(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> Calibration:
        raise CalibrationFailed("this machine could not be measured: out of memory")

    monkeypatch.setattr(plan, "calibrated", fails)
    assert plan.main([written(here), "calibrate=true"]) == 1
    assert "out of memory" in capsys.readouterr().err


@pytest.mark.slow
def test_this_machine_is_really_measured(here: Path) -> None:
    found = planned(here, "calibrate=true", "calibration_s=0.3", "workers=2", "budgets=[1e9]")
    measured = found["cost"]["calibration"]
    assert measured["workers"] == 2
    assert measured["import_s"] > 0
    assert measured["alone"]["gradient_s"] > 0
    assert measured["together"]["gradient_s"] > 0
    assert found["cost"]["simulation"]["seconds"] > found["cost"]["simulation"]["rounds_s"] > 0
    # Whoever gives a speed keeps it.
    assert {own["speed"]["source"] for own in found["hospitals"]} == {"given"}


def test_three_examples_can_be_planned(here: Path) -> None:
    assert example_names() == ["chest_xray_7", "dermatology_4", "liver_ct_3"]
    sizes = {}
    for name in example_names():
        arguments = [f"consortium={name}", "budgets=[1e9]", "calibrate=false", f"output={here / name}"]
        assert plan.main(arguments) == 0
        sizes[name] = len(json.loads((here / name / "plan.json").read_text())["hospitals"])
    assert sizes == {"chest_xray_7": 7, "dermatology_4": 4, "liver_ct_3": 3}
    unequal = load_consortium("chest_xray_7").hospitals
    assert len({hospital.records for hospital in unequal}) == 7
    assert any(hospital.ceiling for hospital in unequal)


SWEEP = sweep([budget(1e6), budget(1e9, attacks=[attack(400, 440)]), control()])


def test_a_sweep_adds_frontier_and_recommendation(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = here / "sweep"
    folder.mkdir()
    (folder / "sweep.json").write_text(dumps(SWEEP))
    found = planned(here, f"sweep={folder}")
    answer = found["recommendation"]
    assert (answer["verdict"], answer["eps"]) == ("recommended", 1e6)
    assert [entry["eps"] for entry in answer["budgets"]] == [1e6, 1e9, "inf"]
    assert [entry["verdict"] for entry in answer["budgets"]] == ["meets", "fails", "fails"]
    assert [entry["eps"] for entry in found["frontier"]] == [1e6, 1e9, "inf"]
    assert answer["policy"]["metric"] == found["metric"] == "mcc"
    said = " ".join(capsys.readouterr().out.split())
    assert "eps=1e+06 is the smallest budget that was shown to satisfy your policy" in said
    assert "MCC is non-inferior" in said
    assert answer["not_covered"][0] in said
    assert not any("consortium" in line for line in answer["not_covered"])


def test_ceilings_hold_for_what_a_sweep_recommends(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = here / "sweep.json"
    file.write_text(dumps(SWEEP))
    # Whether the budget is one of the plan's or not.
    for budgets in ("[1e6]", "[1e3]"):
        folder = here / budgets.strip("[]")
        path = written(here, c__ceiling=10)
        assert plan.main([path, f"sweep={file}", f"budgets={budgets}", f"output={folder}"]) == 0
        answer = json.loads((folder / "plan.json").read_text())["recommendation"]
        assert answer["verdict"] == "none"
        assert "c refuses" in answer["budgets"][0]["reasons"][0]
    assert "no budget satisfies your policy" in capsys.readouterr().out


def test_a_sweep_of_another_federation_is_told_to_be_one(here: Path) -> None:
    file = here / "sweep.json"
    file.write_text(dumps(SWEEP))
    answer = planned(here, f"sweep={file}", dataset="chest_xray", model={"name": "resnet9", "width": 8})[
        "recommendation"
    ]
    assert answer["not_covered"][:2] == [
        "this consortium's data set: the sweep measured phantom, and chest_xray is planned",
        "this consortium's model: the sweep measured cnn, and resnet9 is planned",
    ]


def test_what_is_typed_goes_before_the_target_and_that_before_the_default(here: Path) -> None:
    file = here / "sweep.json"
    file.write_text(dumps(SWEEP))
    found = planned(here, f"sweep={file}", "policy.risk=0.2", target={"risk": 0.1, "margin": 0.5})
    policy = found["recommendation"]["policy"]
    assert (policy["risk"], policy["margin"], policy["least_records"]) == (0.2, 0.5, 400)


def test_a_sweep_over_several_federations_needs_a_choice(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = here / "sweep.json"
    groups = [
        {"values": {"clients": str(count)}, "budgets": [budget(1e6, attacks=tried)]}
        for count, tried in ((3, [attack(0, 440)]), (5, []))
    ]
    file.write_text(dumps({**SWEEP, "groups": groups}))
    assert planned(here, f"sweep={file}")["recommendation"]["verdict"] == "recommended"
    other = [f"sweep={file}", "group=1", f"output={here / 'other'}"]
    assert plan.main([written(here), *other]) == 0
    assert json.loads((here / "other" / "plan.json").read_text())["recommendation"]["verdict"] == "undecided"
    capsys.readouterr()
    assert "must be from 0 to 1, got 2" in refused(capsys, written(here), f"sweep={file}", "group=2")
    groups[0]["values"] = groups[1]["values"] = {"partition.alpha": "0.5"}
    file.write_text(dumps({**SWEEP, "groups": groups}))
    assert "the sweep has 2 groups; choose one: 0 (partition.alpha=0.5); 1" in refused(
        capsys, written(here), f"sweep={file}"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "consortium: name a YAML file or one of the examples: chest_xray_7"),
        (["consortium=nowhere.yaml"], "there is no file"),
        (["consortium=chest_xray_7", "format=csv"], "format: 'csv' is not known; choose one of: json, table"),
        (["consortium=chest_xray_7", "calibrate=maybe"], "calibrate: 'maybe' is not known"),
        (["consortium=chest_xray_7", "calibration_s=0"], "calibration_s: must be above 0"),
        (["consortium=chest_xray_7", "workers=0"], "workers: must be at least 1"),
        (["consortium=chest_xray_7", "group=0"], "group: says which group of a sweep"),
        (["consortium=chest_xray_7", "budgets=[]"], "budgets: must hold at least one number"),
        (["consortium=chest_xray_7", "budgets=[8,8]"], "budgets[1]: 8 is given twice"),
        (["consortium=chest_xray_7", "sweep=nowhere"], "sweep: there is no"),
        (["consortium=chest_xray_7", "policy.margin=0"], "policy.margin: must be positive"),
        (["consortium=chest_xray_7", "policy.threat_model=mild"], "policy.threat_model: 'mild' is not known"),
        (["consortium=chest_xray_7", "policy.margn=1"], "did you mean 'policy.margin'?"),
    ],
)
def test_a_mistake_ends_with_one_line(
    arguments: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, *arguments)
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hospitals: [", "is not YAML"),
        ("- a", "must be a mapping"),
        ("!!python/object/apply:os.system [echo]", "is not YAML"),
        (yaml.safe_dump(small(b__records=0)), "hospitals[1].records: must be at least 1, got 0"),
        (yaml.safe_dump(small(model={"name": "resnet"})), "model: 'resnet' is not known"),
        (yaml.safe_dump(small(training__optimizer="adam")), "training.optimizer: 'adam' is not known"),
    ],
)
def test_a_mistake_in_the_file_names_file_and_place(
    text: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = here / "ours.yaml"
    path.write_text(text)
    line = refused(capsys, f"consortium={path}")
    assert line.startswith(f"error: {path}: ")
    assert said in line


def test_a_folder_that_holds_something_is_not_written_to(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "out").mkdir()
    (here / "out" / "precious").touch()
    assert "output" in refused(capsys, written(here), f"output={here / 'out'}")


def test_json_is_the_document_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(here, "format=json", "budgets=[1e9,inf]")
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == found


def test_help_and_the_console_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--help"]) == 0
    told = capsys.readouterr().out
    for part in ("usage: python -m simulations.plan", "exit codes: 0 done", "calibrate: auto", "chest_xray_7"):
        assert part in told


@pytest.mark.slow
def test_seven_unequal_hospitals_are_answered_in_ten_seconds(tmp_path: Path) -> None:
    """From the command line, imports included; the least of three, since a machine that is shared is slow at times."""
    times = []
    for number in range(3):
        started = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "simulations.plan",
            "consortium=chest_xray_7",
            f"output={tmp_path / str(number)}",
        ]
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    assert min(times) < 10
