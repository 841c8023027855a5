"""The commands that print the figures of attacks on whole hospitals, and the figures themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.attacks import linear_reconstruction, property_inference
from simulations.compose import compose_run, typed
from simulations.prepare import prepare

PHANTOM = [
    "data=phantom", "clients=2", "data.num_train=200", "data.num_val=40", "data.num_test=20", "data.image_size=16",
    "model.width=4", "training.rounds=2", "training.local_steps=2", "training.expected_batch=8", "engine=inprocess",
]  # fmt: skip


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_of_bits_has_a_line_a_noise(capsys: pytest.CaptureFixture[str]) -> None:
    assert linear_reconstruction.main(["--games", "4", "--budgets", "8", "1e9", "--", *PHANTOM]) == 0
    first, head, _, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("4 games on phantom at 2 hospitals: label=lesion, n = 100, m = 4 n")
    assert cells(head)[0] == "noise"
    assert [cells(line)[0] for line in lines] == ["none", "budget 8", "failing", "budget 1e+09"]
    rates = {cells(line)[0]: float(cells(line)[2].split("%")[0]) for line in lines}
    assert rates["none"] == rates["budget 1e+09"] == 100.0
    assert rates["failing"] < 75


def test_the_table_of_populations_has_a_control_beside_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["adversary.populations=4", "adversary.shadows=8"]
    assert property_inference.main(["--budgets", "inf", "--surfaces", "gradient", "--", *PHANTOM, *few]) == 0
    lines = [cells(line) for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(line[0], line[2], line[3]) for line in lines] == [
        ("inf", "gradient", "label=lesion"),
        ("inf", "gradient", "by lot"),
    ]
    assert all(re.fullmatch(r"[01]\.\d{3} \([01]\.\d{3} to [01]\.\d{3}\)", line[4]) for line in lines)


def test_hospitals_that_are_too_small_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert property_inference.main(["--budgets", "inf", "--", *PHANTOM, "data.num_train=40"]) == 2
    assert "adversary.property" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_hospitals_with_few_and_with_many_pneumonias_are_told_apart_without_noise(hbdp_data: Path) -> None:
    """The acceptance figure, and that nothing is told where nothing shows."""
    prepared = prepare(typed(compose_run([*property_inference.DEFAULTS, "eps=inf"])))
    found = property_inference.play(prepared, "update", 1, control=False)
    assert found.auc >= 0.9
    assert found.auc_ci95[0] > 0.8
    control = property_inference.play(prepared, "update", 1, control=True)
    assert control.auc_ci95[0] < 0.5 < control.auc_ci95[1]
