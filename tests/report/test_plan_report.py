"""The report of a plan: what is recommended, what each budget prevents, what it costs, and no small hospital."""

from __future__ import annotations

import re

import pytest

from hbdp_fed.report import plan_figures, render_plan_markdown, render_plan_report
from tests.report.examples import plan, recommendation
from tests.report.test_run_report import named, rows, section, words


def plain(page: str) -> str:
    return re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.S)


def test_a_plan_without_a_sweep_recommends_nothing_and_says_what_it_knows() -> None:
    told = words(section(plain(render_plan_report(plan(sizes=(1400, 900, 120, 70)))), "In plain words"))
    assert "Nothing is recommended: a plan alone does not measure utility." in told
    assert "100 rounds take 21 min 00 s, move 7.9 GB and need 0.34 kWh; every round waits for Nord." in told
    assert "Protected least: Ost. Ost holds the fewest 70 records." in told
    assert "Not allowed or not possible at every hospital: epsilon inf." in told
    assert (
        "Up to epsilon 8 theory promises that no adversary succeeds with a record with a probability above 6.4%" in told
    )


def test_a_recommendation_comes_first() -> None:
    page = plain(render_plan_report(plan(advice=recommendation())))
    assert words(section(page, "In plain words")).startswith("In plain words Use epsilon 8.")


def test_every_budget_at_every_hospital_and_its_cost_are_told() -> None:
    page = plain(render_plan_report(plan(sizes=(1400, 900, 120, 70))))
    protection = rows(section(page, "What each budget prevents"))
    assert len(protection) == 1 + 4 * 6
    assert protection[2] == ["Nord", "8", "2.45", "6.4 to 7.2", "5.1%", "4.6%", "10", "yes"]
    assert protection[6][-1] == "no the control protects nobody"
    hospitals = named(section(page, "Hospitals"))
    assert hospitals["West"]["records"] == "120"
    assert hospitals["West"]["records a second"] == "90.5 calibrated"
    assert named(section(page, "What it costs"))["Sued"]["a round takes"] == "12.4 s"
    assert named(section(page, "If one hospital left"))["Nord"]["noise in the mean"] == "1.56 times"


def test_what_tells_a_small_hospital_s_records_is_withheld() -> None:
    small = plan(sizes=(1400, 900, 120, 7))
    small["hospitals"][3]["budgets"][0] |= {"worst_case": 0.0777, "problem": "Ost refuses: it has 7 records"}
    for page in (plain(render_plan_report(small)), render_plan_markdown(small)):
        assert "fewer than 10" in page
        # Neither its figures, nor the second hospital's, nor the share that it is of the whole.
        assert not [
            text for text in ("7.8%", "0.3%", "4.9%", "holds the fewest", "refuses", ">120<", "| 120 |") if text in page
        ]
        assert "at the hospitals whose figures are shown" in page
    lines = plan_figures(small)["bounds"].axes[0].get_legend_handles_labels()[1]
    assert set(lines) == {"Nord", "Sued", "a guess"}


def test_a_plan_without_patients_data_set_and_energy_is_told_all_the_same() -> None:
    bare = plan(dataset=None)
    for hospital in bare["hospitals"]:
        hospital |= {"patients": None, "ceiling": None}
    bare["cost"]["simulation"] = None
    bare["cost"]["total"]["kilowatt_hours"] = None
    bare |= {"leaving": [], "weakest": {"name": None, "why": "all are protected alike", "per_budget": []}}
    for page in (plain(render_plan_report(bare)), render_plan_markdown(bare)):
        assert "None" not in page
        assert "If one hospital left" not in page
        assert "kWh;" not in page


@pytest.mark.parametrize("count", [1, 12])
def test_the_picture_has_as_many_hospitals_as_it_has_room_for(count: int) -> None:
    names = tuple(f"hospital-{number:02d}" for number in range(count))
    drawn = plan_figures(plan(names=names, sizes=tuple(range(100, 100 + count))))["bounds"].axes[0]
    assert len(drawn.get_legend_handles_labels()[1]) == min(count, 8) + 1
