"""The table of budgets, over summaries that were written for it: nothing is trained here."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "budget_table.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("budget_table_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def no_run(arguments: list[str]) -> int:
        pytest.fail(f"a run was started: {arguments}")

    monkeypatch.setattr(module, "run", no_run)
    return module


def summary(*, attacks: tuple[dict[str, Any], ...] = (), **more: Any) -> dict[str, Any]:
    return {
        "privacy": {"hospitals": [{"noise_multiplier": 1.0632}]},
        "utility": {"mcc": 0.5, "auroc": 0.75, "accuracy": 0.625, "records": 100, "threshold": 0.5, "round": 3},
        "risk": {"realistic": {"attacks": list(attacks)}},
        **more,
    }


def attack(records: int, rate: float | None, control: float | None = 0.0) -> dict[str, Any]:
    return {"records": records, "success_rate": rate, "control_success_rate": control}


def write(folder: Path, budget: str, *summaries: dict[str, Any]) -> None:
    for seed, value in enumerate(summaries):
        path = folder / f"eps-{budget}_seed-{seed}"
        path.mkdir()
        (path / "summary.json").write_text(json.dumps(value))


def lines(script: ModuleType, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    script.main(list(arguments))
    return capsys.readouterr().out.splitlines()


def test_binary_runs_give_the_table_of_the_documentation(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = summary(attacks=(attack(30, 0.5, 0.1), attack(0, None, None)))
    second["utility"] |= {"mcc": 0.7, "accuracy": None}
    write(tmp_path, "8", summary(attacks=(attack(10, 1.0, 0.0),)), second)
    assert lines(
        script, capsys, "--budgets", "8", "--seeds", "0", "1", "--folder", str(tmp_path),
        "--metrics", "auroc", "mcc", "accuracy", "--", "data=phantom",
    ) == [
        "| eps | sigma | AUROC | MCC | accuracy | records rebuilt | controls |",
        "|---|---|---|---|---|---|---|",
        "| 8 | 1.06 | 0.750 ± 0.000 | 0.600 ± 0.141 | - | 62.5% | 7.5% |",
    ]  # fmt: skip


def test_columns_follow_the_task_and_risk_has_none_without_an_attack(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"dice": 0.871, "hd95": 12.34, "dice_1": 0.9}
    one = summary(metrics=["dice", "hd95"], utility=figures, units={"hd95": "mm"})
    other = summary(metrics=["dice", "hd95"], utility={**figures, "hd95": "inf"})
    write(tmp_path, "1", one)
    write(tmp_path, "inf", other)
    given = ("--budgets", "1", "inf", "--seeds", "0", "--folder", str(tmp_path))
    assert lines(script, capsys, *given) == [
        "| eps | sigma | Dice | HD95 (mm) |",
        "|---|---|---|---|",
        "| 1 | 1.06 | 0.871 | 12.3 |",
        "| inf | 1.06 | 0.871 | inf |",
    ]
    assert lines(script, capsys, *given, "--metrics", "dice_1")[2] == "| 1 | 1.06 | 0.900 |"


def test_three_metrics_are_shown_unless_others_are_asked_for(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["mcc", "auroc", "accuracy", "balanced_accuracy", "ece"]
    write(tmp_path, "1", summary(metrics=names, utility=dict.fromkeys(names, 0.5)))
    given = ("--budgets", "1", "--seeds", "0", "--folder", str(tmp_path))
    assert lines(script, capsys, *given)[0] == "| eps | sigma | MCC | AUROC | accuracy |"
    assert lines(script, capsys, *given, "--metrics", "ece")[0] == "| eps | sigma | calibration error |"


def test_an_attack_at_one_budget_gives_every_budget_its_columns(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "1", summary())
    write(tmp_path, "8", summary(attacks=(attack(10, 0.5),)))
    rows = lines(script, capsys, "--budgets", "1", "8", "--seeds", "0", "--folder", str(tmp_path))
    assert rows[2].endswith("| - | - |")
    assert rows[3].endswith("| 50.0% | 0.0% |")


def test_only_what_has_no_summary_is_run(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "8", summary())
    broken = tmp_path / "eps-8_seed-1"
    broken.mkdir()
    (broken / "rounds.jsonl").write_text("half a run")
    started = []

    def run(arguments: list[str]) -> int:
        started.append(arguments)
        assert not broken.exists()
        write_to = Path(arguments[2].removeprefix("run_dir="))
        write_to.mkdir()
        (write_to / "summary.json").write_text(json.dumps(summary()))
        return 0

    monkeypatch.setattr(script, "run", run)
    given = ("--budgets", "8", "--seeds", "0", "1", "--folder", str(tmp_path), "--", "data=phantom", "clients=2")
    assert len(lines(script, capsys, *given)) == 3
    assert started == [["eps=8", "seed=1", f"run_dir={broken}", "data=phantom", "clients=2"]]


def test_a_run_that_fails_ends_the_table_with_its_exit_code(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "run", lambda arguments: 2)
    with pytest.raises(SystemExit) as ended:
        script.main(["--budgets", "8", "--seeds", "0", "--folder", str(tmp_path)])
    assert ended.value.code == 2


def test_an_unknown_metric_is_refused_before_anything_runs(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script.main(["--folder", str(tmp_path), "--metrics", "f1"])
    assert "there is no f1; there are mcc, auroc" in capsys.readouterr().err
