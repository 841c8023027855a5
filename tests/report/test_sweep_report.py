"""The report of a sweep: the decision first, every budget with its figures, and no small hospital."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from hbdp_fed.report import render_sweep_markdown, render_sweep_report, sweep_figures
from hbdp_fed.report.budgets import places, riskiest
from hbdp_fed.report.frontier_figures import budgets_figure, frontier_figure
from tests.report.examples import MCC, recommendation, sweep
from tests.report.test_run_report import named, rows, section, words


def plain(page: str) -> str:
    return re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.S)


def test_the_recommendation_comes_first_with_its_reasons_and_what_would_change_it() -> None:
    page = plain(render_sweep_report(sweep(), recommendation=recommendation()))
    decision = section(page, "In plain words")
    assert "Use epsilon 8." in words(decision)
    assert "A reason at 8.0." in words(decision)
    assert "fewer than 1% of records are rebuilt" in words(decision)
    table = decision[decision.index("<table") :]
    assert rows(table)[3] == ["1000", "undecided", "a reason at 1000.0; and <another>"]
    assert "after 800 more attacked records" in section(page, "What would change this")
    assert "attacks that nobody has published" in section(page, "Limits of the claim")


@pytest.mark.parametrize(
    ("verdict", "says", "tone"),
    [("none", "No budget satisfies the policy.", "bad"), ("undecided", "Undecided: no budget was shown", "")],
)
def test_where_nothing_is_recommended_the_page_says_so_and_why(verdict: str, says: str, tone: str) -> None:
    page = plain(render_sweep_report(sweep(), recommendation=recommendation(verdict)))
    assert says in words(section(page, "In plain words"))
    assert f'class="verdict {tone}"' in page
    assert "Epsilon 1e6: a reason at 1000000.0." in words(page)
    assert "recommended</small>" not in page


def test_without_a_policy_it_says_what_was_measured() -> None:
    told = words(section(plain(render_sweep_report(sweep())), "In plain words"))
    assert "More images were rebuilt than by chance at epsilon 1e6, 1e9 and inf." in told
    assert "imprint rebuilt 41.0% of the records that it attacked" in told
    assert "No realistic attack was shown to do better than chance at epsilon 1, 8 and 1000." in told
    # By their intervals beside the control; 1000 and more are within it.
    assert "Utility is measurably worse than the control's at epsilon 1 and 8." in told


def test_every_budget_has_its_line_with_utility_difference_and_risk() -> None:
    page = section(plain(render_sweep_report(sweep(), recommendation=recommendation())), "Utility against risk")
    table = named(page[: page.index("</table>")])
    row = table["8 recommended"]
    assert row["MCC"] == "0.705 ± 0.012"
    assert row["beside the control"] == "-0.023 -0.043 to -0.003"
    assert row["rebuilt"] == "0.0% 0.0% to 0.3% imprint"
    assert (row["bound, worst case"], row["bound, relaxed"]) == ("24.0%", "21.6%")
    assert (row["in one place"], row["alone"], row["runs"]) == ("0.715 ± 0.010", "0.625 ± 0.030", "3")
    assert table["inf control"]["beside the control"] == "–"


def test_every_attack_at_every_budget_is_there() -> None:
    page = plain(render_sweep_report(sweep()))
    table = page[page.index("<caption>Every attack at every budget") :]
    found = rows(table[: table.index("</table>")])[1:]
    assert len(found) == 6 * 5
    assert found[-1][:5] == ["inf", "realistic", "trap weights", "1,400", "76.8% 74.5% to 78.9%"]


def test_small_hospitals_are_in_no_table_and_their_noise_in_no_range() -> None:
    found = sweep(sizes=(941, 944, 62, 7))
    for budget in found["groups"][0]["budgets"]:
        budget["hospitals"][3] |= {"noise_multiplier": 0.7777, "bound_worst_case": 0.7171}
        budget["noise_multiplier"] = [0.1, 0.7777]
        budget["joining"][3]["federated"] = {"mcc": {"mean": 0.5151, "sd": 0.01}}
    for page in (render_sweep_report(found), render_sweep_markdown(found)):
        assert not [text for text in ("0.7777", "71.7%", "0.515", " 62 ", ">62<") if text in plain(page)]
        assert "fewer than 10" in page
        assert "too few records" in page
    assert "0.7777" in plain(render_sweep_report(found, smallest=1))


def test_groups_stand_under_what_sets_them_apart() -> None:
    page = plain(render_sweep_report(sweep(groups=2)))
    assert "Utility against risk (clients=5)</h2>" in page
    assert "Utility against risk (clients=10)</h2>" in page


def test_grids_stand_under_their_attack_and_failures_are_listed_as_text() -> None:
    page = plain(render_sweep_report(sweep(), grids={"imprint_gradient": b"g"}))
    assert "Imprint</h3>" in page
    assert "round 3: &lt;hospital-02&gt; failed" in page
    text = render_sweep_markdown(sweep(), grids={"imprint_gradient": "imprint gradient.png"})
    assert "](imprint%20gradient.png)" in text


def test_a_sweep_of_one_run_without_anything_attacked_is_told_all_the_same() -> None:
    found = sweep()
    only = found["groups"][0]["budgets"][0]
    only |= {"risk": {}, "compared": {}, "joining": [], "hospitals": [], "time_s": {}}
    only["utility"]["mcc"] |= {"sd": None, "difference": None}
    found["groups"][0]["budgets"] = [only]
    found |= {"control": None, "failures": [], "pending": 0}
    found["time"]["parallel"] = None
    page = plain(render_sweep_report(found))
    assert "Nothing was attacked at epsilon 1." in page
    assert "None" not in page
    assert list(sweep_figures(found)) == ["budgets"]
    for text in (page, render_sweep_markdown(found)):
        assert "No reconstruction attack was run" in text
        assert "No reconstruction attack was run" not in render_sweep_report(sweep())
    assert render_sweep_markdown(found).count("0.610") == 1


def test_the_frontier_has_a_point_a_budget_where_utility_and_risk_are() -> None:
    found = sweep()
    budgets = found["groups"][0]["budgets"]
    axes = frontier_figure(budgets, "mcc", sweep=found, policy=recommendation()["policy"]).axes[0]
    points = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "o"}
    assert points == {(riskiest(budget)["success_rate"], MCC[place]) for place, budget in enumerate(budgets)}
    # What the policy allows: less than 1% of risk, and no more than its margin below the control.
    region = axes.patches[0]
    assert (region.get_x() + region.get_width(), region.get_y()) == pytest.approx((0.01, MCC[-1] - 0.03))
    assert not frontier_figure(budgets, "mcc", sweep=found).axes[0].patches


def test_the_budgets_lie_on_a_logarithmic_axis_with_infinity_at_its_end() -> None:
    budgets = sweep()["groups"][0]["budgets"]
    across = places(budgets)
    assert across[:5] == pytest.approx([0, 0.903, 3, 6, 9], abs=1e-3)
    assert across[5] > across[4]
    figure = budgets_figure(budgets, "mcc", sweep=sweep())
    assert [text.get_text() for text in figure.axes[1].get_xticklabels()] == ["1", "8", "1000", "1e6", "1e9", "inf"]
    labels = set(figure.axes[1].get_legend_handles_labels()[1])
    assert labels >= {"imprint", "trap weights", "candidate matching", "bound, worst case", "bound, relaxed"}


def test_the_risk_of_a_budget_is_that_of_the_attack_that_may_reach_furthest() -> None:
    budget: dict[str, Any] = copy.deepcopy(sweep()["groups"][0]["budgets"][0])
    weak, strong = budget["risk"]["realistic"]["attacks"]
    weak |= {"success_rate": 0.2, "success_rate_ci95": [0.19, 0.21]}
    strong |= {"success_rate": 0.1, "success_rate_ci95": [0.01, 0.6]}
    found = riskiest(budget)
    assert found is not None
    assert found["name"] == "trap_weights"
    strong |= {"success_rate": None, "success_rate_ci95": None}
    found = riskiest(budget)
    assert found is not None
    assert found["name"] == "imprint"
    assert sweep_figures(sweep() | {"metrics": [], "selection": []}) == {}
