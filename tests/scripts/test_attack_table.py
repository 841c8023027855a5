"""The table of attacks by budget, over summaries and pictures that were made for it: nothing is trained here."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hbdp_fed.audit import Column, save_columns

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    # It imports its neighbour, as scripts do that are started from their folder.
    monkeypatch.syspath_prepend(SCRIPTS)
    spec = importlib.util.spec_from_file_location("attack_table_script", SCRIPTS / "attack_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def no_run(arguments: list[str]) -> int:
        pytest.fail(f"a run was started: {arguments}")

    monkeypatch.setattr("budget_table.run", no_run)
    return module


def attack(name: str, rate: float | None = 0.25, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "kind": "reconstruction", "surface": "gradient", "records": 40, "success_rate": rate,
        "success_rate_ci95": None if rate is None else [rate - 0.125, rate + 0.125], "bound": None, "above_bound": None,
        **more,
    }  # fmt: skip


NAMING = attack(
    "candidate_matching", 0.5, kind="identification", records=64, bound=0.75, optimal=0.7, above_bound=False
)  # fmt: skip


def summary(
    *,
    worst_case: Sequence[dict[str, Any]] = (),
    relaxed: Sequence[dict[str, Any]] = (),
    realistic: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    return {
        "dataset": "phantom",
        "privacy": {"hospitals": [{"noise_multiplier": 1.0632}, {"noise_multiplier": 9.0}]},
        "risk": {
            "worst_case": {"bound": 0.178178, "attacks": list(worst_case)},
            "relaxed": {"bound": 0.0625, "attacks": list(relaxed)},
            "realistic": {"bound": None, "attacks": list(realistic)},
        },
    }


def run_folder(folder: Path, budget: str, seed: int = 0) -> Path:
    return folder / f"eps-{budget}_seed-{seed}"


def write(folder: Path, budget: str, value: dict[str, Any], *, seed: int = 0) -> None:
    path = run_folder(folder, budget, seed)
    path.mkdir(parents=True)
    (path / "summary.json").write_text(json.dumps(value))


def keep(folder: Path, budget: str, attack: str, *, grey: int, count: int = 2, seed: int = 0) -> None:
    """What a run keeps of an attack: reconstructions of one grey beside dark originals."""
    image = torch.full((1, 12, 12), grey / 255)
    columns = [Column(torch.zeros(1, 12, 12), image, torch.zeros(1, 12, 12), 0.9, True, "hospital-01")] * count
    save_columns(run_folder(folder, budget, seed) / "reconstructions" / f"{attack}.npz", columns)


def lines(script: ModuleType, capsys: pytest.CaptureFixture[str], folder: Path, *budgets: str) -> list[str]:
    script.main(["--budgets", *budgets, "--folder", str(folder)])
    return capsys.readouterr().out.splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_each_attack_has_a_column_and_each_budget_a_row_with_rate_interval_records_and_bound(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = attack("linear_probe", bound=0.5, above_bound=False)
    write(tmp_path, "8", summary(worst_case=[NAMING], relaxed=[probe], realistic=[attack("imprint", surface="update")]))
    assert lines(script, capsys, tmp_path, "8")[:3] == [
        "| eps | sigma | candidate_matching (gradient) | linear_probe (gradient) | imprint (update) "
        "| bound, worst case | bound, relaxed |",
        "|---|---|---|---|---|---|---|",
        "| 8 | 1.06 | 50.0% (37.5% to 62.5%), n=64; bound 75.0%, best possible 70.0% "
        "| 25.0% (12.5% to 37.5%), n=40; bound 50.0% | 25.0% (12.5% to 37.5%), n=40 | 17.8% | 6.2% |",
    ]


def test_one_attack_on_two_surfaces_has_two_columns(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [NAMING, {**NAMING, "surface": "global_model", "success_rate": 0.375, "success_rate_ci95": [0.25, 0.5]}]
    write(tmp_path, "1", summary(worst_case=both))
    head, _, row = lines(script, capsys, tmp_path, "1")
    assert cells(head)[2:4] == ["candidate_matching (gradient)", "candidate_matching (global_model)"]
    assert [cell.split(" (")[0] for cell in cells(row)[2:4]] == ["50.0%", "37.5%"]


def test_an_attack_that_a_run_lacks_or_that_had_nothing_to_attack_is_a_dash(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "1", summary(worst_case=[NAMING]))
    write(tmp_path, "8", summary(realistic=[attack("imprint", None, records=0)]))
    write(tmp_path, "inf", summary(realistic=[attack("imprint")]))
    head, _, *rows = lines(script, capsys, tmp_path, "1", "8", "inf")[:5]
    assert cells(head)[2:4] == ["candidate_matching (gradient)", "imprint (gradient)"]
    assert [cells(row)[0] for row in rows] == ["1", "8", "inf"]
    assert [[cell == "-" for cell in cells(row)[2:4]] for row in rows] == [[False, True], [True, True], [True, False]]


def test_an_attack_above_its_bound_is_marked_and_no_other(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "1", summary(worst_case=[{**NAMING, "above_bound": True}, attack("membership", kind="membership")]))
    _, _, row = lines(script, capsys, tmp_path, "1")
    assert [cell.endswith(" **above its bound**") for cell in cells(row)] == [False, False, True, False, False, False]


def test_runs_without_attacks_still_have_their_bounds(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "1", summary())
    assert lines(script, capsys, tmp_path, "1") == [
        "| eps | sigma | bound, worst case | bound, relaxed |",
        "|---|---|---|---|",
        "| 1 | 1.06 | 17.8% | 6.2% |",
    ]
    assert list(tmp_path.glob("*.png")) == []


def pixels(path: Path) -> Any:
    return np.asarray(Image.open(path).convert("L"), dtype=np.int64)


def area(path: Path, *, grey: int) -> int:
    """How many pixels of a picture have this grey, up to one level of rounding."""
    return int((abs(pixels(path) - grey) <= 1).sum())


def height(path: Path, *, grey: int) -> float:
    """How far from the top of a picture this grey lies on average, in pixels."""
    return float(np.nonzero(abs(pixels(path) - grey) <= 1)[0].mean())


def test_what_each_budget_kept_is_drawn_for_every_attack_that_rebuilds(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for budget, shade in (("8", 100), ("inf", 180)):
        write(tmp_path, budget, summary(worst_case=[NAMING], realistic=[attack("imprint"), attack("trap_weights")]))
        keep(tmp_path, budget, "imprint_gradient", grey=shade)
        keep(tmp_path, budget, "trap_weights_gradient", grey=140)
    told = lines(script, capsys, tmp_path, "8", "inf")
    drawn = [tmp_path / "imprint_gradient.png", tmp_path / "trap_weights_gradient.png"]
    assert told[4:] == [str(path) for path in drawn]
    assert sorted(tmp_path.glob("*.png")) == drawn
    # The pictures of both budgets, each reconstruction as bright as it was kept: areas of one grey.
    assert [area(drawn[0], grey=shade) > 10_000 for shade in (100, 140, 180)] == [True, False, True]
    assert [area(drawn[1], grey=shade) > 20_000 for shade in (100, 140, 180)] == [False, True, False]
    # In the order of the budgets.
    assert height(drawn[0], grey=100) < height(drawn[0], grey=180) - 50


def test_a_budget_that_kept_nothing_has_no_row_in_the_picture(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for budget, rate in (("1", 0.25), ("8", None), ("inf", 0.25)):
        write(tmp_path, budget, summary(realistic=[attack("imprint", rate)]))
    keep(tmp_path, "inf", "imprint_gradient", grey=180)
    lines(script, capsys, tmp_path, "inf")
    alone = pixels(tmp_path / "imprint_gradient.png")
    # The first has lost its file, the second had no record.
    keep(tmp_path, "8", "imprint_gradient", grey=100)
    lines(script, capsys, tmp_path, "1", "8", "inf")
    assert np.array_equal(pixels(tmp_path / "imprint_gradient.png"), alone)


def test_the_seed_chooses_the_runs_and_their_pictures(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "8", summary(realistic=[attack("imprint")]))
    write(tmp_path, "8", summary(worst_case=[NAMING], realistic=[attack("imprint")]), seed=3)
    keep(tmp_path, "8", "imprint_gradient", grey=100)
    keep(tmp_path, "8", "imprint_gradient", grey=180, seed=3)
    script.main(["--budgets", "8", "--seed", "3", "--folder", str(tmp_path)])
    assert "candidate_matching" in capsys.readouterr().out
    picture = tmp_path / "imprint_gradient.png"
    assert [area(picture, grey=shade) > 10_000 for shade in (100, 180)] == [False, True]


def test_where_no_run_kept_a_reconstruction_the_picture_is_empty_and_the_table_whole(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "1", summary(realistic=[attack("imprint", None, records=0)]))
    told = lines(script, capsys, tmp_path, "1")
    assert cells(told[2])[2] == "-"
    assert told[3:] == [str(tmp_path / "imprint_gradient.png")]
    assert (tmp_path / "imprint_gradient.png").exists()


def test_only_what_has_no_summary_is_run(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "8", summary())
    started = []

    def run(arguments: list[str]) -> int:
        started.append(arguments)
        write(tmp_path, "1e6", summary())
        return 0

    monkeypatch.setattr("budget_table.run", run)
    script.main(["--budgets", "8", "1e6", "--folder", str(tmp_path), "--", "data=phantom", "adversary.probes=4"])
    assert started == [
        ["eps=1e6", "seed=0", f"run_dir={run_folder(tmp_path, '1e6')}", "data=phantom", "adversary.probes=4"]
    ]
    assert len(capsys.readouterr().out.splitlines()) == 4
