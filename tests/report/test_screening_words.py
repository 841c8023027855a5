"""What is told of hospitals that examine received models."""

from __future__ import annotations

from hbdp_fed.report import render_report, render_report_markdown
from hbdp_fed.report.screening_words import screening_lines
from tests.report.test_run_report import summary

CAUGHT = {"flagged": True, "measures": ["tails"], "reasons": ["head.weight: the kurtosis is 99 & more"]}
MISSED = {"flagged": False, "measures": [], "reasons": []}


def test_false_alarm_and_missed_attack_are_told_as_such() -> None:
    entry = {
        "mode": "report",
        "released": CAUGHT,
        "attacks": [{"name": "trap_weights", **MISSED, "with_layer_agreed": MISSED}],
    }
    assert list(screening_lines(entry)) == [
        "trap weights would have passed",
        "trap weights, had its architecture been agreed to, is caught by nothing",
        "the released model would have been refused, a false alarm: head.weight: the kurtosis is 99 & more",
    ]


def test_refused_and_only_told_differ() -> None:
    def first(mode: str) -> str:
        attack = {"name": "loki", **CAUGHT, "with_layer_agreed": CAUGHT}
        return next(screening_lines({"mode": mode, "released": MISSED, "attacks": [attack]}))

    assert first("report") == "loki would have been refused: head.weight: the kurtosis is 99 & more"
    assert first("refuse") == "loki was refused: head.weight: the kurtosis is 99 & more"


def test_report_has_the_findings_where_there_are_any() -> None:
    attack = {"name": "loki", **CAUGHT, "with_layer_agreed": CAUGHT}
    screened = {**summary(), "screening": {"mode": "refuse", "released": MISSED, "attacks": [attack]}}
    page, text = render_report(screened), render_report_markdown(screened)
    assert '<a href="#screening">' in page
    assert "Loki was refused: head.weight: the kurtosis is 99 &amp; more." in page
    assert "- Loki was refused: head.weight: the kurtosis is 99 &amp; more." in text
    assert "screening" not in render_report(summary())
