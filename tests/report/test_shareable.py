"""What may be shared of a summary: no small count, and nothing that rests on one or tells one."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from hbdp_fed.audit.numbers import show_number
from hbdp_fed.report import render_report, render_report_markdown, report_figures, report_partition_figure, run_card
from hbdp_fed.report.shareable import drawable, shareable_summary
from hbdp_fed.report.suppression import HIDDEN, TOO_FEW, few
from hbdp_fed.types import ModelSpec
from tests.report.test_run_report import full

# Recognisable wherever they turn up.
SMALL_TRAIN, SMALL_TEST, SMALL_PATIENTS = 7, 8, 6


def small() -> dict[str, Any]:
    """Three hospitals, the last of which holds few records, and a subgroup of few patients."""
    summary = copy.deepcopy(full())
    rates = {"hospital-01": 0.0801, "hospital-02": 0.1603, "hospital-03": 0.9871}
    entry = summary["privacy"]["hospitals"][0]
    summary["clients"] = 3
    summary["privacy"]["hospitals"] = [
        {**entry, "name": name, "num_records": count, "sample_rate": rates[name], "noise_multiplier": rates[name] / 1e3,
         "eps_tight": 1e4 * rates[name], "worst_case_bound": rates[name] / 2}
        for name, count in zip(rates, (900, 300, SMALL_TRAIN), strict=True)
    ]  # fmt: skip
    noise = summary["noise_to_resolution"][0]
    summary["noise_to_resolution"] = [{**noise, "name": name} for name in rates]
    judged = summary["utility_per_hospital"]
    summary["utility_per_hospital"] = [
        {**judged[0], "records": 400, "groups": 100, "mcc": 0.625},
        {**judged[1], "records": 90, "groups": 45, "mcc": 0.375},
        {**judged[1], "name": "hospital-03", "records": SMALL_TEST, "groups": SMALL_PATIENTS, "mcc": 0.1234},
    ]
    summary["worst_hospital"] = {"name": "hospital-03", "metric": "mcc", "value": 0.1234}
    members = summary["utility_by_subgroup"]
    summary["utility_by_subgroup"] = [
        {**members[0], "records": 300, "groups": 90},
        {**members[1], "records": 190, "groups": 61},
        {**members[1], "value": "diverse", "records": 12, "groups": SMALL_PATIENTS, "mcc": 0.4321},
    ]
    summary["utility_matrix"] = {
        "metric": "mcc", "hospitals": list(rates),
        "rows": [{"model": "released", "values": [0.625, 0.375, 0.1234]}],
    }  # fmt: skip
    summary["partition"]["hospitals"] = [
        {"name": "hospital-01", "train": 900, "val": 90, "test": 400, "groups": 700,
         "classes": {"nv": 898, "<mel>": 2}},
        {"name": "hospital-02", "train": 300, "val": 40, "test": 90, "groups": 250,
         "classes": {"nv": 200, "<mel>": 100}},
        {"name": "hospital-03", "train": SMALL_TRAIN, "val": 30, "test": SMALL_TEST, "groups": SMALL_PATIENTS,
         "classes": {"nv": SMALL_TRAIN, "<mel>": 0}},
    ]  # fmt: skip
    summary["skipped"] = ["/somewhere/patient-17.jpg: there is no such file"]
    summary["participation"] = {"offline": 0, "late": 0, "hospitals": [
        {"name": name, "used": 9, "offline": 0, "late": 0, "failed": 0, "course": "u" * 9, "simulated_s": 77.7 * rate,
         "sent_gb": 0.25, "eps_spent": 1e5 * rate}
        for name, rate in rates.items()
    ]}  # fmt: skip
    return summary


# What only the small hospital and the subgroup have.
TELLING = ("0.1234", "0.4321", "0.9871", "0.123", "0.432", show_number(9871.0), "patient-17")


@pytest.mark.parametrize("render", [render_report, render_report_markdown])
def test_no_report_shows_a_small_count_or_what_rests_on_one(render: Any) -> None:
    page = render(small())
    assert not [text for text in TELLING if text in page]
    assert "fewer than 10" in page
    assert "too few records" in page
    shown = render(small(), smallest=1)
    assert [text for text in TELLING if text in shown and text != "0.1234" and text != "0.4321"]
    assert "too few records" not in shown


def test_a_second_hospital_goes_where_the_total_would_tell_the_small_one() -> None:
    partition = shareable_summary(small())["partition"]["hospitals"]
    assert [entry["train"] for entry in partition] == [900, HIDDEN, few(10)]
    assert [entry["test"] for entry in partition] == [400, HIDDEN, few(10)]
    assert [entry["val"] for entry in partition] == [90, 40, 30]
    # Of a hospital whose records are not told, neither are its classes; a small class takes a second one with it.
    assert partition[2]["classes"] == {"nv": HIDDEN, "<mel>": 0}
    assert partition[0]["classes"] == {"nv": HIDDEN, "<mel>": few(10)}


def test_what_tells_a_hospital_s_records_by_the_expected_batch_is_withheld() -> None:
    accounting = shareable_summary(small())["privacy"]["hospitals"]
    assert accounting[0]["sample_rate"] == 0.0801
    for entry, count in zip(accounting[1:], (HIDDEN, few(10)), strict=True):
        assert entry["num_records"] == count
        assert {entry[name] for name in ("sample_rate", "noise_multiplier", "eps_tight", "worst_case_bound")} == {
            HIDDEN
        }
        assert entry["steps"] == 301


def test_figures_of_few_records_or_patients_are_withheld_and_the_worst_is_of_those_that_are_shown() -> None:
    shown = shareable_summary(small())
    assert [entry["mcc"] for entry in shown["utility_per_hospital"]] == [0.625, TOO_FEW, TOO_FEW]
    assert all(not entry["ci95"] for entry in shown["utility_per_hospital"][1:])
    assert shown["worst_hospital"] == {"name": "hospital-01", "metric": "mcc", "value": 0.625}
    assert shown["utility_matrix"]["rows"][0]["values"] == [0.625, TOO_FEW, TOO_FEW]
    # Twelve records, but of six patients; with it goes the smaller of the other two.
    assert [entry["mcc"] for entry in shown["utility_by_subgroup"]] == [0.433, TOO_FEW, TOO_FEW]


def test_a_split_of_few_records_has_no_figures_at_all() -> None:
    summary = small()
    summary["utility"] |= {"records": 9, "groups": 9}
    summary["utility_validation"] = {"mcc": 0.777, "records": 5}
    summary["validation_history"] = [{"round": 1, "mcc": 0.888, "records": 5}]
    page = render_report(summary)
    assert not [text for text in ("0.512", "0.777", "0.888") if text in page]


def test_pictures_are_drawn_from_what_may_be_shared() -> None:
    plain = drawable(shareable_summary(small()))
    bars = plain["partition"]["hospitals"]
    assert [bar["train"] for bar in bars] == [900, None, None]
    # What is withheld of a shown hospital is one part, as large as the shown classes leave.
    assert bars[0]["classes"] == {"not shown": 900}
    assert json.loads(json.dumps(plain)) == plain
    texts = [text.get_text() for text in report_figures(small())["partition"].axes[0].texts]
    assert [text for text in texts if "not shown" in text] == ["not shown", "not shown"]
    alone = report_partition_figure(small()["partition"]).axes[0].texts
    assert [text.get_text() for text in alone] == texts


def test_the_card_has_null_where_a_report_withholds() -> None:
    card = run_card(small(), architecture=ModelSpec("cnn", {}), shape=(1, 28, 28))
    text = json.dumps(card)
    assert not [told for told in TELLING if told in text]
    assert [entry["num_records"] for entry in card["budget"]["hospitals"]] == [900, None, None]
    assert [entry["mcc"]["value"] for entry in card["utility"]["hospitals"]] == [0.625, None, None]
    assert card["withheld"]["smallest_count"] == 10


def test_without_small_counts_nothing_changes() -> None:
    summary = full()
    del summary["skipped"]
    shown = shareable_summary(summary)
    assert {name: shown[name] for name in summary} == summary


def test_few_patients_are_withheld_where_they_are_the_unit_with_what_tells_them() -> None:
    summary = small()
    summary["privacy"] |= {"unit": "patient", "unit_word": "patient", "records_per_patient": 4}
    summary["partition"]["hospitals"][2] |= {"train": 120}  # enough records, of few patients
    for entry, count in zip(summary["privacy"]["hospitals"], (300, 200, SMALL_PATIENTS), strict=True):
        entry["num_units"] = count
    shown = shareable_summary(summary)["privacy"]["hospitals"]
    assert shown[0]["num_units"] == 300
    assert shown[2]["num_units"] == few(10)
    assert shown[2]["sample_rate"] == shown[2]["noise_multiplier"] == shown[2]["eps_tight"] == HIDDEN
    assert "0.987" not in render_report_markdown(summary)


def test_a_report_is_per_patient_where_patients_are_the_unit() -> None:
    summary = copy.deepcopy(full())
    summary["privacy"] |= {"unit": "patient", "unit_word": "lesion", "records_per_patient": 4}
    for entry in summary["privacy"]["hospitals"]:
        entry["num_units"] = 123
    for text in (render_report_markdown(summary), render_report(summary)):
        told = " ".join(text.split())
        assert "one lesion's budget at one hospital" in told
        assert "lesions" in told
        assert "for one lesion with all records at one hospital" in told
        assert "one record's budget" not in told
    plain = render_report_markdown(full())
    assert "one record's budget at one hospital" in plain
    assert "lesion's budget" not in plain
