"""Attacks on whole hospitals in what is shared: told where they may be, and no small count by way of them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from hbdp_fed.report import render_report, render_report_markdown, render_sweep_markdown, render_sweep_report, run_card
from hbdp_fed.report.attack_view import attack_view
from hbdp_fed.report.run_words import risk_cards, run_words
from hbdp_fed.report.shareable import shareable_summary
from hbdp_fed.report.shareable_attacks import shareable_risk
from hbdp_fed.report.suppression import HIDDEN, few
from hbdp_fed.types import ModelSpec
from tests.report.examples import sweep
from tests.report.test_run_report import full
from tests.report.test_shareable import small

POPULATION: dict[str, Any] = {
    "name": "property_inference", "kind": "property", "surface": "update", "records": 120, "clusters": [[120, 111]],
    "success_rate": 0.925, "success_rate_ci95": [0.87, 0.96], "criterion": "told from the other",
    "baseline_success_rate": 0.5, "auc": 0.9613, "auc_ci95": [0.931, 0.979], "property": "label=<mel>",
    "shares": [0.2, 0.8], "population": 145, "shadows": 64, "steps": 15, "unit": "population", "above_bound": None,
}  # fmt: skip


def queries(*, records: int = 384, rarer: int = 100) -> dict[str, Any]:
    base = 1 - rarer / records
    points = [
        {"noise": noise, "noise_std": std, "success_rate": rate,
         "success_rate_ci95": [rate - 0.02, min(rate + 0.02, 1)], "best_possible": min(rate + 0.01, 1.0)}
        for noise, std, rate in (("none", 0.0, 1.0), ("budget", 14.43, 0.7718), ("failing", 67.88, base))
    ]  # fmt: skip
    return {
        "name": "linear_reconstruction", "kind": "queries", "surface": "queries", "records": records,
        "clusters": [[records, records]], "queries": 4 * records, "success_rate": 0.7718,
        "success_rate_ci95": [0.7518, 0.7918], "criterion": "told rightly", "baseline_success_rate": base,
        "property": "label=<mel>", "points": points, "unit": "record", "above_bound": None,
    }  # fmt: skip


def with_attacks(summary: dict[str, Any], *more: dict[str, Any], alone: bool = False) -> dict[str, Any]:
    summary = copy.deepcopy(summary)
    realistic = summary["risk"]["realistic"]
    realistic["attacks"] = [*([] if alone else realistic["attacks"]), *copy.deepcopy(more)]
    return summary


@pytest.mark.parametrize("render", [render_report, render_report_markdown])
def test_a_report_tells_of_both(render: Any) -> None:
    page = render(with_attacks(full(), POPULATION, queries()))
    for text in ("0.961", "0.931", "0.979", "77.2%", "120", "14.43", "67.88", "label="):
        assert text in page, text
    assert "<mel>" not in page
    assert (
        "the run&#39;s budget, for all answers together" in page or "the run's budget, for all answers together" in page
    )


def test_what_is_told_of_images_does_not_rest_on_attacks_on_hospitals() -> None:
    """A population that is told apart shows nobody's image."""
    attacks = [attack_view(POPULATION), attack_view(queries())]
    view = {"models": [{"name": "realistic", "bound": None, "attacks": attacks}], "metrics": []}
    verdict = run_words(full(), view)
    assert verdict.tone == ""
    assert "whether images can be rebuilt was not measured" in verdict.headline
    assert any("area under the curve of 0.961" in line for line in verdict.lines)
    assert any("told rightly of 77.2%" in line for line in verdict.lines)
    cards = {card.figure: card for card in risk_cards(view)}
    assert "120 populations put on the right side by property inference on the update" in cards["92.5%"].words
    assert cards["92.5%"].tone == "leak"
    assert "384 records had a bit told by linear reconstruction on the queries" in cards["77.2%"].words


