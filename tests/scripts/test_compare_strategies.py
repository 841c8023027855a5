"""The comparison of strategies, over summaries that were made for it: nothing is trained here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def script() -> ModuleType:
    return import_module("scripts.compare_strategies")


def write(folder: Path, strategy: str, validation: Sequence[float], test: Sequence[float | None]) -> None:
    for seed, (seen, released) in enumerate(zip(validation, test, strict=True)):
        path = folder / strategy / f"eps-1e9_seed-{seed}"
        path.mkdir(parents=True)
        summary = {
            "seed": seed, "model_sha256": "0", "selection": ["mcc", "auroc"], "metrics": ["mcc", "auroc"],
            "utility": {"auroc": released, "mcc": 0.5}, "utility_validation": {"auroc": seen, "mcc": 0.5},
        }  # fmt: skip
        (path / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "fedavg", [0.8, 0.9], [0.70, 0.80])
    write(tmp_path, "fedprox_mu-0.1", [0.9, 0.9], [0.60, 0.60])
    write(tmp_path, "fedprox_mu-1", [0.8, 0.8], [0.99, 0.99])
    write(tmp_path, "scaffold", [0.7, 0.7], [0.72, 0.86])
    return tmp_path


def lines(script: ModuleType, capsys: pytest.CaptureFixture[str], folder: Path, *more: str) -> list[str]:
    script.main(["--seeds", "0", "1", "--mu", "1", "0.1", "--metrics", "auroc", "--folder", str(folder), *more])
    return capsys.readouterr().out.splitlines()


def test_mu_is_chosen_on_validation_and_differences_are_taken_seed_by_seed(
    script: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lines(script, capsys, folder) == [
        "| strategy | AUROC (validation) | AUROC (test) | AUROC - FedAvg's |",
        "|---|---|---|---|",
        "| FedAvg | 0.850 ± 0.071 | 0.750 ± 0.071 |  |",
        "| FedProx, mu=0.1 | 0.900 ± 0.000 | 0.600 ± 0.000 | -0.150 ± 0.071 |",
        "| SCAFFOLD | 0.700 ± 0.000 | 0.790 ± 0.099 | +0.040 ± 0.028 |",
    ]
    written = json.loads((folder / "strategies.json").read_text())
    assert written["compared"] == ["FedAvg", "FedProx, mu=0.1", "SCAFFOLD"]
    # Those that were not chosen are told, too.
    assert [(one["name"], [run["test"]["auroc"] for run in one["runs"]]) for one in written["strategies"]][2] == (
        "FedProx, mu=1", [0.99, 0.99],
    )  # fmt: skip


def test_a_figure_that_a_run_lacks_has_no_difference(
    script: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "scaffold" / "eps-1e9_seed-1" / "summary.json"
    summary = json.loads(path.read_text())
    summary["utility"]["auroc"] = None
    path.write_text(json.dumps(summary))
    assert lines(script, capsys, folder)[-1] == "| SCAFFOLD | 0.700 ± 0.000 | - | - |"


def test_runs_that_are_missing_are_started_with_what_sets_their_strategy_apart_and_what_was_asked(
    script: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []

    def run(arguments: list[str]) -> int:
        started.append(arguments)
        path = Path(next(text.removeprefix("run_dir=") for text in arguments if text.startswith("run_dir=")))
        write(path.parents[1], path.parent.name, [0.5], [0.5])
        return 0

    monkeypatch.setattr(script, "start", run)
    script.main(["--seeds", "0", "--mu", "--folder", str(folder / "new"), "--", "data=phantom", "clients=3"])
    shared = ["partition.scheme=dirichlet", "partition.alpha=0.1", "adversary.attack=none", "data=phantom", "clients=3"]
    assert [arguments[3:] for arguments in started] == [shared, [*shared, "training.correction=scaffold"]]
    assert [arguments[:2] for arguments in started] == [["eps=1e9", "seed=0"]] * 2


def test_what_is_left_of_a_broken_run_is_begun_again_and_a_failure_ends_the_comparison(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "fedavg" / "eps-1e9_seed-0"
    broken.mkdir(parents=True)
    (broken / "rounds.jsonl").write_text("half a run")
    started: list[list[str]] = []

    def fail(arguments: list[str]) -> int:
        started.append(arguments)
        assert not broken.exists()
        return 2

    monkeypatch.setattr(script, "start", fail)
    with pytest.raises(SystemExit) as ended:
        script.main(["--seeds", "0", "--mu", "--folder", str(tmp_path)])
    assert ended.value.code == 2
    assert [arguments[:3] for arguments in started] == [["eps=1e9", "seed=0", f"run_dir={broken}"]]
