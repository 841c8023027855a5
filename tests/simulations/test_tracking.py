"""Runs followed by TensorBoard and MLflow: what they are told, once each, also when a run was cut off."""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hbdp_fed.errors import SettingError
from simulations.compose import compose_run, typed
from simulations.program import BAD_INPUT, OK
from simulations.recipes import Hyperparameters
from simulations.run import main
from simulations.run_folder import RunFolder
from simulations.tracking import check_installed, final_figures, flat_settings
from simulations.tracking.on_mlflow import _Mlflow, store_of

SMALL = [
    "engine=inprocess", "clients=3", "eps=1e9", "data.num_train=60", "data.num_val=40", "data.num_test=40",
    "model.width=4", "training.rounds=3", "training.local_steps=2", "training.expected_batch=8",
    "evaluation.bootstrap=0", "evaluation.every=2", "adversary.attack=none", "federation.on_failure=tolerate",
    "federation.faults=[{hospital: hospital-02, round: 3, kind: empty}]",
]  # fmt: skip


class PowerCut(BaseException):
    """Nobody catches this, as nobody survives a power cut."""


def tracked_run(folder: Path, monkeypatch: pytest.MonkeyPatch, tracking: str) -> dict[str, Any]:
    """A tracked run that was cut off when round 2 was told and not yet saved, and gone on with; its summary."""

    def cut(*arguments: Any) -> None:
        raise PowerCut

    with monkeypatch.context() as patched:
        patched.setattr("simulations.execute.write_standing", second_call(cut))
        with pytest.raises(PowerCut):
            main([*SMALL, f"tracking={tracking}", f"run_dir={folder}"])
    assert main([f"resume={folder}"]) == OK
    summary = json.loads((folder / "summary.json").read_text())
    assert isinstance(summary, dict)
    return summary


def second_call(cut: Any) -> Any:
    """``write_standing`` until round 2."""
    from simulations.standing import write_standing

    def write(folder: RunFolder, snapshot: Any, *rest: Any) -> None:
        (cut if snapshot.standing.round == 2 else write_standing)(folder, snapshot, *rest)

    return write


def expected(folder: Path, summary: dict[str, Any]) -> dict[str, dict[int, float]]:
    """What has to be tracked by name and round, from what the run wrote down itself."""
    rounds: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in (folder / "rounds.jsonl").read_text().splitlines():
        rounds[json.loads(line)["round"]].append(json.loads(line))
    used = {number: [line for line in lines if line["status"] == "ok"] for number, lines in rounds.items()}
    seen = {number: sum(line["records_seen"] for line in lines) for number, lines in used.items()}
    return {
        "federation/answers": {number: len(lines) for number, lines in used.items()},
        "federation/failures": {number: len(lines) - len(used[number]) for number, lines in rounds.items()},
        "privacy/epsilon_spent": {n: max(line["eps_spent"] for line in lines) for n, lines in rounds.items()},
        "training/loss": {
            number: sum(line["loss"] * line["records_seen"] for line in lines) / seen[number]
            for number, lines in used.items()
        },
        "validation/auroc": {entry["round"]: entry["auroc"] for entry in summary["validation_history"]},
        "test/mcc": {3: summary["utility"]["mcc"]},
        "risk/worst_case/bound": {3: summary["risk"]["worst_case"]["bound"]},
    }


def test_tensorboard_has_every_round_once_and_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    summary = tracked_run(tmp_path / "run", monkeypatch, "tensorboard")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    for name, values in expected(tmp_path / "run", summary).items():
        found = events.Scalars(name)
        assert [event.step for event in found] == sorted(values)
        assert [event.value for event in found] == pytest.approx([values[step] for step in sorted(values)], rel=1e-6)
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    hparams = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["eps"].number_value == 1e9
    assert hparams["training.rounds"].number_value == 3
    assert main([*SMALL, f"run_dir={tmp_path / 'untracked'}"]) == OK
    assert json.loads((tmp_path / "untracked" / "summary.json").read_text())["model_sha256"] == summary["model_sha256"]
    assert not (tmp_path / "untracked" / "tensorboard").exists()


