"""Whole runs whose hospitals examine what they receive: what is told, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulations.run import main
from tests.simulations.small_runs import SMALL, run

QUICK = ["evaluation.bootstrap=0", "evaluation.matrix=0", "report=md"]


def test_report_tells_by_what_a_probe_would_have_been_caught(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run(tmp_path / "run", *QUICK, "federation.screening=report")
    told = summary["screening"]
    [attack] = told["attacks"]
    assert told["mode"] == "report"
    assert (attack["name"], attack["flagged"], attack["measures"]) == ("imprint", True, ["structure"])
    assert {"shared_rows", "distinct_rows"} <= set(attack["with_layer_agreed"]["measures"])
    assert not told["released"]["flagged"]
    # The probe was answered all the same.
    assert summary["risk"]["realistic"]["attacks"]
    report = (tmp_path / "run" / "report.md").read_text()
    assert "- Imprint would have been refused: the model is a planted, not the cnn that was agreed to." in report
    shown = " ".join(capsys.readouterr().out.split())
    assert "imprint would have been refused: the model is a planted, not the cnn that was agreed to" in shown


def test_refusing_hospitals_leave_the_attack_nothing_and_the_model_as_it_is(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", *QUICK)
    refused = run(tmp_path / "refused", *QUICK, "federation.screening=refuse")
    assert plain["screening"] is None
    assert refused["model_sha256"] == plain["model_sha256"]
    assert [attack["flagged"] for attack in refused["screening"]["attacks"]] == [True]
    assert refused["risk"]["realistic"]["attacks"] == []
    assert [(one["round"], one["kind"]) for one in refused["participation"]["failures"]] == 3 * [(3, "refused")]
    # Refused before a step was booked: what the probe would have cost is not spent.
    ledger = [json.loads(line) for line in (tmp_path / "refused" / "ledger.jsonl").read_text().splitlines()]
    assert {entry["kind"] for entry in ledger if entry.get("round") == 3} == {"refusal"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["federation.screening=sometimes"], "federation.screening: "),
        (
            ["federation.screening=report", "engine=superlink"],
            "federation.screening: must be none with engine=superlink",
        ),
    ],
)
def test_screening_that_cannot_be_is_refused_before_any_work(
    settings: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [text for text in SMALL if not text.startswith(("engine=", "adversary."))]
    (tmp_path / "ca.pem").write_text("a certificate")
    server = [f"engine.root_certificates={tmp_path / 'ca.pem'}", f"engine.federations={tmp_path}"]
    asked = [*settings, *(server if "engine=superlink" in settings else [])]
    assert main([*others, f"run_dir={tmp_path / 'run'}", *asked]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