def test_bits_of_which_few_are_the_rarer_one_are_not_shown() -> None:
    [hidden] = _queries(shareable_risk(_risk(queries(rarer=7)), hidden=False, smallest=10))
    assert (hidden["records"], hidden["points"], hidden["queries"]) == (HIDDEN, [], HIDDEN)
    assert hidden["success_rate"] is hidden["baseline_success_rate"] is hidden["success_rate_ci95"] is None
    # Nobody has it, or enough have: nothing is to be hidden.
    for rarer in (0, 10, 100):
        assert _queries(shareable_risk(_risk(queries(rarer=rarer)), hidden=False, smallest=10)) == [
            queries(rarer=rarer)
        ]
    assert _queries(shareable_risk(_risk(queries(rarer=7)), hidden=False, smallest=1)) == [queries(rarer=7)]


def test_few_patients_and_hospitals_whose_count_is_hidden_hide_the_figures() -> None:
    [hidden] = _queries(shareable_risk(_risk(queries(records=9, rarer=0)), hidden=False, smallest=10))
    assert hidden["records"] == few(10)
    both = shareable_risk(_risk(queries(), POPULATION), hidden=True, smallest=10)["realistic"]["attacks"]
    assert [one.get("records") for one in both] == [HIDDEN, 120]
    assert both[1]["population"] == HIDDEN
    assert both[1]["auc"] == POPULATION["auc"]
    [small_population] = shareable_risk(_risk({**POPULATION, "population": 20}), hidden=False, smallest=25)[
        "realistic"
    ]["attacks"]
    assert small_population["population"] == HIDDEN


def test_other_attacks_stay_as_they_are() -> None:
    summary = full()
    assert shareable_summary(summary)["risk"] == summary["risk"]


@pytest.mark.parametrize("render", [render_report, render_report_markdown])
@pytest.mark.parametrize("summary", [full(), small()])
def test_no_report_shows_how_few_patients_have_something(render: Any, summary: dict[str, Any]) -> None:
    page = render(with_attacks(summary, POPULATION, queries(rarer=7)))
    share = f"{1 - 7 / 384:.1%}"
    assert "77.2%" not in page
    assert share not in page
    assert share in render(with_attacks(full(), queries(rarer=7)), smallest=1)


def test_neither_does_the_card_of_a_model() -> None:
    card = run_card(
        with_attacks(full(), queries(rarer=7)), architecture=ModelSpec("cnn", {}), shape=(1, 28, 28), smallest=10
    )
    [entry] = [one for one in card["risk"]["realistic"]["attacks"] if one["kind"] == "queries"]
    assert entry["records"] is entry["success_rate"] is entry["baseline_success_rate"] is None
    json.dumps(card)


@pytest.mark.parametrize("render", [render_sweep_report, render_sweep_markdown])
def test_the_report_of_a_sweep_tells_of_both_and_hides_what_a_runs_does(render: Any) -> None:
    def page(sizes: tuple[int, ...], rarer: int) -> str:
        found = sweep(sizes=sizes)
        for budget in found["groups"][0]["budgets"]:
            pooled = {**queries(rarer=rarer), "seeds": 3, "successes": 296, "bound": None, "optimal": None}
            budget["risk"]["realistic"]["attacks"] += [{**POPULATION, "seeds": 3, "bound": None}, pooled]
        return str(render(found))

    assert "linear reconstruction on the queries" in page((941, 944, 62, 70), 100)
    assert "77.2%" in page((941, 944, 62, 70), 100)
    assert "77.2%" not in page((941, 944, 62, 70), 7)
    assert "77.2%" not in page((941, 944, 62, 7), 100)
    assert "92.5%" in page((941, 944, 62, 7), 100)


def _risk(*attacks: dict[str, Any]) -> dict[str, Any]:
    return {"realistic": {"bound": None, "attacks": list(attacks)}}


def _queries(risk: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in risk["realistic"]["attacks"] if one["kind"] == "queries"]