def test_mlflow_has_every_round_once_and_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    # The default's database takes seconds to create.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "store"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "hospitals")
    summary = tracked_run(tmp_path / "run", monkeypatch, "mlflow")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=str(tmp_path / "store"))
    experiment = client.get_experiment_by_name("hospitals")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["eps"] == "1000000000.0"
    assert run.data.params["training.rounds"] == "3"
    assert run.data.tags["model"] == summary["model_sha256"]
    for name, values in expected(tmp_path / "run", summary).items():
        history = sorted((metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name))
        assert [step for step, _ in history] == sorted(values)
        assert [value for _, value in history] == pytest.approx([values[step] for step in sorted(values)])


def test_mlflows_store_is_beside_the_run_unless_the_environment_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store_of(Path("/data/runs/a")) == "sqlite:////data/runs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://example.org")
    assert store_of(Path("/data/runs/a")) == "https://example.org"


def test_a_server_that_fails_is_told_of_and_does_not_end_the_run() -> None:
    exceptions = pytest.importorskip("mlflow.exceptions")

    def fails(*arguments: object, **named: object) -> None:
        raise exceptions.MlflowException("no route\nto the server")

    told: list[str] = []
    client = SimpleNamespace(log_batch=fails, set_terminated=fails)
    tracker = _Mlflow(client, "id", 0, told.append)
    tracker.log_round(4, {"training/loss": 1.0})
    tracker.end("FINISHED")
    assert told == ["not tracked by MLflow: round 4 (no route)", "not tracked by MLflow: the end (no route)"]


@pytest.mark.parametrize(
    ("tracking", "words"),
    [
        ("tensorbord", "'tensorbord' is not known; choose one of: mlflow, none, tensorboard"),
        ("tensorboard", "pip install 'hbdp-fed[tensorboard]'"),
        ("mlflow", "pip install 'hbdp-fed[mlflow]'"),
    ],
)
def test_what_cannot_track_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tracking: str, words: str
) -> None:
    for package in ("tensorboard", "mlflow"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    assert main([*SMALL, f"tracking={tracking}", f"run_dir={tmp_path / 'run'}"]) == BAD_INPUT
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.startswith("error: tracking: ")
    assert printed.out == ""
    assert not (tmp_path / "run").exists()
    with pytest.raises(SettingError, match="tracking"):
        check_installed(tracking)


def test_settings_are_told_flat_with_what_the_recipe_filled_in() -> None:
    config = typed(compose_run(["eps=inf", "training.class_weights=[1,4]", "model.width=8"]))
    hyper = Hyperparameters(rounds=7, local_steps=2, learning_rate=0.5, expected_batch=8, max_grad_norm=1.5)
    settings = flat_settings(config, hyper)
    assert settings["eps"] == "inf"
    assert settings["model.width"] == 8
    assert (settings["training.rounds"], settings["training.learning_rate"]) == (7, 0.5)
    assert settings["training.class_weights"] == "[1.0, 4.0]"
    assert settings["training.epochs"] == "null"
    assert settings["training.clip_without_noise"] is False
    assert settings.keys().isdisjoint({"resume", "run_dir", "tracking", "data.recipes"})
    assert all(isinstance(value, bool | int | float | str) for value in settings.values())


def test_of_the_end_only_what_is_finite_is_told() -> None:
    summary = {
        "utility": {"mcc": None, "auroc": 0.9, "dice_1": math.inf, "records": 40, "groups": 12, "round": 2,
                    "point": {"threshold": 0.5}, "ci95": {"auroc": [0.8, 0.95]}},
        "privacy": {"hospitals": [{"eps_rdp": "inf", "eps_tight": 2.0}, {"eps_rdp": 1.0, "eps_tight": 3.0}]},
        "risk": {"realistic": {"bound": None, "attacks": [
            {"name": "imprint", "surface": "update", "success_rate": 0.25},
            {"name": "imprint", "surface": "gradient", "success_rate": None}]}},
    }  # fmt: skip
    assert final_figures(summary) == {
        "test/auroc": 0.9, "privacy/eps_tight": 3.0, "risk/realistic/imprint/update": 0.25,
    }  # fmt: skip
