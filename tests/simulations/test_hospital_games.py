"""Runs that are put to attacks on whole hospitals: what they leave, what people read, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from hbdp_fed.audit.queries import BITS
from simulations.adversary_plan import AttackPlan
from simulations.affording import affordable
from simulations.attack import main as attack
from simulations.run import main
from simulations.schema import AdversaryConfig
from tests.simulations.small_runs import SMALL, run

TINY = [
    "adversary.attack=[property_inference,linear_reconstruction]", "adversary.populations=4", "adversary.shadows=8",
    "data.num_train=240", "evaluation.bootstrap=0", "evaluation.matrix=0", "report=both",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("hospitals") / "run"
    return folder, run(folder, *TINY, "adversary.surfaces=[gradient,update]")


def entries(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return list(summary["risk"]["realistic"]["attacks"])


def test_a_run_has_an_entry_for_each_surface_and_one_for_queries(finished: tuple[Path, dict[str, Any]]) -> None:
    summary = finished[1]
    found = [(one["name"], one["kind"], one["surface"]) for one in entries(summary)]
    assert found == [
        ("property_inference", "property", "gradient"),
        ("property_inference", "property", "update"),
        ("linear_reconstruction", "queries", "queries"),
    ]
    for one in entries(summary)[:2]:
        assert (one["records"], one["shadows"], one["steps"], one["shares"]) == (12, 8, 2, [0.2, 0.8])
        assert 0 <= one["auc_ci95"][0] <= one["auc"] <= one["auc_ci95"][1] <= 1
        assert one["property"] == "label=lesion"
    queries = entries(summary)[2]
    assert queries["records"] == 3 * min(BITS, 80)
    none, budget, failing = queries["points"]
    assert none["success_rate"] == 1.0
    assert budget["success_rate"] == queries["success_rate"]
    assert failing["noise_std"] == pytest.approx(3 * math.sqrt(4 * 80))
    assert failing["success_rate"] < 0.7
    # Nothing is left out, and no bound stands beside either.
    assert all(one["above_bound"] is None for one in entries(summary))
    assert summary["time"]["attacks_s"]["property_inference"] > 0


def test_people_read_of_both_in_the_report(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = finished
    page, text = ((folder / f"report.{ending}").read_text() for ending in ("html", "md"))
    area = f"{entries(summary)[0]['auc']:.3f}" if entries(summary)[0]["auc"] < 1 else "1.000"
    for told in (page, text):
        assert "area under the curve" in told.lower()
        assert area in told
        assert "not meant to hide" in told
    assert "What do counting queries give away?" in page
    assert "at which the attack has to fail" in page
    assert "at which the attack has to fail" in text
    # Nobody rebuilt an image, so nothing is said of that.
    assert "No realistic attack was run: whether images can be rebuilt was not measured" in page


def test_the_same_comes_of_a_run_that_is_attacked_again(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, summary = finished
    assert attack([f"run={folder}", f"output={tmp_path / 'out'}", "hospitals=[hospital-02]"]) == 0
    told = capsys.readouterr().out
    assert "area under the curve" in " ".join(told.split())
    again = json.loads((tmp_path / "out" / "risk.json").read_text())["risk"]["realistic"]["attacks"]
    assert [one["records"] for one in again] == [4, 4, 80]
    # One of the three hospitals, whose part in the whole is the same.
    assert again[2]["clusters"][0] == entries(summary)[2]["clusters"][1]
    assert again[0]["clusters"][0] == entries(summary)[0]["clusters"][1]


def test_other_settings_of_the_adversary_take_effect_afterwards(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    changed = ["attack=property_inference", "populations=6", "property=healthy", "surfaces=[update]"]
    assert attack([f"run={finished[0]}", f"output={out}", *changed]) == 0
    [entry] = json.loads((out / "risk.json").read_text())["risk"]["realistic"]["attacks"]
    assert (entry["records"], entry["property"], entry["surface"]) == (18, "label=healthy", "update")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["adversary.property=lesio"], "adversary.property: 'lesio' is not known"),
        (["adversary.shadows=4"], "adversary.shadows: must be at least 8, got 4"),
        (["adversary.populations=1"], "adversary.populations: must be at least 2, got 1"),
        (["federation.secure_aggregation=true"], "adversary.surfaces: must have gradient or update"),
        (["training.correction=scaffold", "training.momentum=0"], "training.correction: must be none"),
    ],
)
def test_what_cannot_be_played_is_refused_before_training(
    settings: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, *TINY, f"run_dir={tmp_path / 'run'}", *settings]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_hospitals_too_small_for_populations_are_left_out_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run(tmp_path / "run", *TINY, "data.num_train=60")
    assert [one["kind"] for one in entries(summary)] == ["queries"]
    told = " ".join(capsys.readouterr().out.split())
    assert "attack left out: property_inference: no hospital has enough records" in told


def plan(**settings: Any) -> AttackPlan:
    found = AttackPlan(("property_inference", "linear_reconstruction"))
    return affordable(found, AdversaryConfig(**settings), cost_of_step=2e7, steps=15)


def test_what_takes_long_is_left_out_only_where_nobody_named_it() -> None:
    """40 populations and 64 shadow hospitals of 15 steps, and then three of each."""
    left = plan(attack="auto")
    assert left.attacks == ("linear_reconstruction",)
    [words] = left.left_out
    assert words.startswith("property_inference: takes more than ten seconds here; name it in adversary.attack")
    for asked in ("all", "property_inference", ["property_inference", "imprint"]):
        assert plan(attack=asked).attacks == ("property_inference", "linear_reconstruction")
    assert plan(attack="auto", populations=8, shadows=8).left_out == ()
    # Seen from nowhere near, it is no matter of time.
    assert plan(attack="auto", surfaces=["aggregate"]).left_out == ()
