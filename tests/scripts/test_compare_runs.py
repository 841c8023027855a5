"""Two sets of runs side by side, over run folders that were written for it: nothing is trained here."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from hbdp_fed.seeding import generator
from hbdp_fed.training.bootstrap import paired_difference
from hbdp_fed.training.tasks import TASKS

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "compare_runs.py"
RECORDS = 60
LABELS = np.arange(RECORDS) % 2
GROUPS = np.arange(RECORDS) // 3
NAMES = np.array([f"image-{number:02d}" for number in range(RECORDS)])


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare_runs_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up by name.
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def scores(skill: float, seed: int) -> np.ndarray:
    """In [0, 1], and the higher for the positive records the more skill there is."""
    noise = np.random.default_rng(seed).random(RECORDS)
    return np.round((1 - skill) * noise + skill * LABELS, 3)


def write(folder: Path, arrays: Mapping[str, np.ndarray], **more: Any) -> Path:
    """A run's folder with what the table is made of."""
    folder.mkdir()
    summary = {
        "task": "binary", "dataset": "ham10000", "class_names": ["benign", "needs attention"],
        "metrics": ["mcc", "auroc", "accuracy", "balanced_accuracy", "ece"],
        "utility": {"point": {"threshold": 0.5}}, "partition": {"group": "lesion"}, **more,
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    np.savez_compressed(folder / "predictions.npz", **arrays)
    return folder


def binary(skill: float, seed: int = 0, **more: np.ndarray) -> dict[str, np.ndarray]:
    return {"labels": LABELS, "scores": scores(skill, seed), "names": NAMES, "groups": GROUPS, **more}


def shown(script: ModuleType, capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    script.main([str(argument) for argument in arguments])
    return capsys.readouterr().out.splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_both_means_their_difference_and_its_paired_interval(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = [write(tmp_path / f"a_seed-{seed}", binary(0.3, seed)) for seed in (0, 1)]
    second = [write(tmp_path / f"b_seed-{seed}", binary(0.45, seed + 5)) for seed in (0, 1, 2)]
    given = ("--first", *first, "--second", *second, "--replicates", "300", "--seed", "4")
    lines = shown(script, capsys, *given)
    assert lines[0] == "ham10000: 2 runs against 3 runs on 60 records of 20 lesions"
    assert lines[2] == "| metric | first | second | difference (second - first) | 95% interval |"
    rows = {cells(line)[0]: cells(line)[1:] for line in lines[4:]}
    assert list(rows) == ["MCC", "AUROC", "accuracy", "balanced accuracy", "calibration error"]
    by_hand = {
        "AUROC": [[roc_auc_score(LABELS, scores(*one)) for one in side] for side in _sides()],
        "accuracy": [[accuracy_score(LABELS, scores(*one) >= 0.5) for one in side] for side in _sides()],
    }
    expected = paired_difference(
        TASKS["binary"],
        *([({"labels": LABELS, "scores": scores(*one)}, {"threshold": 0.5}) for one in side] for side in _sides()),
        groups=GROUPS,
        replicates=300,
        generator=generator(4, "compare"),
    )
    for name, (before, after) in by_hand.items():
        assert rows[name][0] == f"{np.mean(before):.3f} ± {np.std(before, ddof=1):.3f}"
        assert rows[name][1] == f"{np.mean(after):.3f} ± {np.std(after, ddof=1):.3f}"
        assert rows[name][2] == f"{np.mean(after) - np.mean(before):+.3f}"
        found = expected[name.lower()]
        assert rows[name][3] == f"{found.low:+.3f} to {found.high:+.3f}"
    assert shown(script, capsys, *given) == lines


def _sides() -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
    return [(0.3, seed) for seed in (0, 1)], [(0.45, seed + 5) for seed in (0, 1, 2)]


def test_a_run_against_itself_differs_by_nothing(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write(tmp_path / "a", {name: values for name, values in binary(0.4).items() if name in ("labels", "scores")})
    lines = shown(script, capsys, "--first", run, "--second", run, "--replicates", "50")
    assert lines[0] == "ham10000: 1 run against 1 run on 60 records"
    for line in lines[4:]:
        _, before, after, difference, interval = cells(line)
        assert before == after
        assert "±" not in before
        assert (difference, interval) == ("0.000", "0.000 to 0.000")


def test_records_of_one_patient_are_drawn_together(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
        lines = shown(script, capsys, "--first", sides[0], "--second", sides[1], "--replicates", "400")
        low, high = map(float, cells(lines[5])[4].split(" to "))
        width[name] = high - low
    assert width["patients"] > 2 * width["records"]


def test_every_class_of_a_segmentation_has_a_line_and_distances_their_unit(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dice = np.array([[0.5, 0.25], [0.75, np.nan], [1.0, 0.75]])
    shared = {
        "task": "segmentation", "dataset": "msd", "class_names": ["background", "anterior", "posterior"],
        "partition": {"group": "record"}, "units": {"hd95": "mm"},
    }  # fmt: skip
    points = {"point": {}, "dice": 0.0, "dice_1": 0.0, "dice_2": 0.0, "hd95": 0.0, "hd95_1": 0.0, "hd95_2": 0.0}
    names = np.array(["a", "b", "c"])
    runs = [
        write(
            tmp_path / word, {"dice": dice - less, "hd95": 20 * dice + less, "names": names}, utility=points, **shared
        )
        for word, less in (("a", 0.25), ("b", 0.0))
    ]
    lines = shown(script, capsys, "--first", runs[0], "--second", runs[1])
    assert lines[0] == "msd: 1 run against 1 run on 3 records"
    assert [cells(line)[:4] for line in lines[4:]] == [
        ["Dice", "0.375", "0.625", "+0.250"],
        ["HD95 (mm)", "12.8", "12.5", "-0.25"],
        ["Dice, anterior", "0.500", "0.750", "+0.250"],
        ["Dice, posterior", "0.250", "0.500", "+0.250"],
        ["HD95 (mm), anterior", "15.2", "15.0", "-0.25"],
        ["HD95 (mm), posterior", "10.2", "10.0", "-0.25"],
    ]


def test_a_figure_that_one_run_does_not_have_is_not_compared(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_class = np.zeros(4, dtype=np.int64)
    runs = [
        write(tmp_path / word, {"labels": one_class, "scores": np.linspace(0, high, 4)})
        for word, high in (("a", 0.4), ("b", 0.8))
    ]
    rows = {cells(line)[0]: cells(line)[1:] for line in shown(script, capsys, "--first", runs[0], "--second", runs[1])}
    assert rows["AUROC"] == ["-", "-", "-", "-"]
    assert rows["accuracy"][:3] == ["1.000", "0.500", "-0.500"]


Change = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        (lambda run: run, {"dataset": "phantom"}, "their data sets differ"),
        (lambda run: run, {"task": "multilabel"}, "their tasks differ"),
        (lambda run: run, {"class_names": ["no", "yes"]}, "their classes differ"),
        (lambda run: {**run, "labels": 1 - LABELS}, {}, "their test records' labels differ"),
        (lambda run: {**run, "names": NAMES[::-1]}, {}, "their test records' names differ"),
        (lambda run: {**run, "groups": GROUPS[::-1]}, {}, "their test records' groups differ"),
        (lambda run: {n: v for n, v in run.items() if n != "groups"}, {}, "their test records' groups differ"),
        (lambda run: {n: v[:30] for n, v in run.items()}, {}, "their numbers of test records differ"),
    ],
)
def test_runs_that_were_judged_on_other_records_are_refused(
    change: Change,
    more: dict[str, Any],
    message: str,
    script: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = write(tmp_path / "a", binary(0.4))
    other = write(tmp_path / "b", change(binary(0.4)), **more)
    for sides in (("--first", run, "--second", other), ("--first", run, other, "--second", run)):
        with pytest.raises(SystemExit) as ended:
            script.main([str(word) for word in sides])
        assert ended.value.code == 2
        assert f"{other}: cannot be compared with {run}: {message}" in capsys.readouterr().err


def _overlaps(*, missing: int) -> dict[str, np.ndarray]:
    dice = np.full((3, 1), 0.5)
    dice[missing] = np.nan
    return {"dice": dice}


def test_outlines_of_other_records_are_known_by_the_classes_that_they_lack(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        write(tmp_path / str(missing), _overlaps(missing=missing), task="segmentation", utility={"point": {}})
        for missing in (0, 1)
    ]
    with pytest.raises(SystemExit):
        script.main(["--first", str(runs[0]), "--second", str(runs[1])])
    assert "their test records' classes differ" in capsys.readouterr().err


def _not_finished(folder: Path) -> None:
    (folder / "summary.json").unlink()


def _cut_off(folder: Path) -> None:
    whole = (folder / "predictions.npz").read_bytes()
    (folder / "predictions.npz").write_bytes(whole[: len(whole) // 2])


def _pickled(folder: Path) -> None:
    np.savez(folder / "predictions.npz", labels=np.array([{"a": 1}], dtype=object))


def _names_alone(folder: Path) -> None:
    np.savez(folder / "predictions.npz", names=NAMES)


@pytest.mark.parametrize(
    ("harm", "file", "message"),
    [
        (_not_finished, "summary.json", "there is no such file; is it the folder of a finished run?"),
        (lambda folder: (folder / "summary.json").write_text("{"), "summary.json", "cannot be read"),
        (lambda folder: (folder / "summary.json").write_text("{}"), "summary.json", "has no utility.point"),
        (
            lambda folder: (folder / "summary.json").write_text('{"utility": {"point": {}}}'),
            "summary.json",
            "has no task, dataset, class_names",
        ),
        (lambda folder: (folder / "predictions.npz").unlink(), "predictions.npz", "there is no such file"),
        (_cut_off, "predictions.npz", "cannot be read"),
        (_pickled, "predictions.npz", "cannot be read"),
        (_names_alone, "predictions.npz", "holds nothing that is known about test records"),
    ],
)
def test_a_folder_that_is_no_finished_run_is_named(
    harm: Callable[[Path], object],
    file: str,
    message: str,
    script: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, other = (write(tmp_path / word, binary(0.4)) for word in "ab")
    harm(other)
    with pytest.raises(SystemExit) as ended:
        script.main(["--first", str(run), "--second", str(other)])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert f"{other / file}: " in told
    assert message in told


@pytest.mark.parametrize(("option", "value"), [("--replicates", "0"), ("--seed", "-1")])
def test_an_option_out_of_its_range_is_refused(
    option: str, value: str, script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script.main(["--first", str(tmp_path), "--second", str(tmp_path), option, value])
    assert f"{option}: must be at least" in capsys.readouterr().err
