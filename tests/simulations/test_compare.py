"""Runs and sweeps side by side, over folders that were written for it: nothing is trained here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.metrics import accuracy_score, roc_auc_score

from hbdp_fed.seeding import generator
from hbdp_fed.training.bootstrap import paired_difference
from hbdp_fed.training.tasks import TASKS
from simulations.compare import main

RECORDS = 60
LABELS = np.arange(RECORDS) % 2
GROUPS = np.arange(RECORDS) // 3
NAMES = np.array([f"image-{number:02d}" for number in range(RECORDS)])

Arrays = Mapping[str, np.ndarray]


def scores(skill: float, seed: int) -> np.ndarray:
    """In [0, 1], and the higher for the positive records the more skill there is."""
    noise = np.random.default_rng(seed).random(RECORDS)
    return np.round((1 - skill) * noise + skill * LABELS, 3)


def binary(skill: float, seed: int = 0, **more: np.ndarray) -> dict[str, np.ndarray]:
    return {"labels": LABELS, "scores": scores(skill, seed), "names": NAMES, "groups": GROUPS, **more}


def hospital(name: str, sigma: float) -> dict[str, Any]:
    return {
        "name": name, "num_records": 40, "noise_multiplier": sigma, "eps_rdp": 8.0, "eps_tight": 7.5,
        "worst_case_bound": 0.2, "relaxed_bound": 0.1,
    }  # fmt: skip


def write(
    folder: Path, arrays: Arrays, *, config: Mapping[str, Any] | None = None, sigma: float = 1.0, **more: Any
) -> Path:
    """A run's folder with what a comparison reads."""
    folder.mkdir(parents=True)
    summary = {
        "task": "binary", "dataset": "ham10000", "class_names": ["benign", "needs attention"],
        "metrics": ["mcc", "auroc", "accuracy", "balanced_accuracy", "ece"],
        "utility": {"point": {"threshold": 0.5}, "mcc": 0.5, "ci95": {"mcc": [0.4, 0.6]}},
        "partition": {"group": "lesion"},
        "privacy": {"hospitals": [hospital("hospital-01", sigma), hospital("hospital-02", 1.0)]},
        "risk": {"worst_case": {"bound": 0.2, "attacks": []}, "realistic": {"bound": None, "attacks": []}},
        "participation": {"expected": 10, "completed": 9, "failed": 1}, "time": {"total_s": 12.5},
        "hyperparameters": {"rounds": 20, "max_grad_norm": "inf"}, **more,
    }  # fmt: skip
    settings = {"eps": 8.0, "seed": 0, "training": {"rounds": None}, "run_dir": str(folder), **(config or {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    (folder / "environment.json").write_text(json.dumps({"python": "3.11.7", "versions": {"torch": "2.13.0"}}))
    (folder / "summary.json").write_text(json.dumps(summary))
    np.savez_compressed(folder / "predictions.npz", **arrays)  # type: ignore[arg-type]
    return folder


def joined(folders: Sequence[Path]) -> str:
    return ",".join(map(str, folders))


def found(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    few = [] if any(str(text).startswith("replicates=") for text in arguments) else ["replicates=20"]
    assert main([*map(str, arguments), *few, "format=json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    return told.err


# Utility.


def test_both_means_their_difference_and_its_paired_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = [[(0.3, seed) for seed in (0, 1)], [(0.45, seed + 5) for seed in (0, 1, 2)]]
    folders = [
        joined([write(tmp_path / f"{word}_seed-{place}", binary(*one)) for place, one in enumerate(side)])
        for word, side in zip("ab", sides, strict=True)
    ]
    given = (*folders, "replicates=300", "seed=4")
    utility = {one["name"]: one for one in found(capsys, *given)["utility"]}
    assert list(utility) == ["mcc", "auroc", "accuracy", "balanced_accuracy", "ece"]
    expected = paired_difference(
        TASKS["binary"],
        *([({"labels": LABELS, "scores": scores(*one)}, {"threshold": 0.5}) for one in side] for side in sides),
        groups=GROUPS,
        replicates=300,
        generator=generator(4, "compare"),
    )
    by_hand = {
        "auroc": [[roc_auc_score(LABELS, scores(*one)) for one in side] for side in sides],
        "accuracy": [[accuracy_score(LABELS, scores(*one) >= 0.5) for one in side] for side in sides],
    }
    for name, (before, after) in by_hand.items():
        assert utility[name]["first"] == pytest.approx(before)
        assert utility[name]["second"] == pytest.approx(after)
        assert utility[name]["difference"]["value"] == pytest.approx(np.mean(after) - np.mean(before))
        assert utility[name]["difference"]["low"] == expected[name].low
        assert utility[name]["difference"]["high"] == expected[name].high
    assert main([*given, "format=md"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# ham10000: 2 runs against 3 runs on 60 records of 20 lesions"
    before, after = by_hand["accuracy"]
    gap = expected["accuracy"]
    assert (
        f"| accuracy | {np.mean(before):.3f} ± {np.std(before, ddof=1):.3f} | {np.mean(after):.3f} ± "
        f"{np.std(after, ddof=1):.3f} | {gap.value:+.3f} | {gap.low:+.3f} to {gap.high:+.3f} |"
    ) in lines


def test_a_run_against_itself_differs_by_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write(tmp_path / "a", {name: values for name, values in binary(0.4).items() if name in ("labels", "scores")})
    told = found(capsys, run, run, "replicates=50")
    assert told["subject"] == "ham10000: 1 run against 1 run on 60 records"
    assert told["settings"] == told["environment"] == []
    for one in told["utility"]:
        assert one["first"] == one["second"]
        assert set(one["difference"].values()) == {0.0}


def test_records_of_one_patient_are_drawn_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten copies of each record are no news: by patient, the interval is the one of a single copy each."""
    width = {}
    for name, groups in (("records", np.arange(600)), ("patients", np.repeat(np.arange(60), 10))):
        sides = [
            write(
                tmp_path / f"{name}-{skill}",
                {"labels": LABELS.repeat(10), "scores": scores(skill, seed).repeat(10), "groups": groups},
            )
            for seed, skill in enumerate((0.2, 0.3))
        ]
        auroc = found(capsys, *sides, "replicates=400")["utility"][1]["difference"]
        width[name] = auroc["high"] - auroc["low"]
    assert width["patients"] > 2 * width["records"]


def test_every_class_of_a_segmentation_has_a_line_and_distances_their_unit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dice = np.array([[0.5, 0.25], [0.75, np.nan], [1.0, 0.75]])
    shared = {
        "task": "segmentation", "dataset": "msd", "class_names": ["background", "anterior", "posterior"],
        "partition": {"group": "record"}, "units": {"hd95": "mm"}, "metrics": ["dice", "hd95"],
    }  # fmt: skip
    points = {"point": {}, "dice": 0.0, "dice_1": 0.0, "dice_2": 0.0, "hd95": 0.0, "hd95_1": 0.0, "hd95_2": 0.0}
    runs = [
        write(tmp_path / word, {"dice": dice - less, "hd95": 20 * dice + less}, utility=points, **shared)
        for word, less in (("a", 0.25), ("b", 0.0))
    ]
    utility = found(capsys, *runs, "replicates=20")["utility"]
    assert [(one["label"], one["first"], one["second"]) for one in utility] == [
        ("Dice", [0.375], [0.625]),
        ("HD95 (mm)", [12.75], [12.5]),
        ("Dice, anterior", [0.5], [0.75]),
        ("Dice, posterior", [0.25], [0.5]),
        ("HD95 (mm), anterior", [15.25], [15.0]),
        ("HD95 (mm), posterior", [10.25], [10.0]),
    ]


def test_runs_that_were_judged_on_other_records_have_no_paired_difference_but_everything_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write(tmp_path / "a", binary(0.4))
    other = write(tmp_path / "b", {**binary(0.4), "labels": 1 - LABELS}, sigma=2.0)
    told = found(capsys, run, other)
    assert told["unpaired"] == "their test records' labels differ"
    (mcc,) = told["utility"]
    assert (mcc["first"], mcc["second"], mcc["first_ci95"], mcc["difference"]) == ([0.5], [0.5], [0.4, 0.6], None)
    assert told["privacy"]["hospital-01"][1] == {"name": "noise_multiplier", "first": [1.0], "second": [2.0]}
    assert main([str(run), str(other), "replicates=20"]) == 0
    shown = capsys.readouterr().out
    assert "No paired difference: their test records' labels differ." in shown
    assert "0.500 (0.400 to 0.600)" in shown


def test_predictions_that_are_gone_leave_no_paired_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = (write(tmp_path / word, binary(0.4)) for word in "ab")
    (other / "predictions.npz").unlink()
    assert found(capsys, run, other)["unpaired"] == f"{other / 'predictions.npz'}: there is no such file"


# Everything else of runs.


def test_settings_that_took_effect_are_compared_and_places_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write(tmp_path / "a", binary(0.4), config={"eps": float("inf"), "adversary": {"bins": 16}})
    second = write(
        tmp_path / "b", binary(0.4), hyperparameters={"rounds": 30, "max_grad_norm": "inf"}, config={"device": "cpu"}
    )
    assert found(capsys, first, second)["settings"] == [
        {"name": "eps", "first": ["inf"], "second": [8.0]},
        {"name": "training.rounds", "first": [20], "second": [30]},
        {"name": "adversary.bins", "first": [16], "second": ["(not there)"]},
        {"name": "device", "first": ["(not there)"], "second": ["cpu"]},
    ]


def test_versions_that_differ_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (write(tmp_path / word, binary(0.4)) for word in "ab")
    (second / "environment.json").write_text(json.dumps({"python": "3.11.7", "versions": {"torch": "2.14.0"}}))
    assert found(capsys, first, second)["environment"] == [
        {"name": "versions.torch", "first": ["2.13.0"], "second": ["2.14.0"]}
    ]


def test_the_page_names_every_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write(tmp_path / "a", binary(0.4)), write(tmp_path / "b", binary(0.5), sigma=3.0)
    assert main([str(first), str(second), "format=md", "replicates=20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for title in (
        "The two sides", "Settings that differ", "Machines and versions that differ", "Utility (test)",
        "Privacy that differs", "Risk", "Answers of hospitals", "Time",
    ):  # fmt: skip
        assert f"## {title}" in lines
    assert "| hospital-01: sigma | 1 | 3 |" in lines
    assert "| worst case: bound | 20.0% | 20.0% |  |" in lines
    assert "| completed | 9 | 9 |" in lines
    assert "| total (s) | 12.5 | 12.5 |" in lines


def test_a_pattern_names_the_runs_of_a_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        write(tmp_path / f"a_seed-{seed}", binary(0.3, seed), config={"seed": seed})
    other = write(tmp_path / "b", binary(0.5))
    told = found(capsys, tmp_path / "a_seed-*", other, "replicates=20")
    assert told["first"] == [str(tmp_path / f"a_seed-{seed}") for seed in (0, 1)]
    assert told["settings"] == [{"name": "seed", "first": [0, 1], "second": [0]}]


@pytest.mark.parametrize(("suffix", "begins"), [(".json", "{"), (".txt", "ham10000")])
def test_the_suffix_of_the_output_says_how_it_is_written(
    suffix: str, begins: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, target = write(tmp_path / "a", binary(0.4)), tmp_path / f"page{suffix}"
    assert main([str(run), str(run), "replicates=20", f"output={target}"]) == 0
    assert target.read_text().startswith(begins)
    assert str(target) in capsys.readouterr().out


# Sweeps.


def write_sweep(folder: Path, budgets: Mapping[str, Sequence[float]]) -> Path:
    folder.mkdir()
    content = {
        "schema": 1, "kind": "sweep", "name": "s", "settings": ["data=phantom"], "units": {},
        "groups": [
            {
                "values": {},
                "budgets": [
                    {
                        "eps": eps if eps == "inf" else float(eps), "seeds": [0, 1], "noise_multiplier": [0.5, 0.75],
                        "utility": {"auroc": {"values": list(values)}},
                        "risk": {"relaxed": {"bound": 0.25, "attacks": []}},
                    }
                    for eps, values in budgets.items()
                ],
            }
        ],
    }  # fmt: skip
    (folder / "sweep.json").write_text(json.dumps(content))
    return folder


def test_sweeps_are_compared_budget_by_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_sweep(tmp_path / "a", {"1": [0.5, 0.75], "inf": [0.9, 0.9]})
    second = write_sweep(tmp_path / "b", {"8": [0.7, 0.7], "inf": [0.875, 0.905]})
    assert main([str(first), str(second), "format=md"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| AUROC | 0.900 ± 0.000 | 0.890 ± 0.021 | -0.010 ± 0.021 |" in lines
    assert "| noise multiplier | 0.5 to 0.75 | 0.5 to 0.75 |" in lines
    assert "| relaxed: bound | 25.0% | 25.0% |  |" in lines
    assert "A alone has eps=1." in lines
    assert "B alone has eps=8." in lines
    assert found(capsys, first, second)["kind"] == "sweep_comparison"


# What cannot be compared.


def test_an_unfinished_run_is_refused_with_how_to_finish_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = (write(tmp_path / word, binary(0.4)) for word in "ab")
    (other / "summary.json").unlink()
    config = {"name": "run", "eps": 1.0, "clients": 5, "data": {"name": "phantom"}, "training": {"rounds": 20}}
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    told = refused(capsys, run, other)
    assert told.startswith(f"error: B: '{other}' is not finished (unfinished after round 0 of 20); finish it with: ")
    assert f"hbdp-fed run resume={other}" in told


def test_a_folder_of_runs_is_no_run_and_tells_which_it_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write(tmp_path / "all" / "a", binary(0.4))
    told = refused(capsys, tmp_path / "all", run)
    assert told == f"error: A: '{tmp_path / 'all'}' holds no run: there is no config.yaml; in it there are {run}\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot be read"), ("{}", "has no task, dataset, utility, privacy, risk; it should be a run's summary")],
)
def test_a_summary_that_is_none_is_named(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = (write(tmp_path / word, binary(0.4)) for word in "ab")
    (other / "summary.json").write_text(content)
    assert f"{other / 'summary.json'}: {message}" in refused(capsys, run, other)


def test_a_run_and_a_sweep_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, sweep = write(tmp_path / "a", binary(0.4)), write_sweep(tmp_path / "b", {"1": [0.5, 0.5]})
    assert f"B: '{sweep}' is a sweep, and another folder is not" in refused(capsys, run, sweep)
    assert "names 2 sweeps; name one" in refused(capsys, sweep, f"{sweep},{sweep}")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a"], "name two sides, A and B, got 1"),
        (["a", "a", "a"], "name two sides, A and B, got 3"),
        (["a", "b"], "B: 'b' is no folder"),
        (["a", "b*"], "B: no folder fits 'b*'"),
        (["a", ","], "B: names no folder"),
        (["a", "a", "replicates=0"], "replicates: must be from 1 to 1000000, got 0"),
        (["a", "a", "seed=-1"], "seed: must be at least 0, got -1"),
        (["a", "a", "format=csv"], "format: 'csv' is not known; choose one of: json, md, table"),
        (["a", "a", "output=none/page.md"], "output: the folder"),
        (["a", "a", "formatt=md"], "formatt: there is no such setting; did you mean 'format'?"),
    ],
)
def test_what_cannot_be_used_is_told_before_anything_is_read(
    given: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    assert message in refused(capsys, *given)


def test_help_shows_how_to_name_the_sides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "python -m simulations.compare A B" in capsys.readouterr().out
