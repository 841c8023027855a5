"""What pages say of unequal sites and of patients whom several hospitals know, and what they keep to themselves."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from hbdp_fed.audit.overlap_words import overlap_words
from hbdp_fed.report import render_report, render_report_markdown
from hbdp_fed.report.shareable import shareable_summary
from hbdp_fed.report.suppression import Withheld
from tests.report.test_run_report import summary

OVERLAP: dict[str, Any] = {
    "unit": "lesion", "patients": 523, "of": 5229, "share": 523 / 5229, "records": 699, "composed": "same_records",
    "hospitals": ["hospital-01", "hospital-02"], "eps_rdp": 2.5e9, "eps_tight": 3.25e7, "worst_case_bound": 0.75,
    "exact": True,
}  # fmt: skip


def with_overlap(**changed: Any) -> dict[str, Any]:
    plain = summary()
    return {**plain, "privacy": {**plain["privacy"], "overlap": {**OVERLAP, **changed}}}


def with_sites(*scanners: dict[str, Any] | None) -> dict[str, Any]:
    line = {"records_per_s": 100.0, "download_mbit_s": 50.0, "upload_mbit_s": 10.0, "latency_s": 0.3}
    hospitals = [
        {"name": f"hospital-0{i}", "kind": "<old>", "scanner": scanner, "availability": 0.85, **line}
        for i, scanner in enumerate(scanners, start=1)
    ]
    return {**summary(), "sites": {"name": "academic_and_community", "hospitals": hospitals}}


def scanner(**figures: float) -> dict[str, Any]:
    return {"resolution": 0.0, "gamma": 1.0, "bias_field": 0.0, "noise": 0.0, **figures}


def as_text(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


@pytest.mark.parametrize("render", [render_report, render_report_markdown])
def test_pages_say_who_is_known_twice_and_what_is_left(render: Any) -> None:
    page = as_text(render(with_overlap()).replace("\\", ""))
    assert "523 of 5,229 lesions (10.0%) are known to several hospitals, which all hold their records" in page
    assert "for such a record epsilon 2.5e+09 by RDP, in truth at most 3.25e+07, and a bound of 75.0%" in page
    assert "(the weakest: hospital-01 and hospital-02)" in page
    assert "known to several" not in as_text(render(summary()))


def test_where_each_record_lies_at_one_hospital_it_keeps_its_guarantee() -> None:
    words = overlap_words({"overlap": {**OVERLAP, "composed": "one_record_each", "records": 0}})
    assert "Each record lies at one of them and keeps its guarantee" in words
    assert "Several records at one hospital leave less." in words


def test_whoever_is_a_patient_by_unit_is_called_so() -> None:
    words = overlap_words({"unit": "patient", "overlap": {**OVERLAP, "composed": "whole_patients"}})
    assert "are known to several hospitals, each with records of theirs. What these hospitals release composes" in words
    assert "for such a lesion epsilon" in words


def test_few_patients_are_not_counted() -> None:
    shown = shareable_summary(with_overlap(patients=3, records=4), smallest=10)["privacy"]["overlap"]
    assert isinstance(shown["patients"], Withheld)
    assert isinstance(shown["share"], Withheld)
    page = as_text(render_report(with_overlap(patients=3, records=4)))
    assert "Some lesions (fewer than 10) are known to several hospitals" in page
    assert "3 of 5,229" not in page
    assert "3 of 5,229" in as_text(render_report(with_overlap(patients=3, records=4), smallest=1))


def test_epsilon_of_a_hospital_whose_records_are_not_counted_is_not_told_by_a_combination_either() -> None:
    few = with_overlap()
    few["privacy"]["hospitals"][1]["num_records"] = 4
    shown = shareable_summary(few, smallest=10)["privacy"]["overlap"]
    assert all(isinstance(shown[name], Withheld) for name in ("eps_rdp", "eps_tight", "worst_case_bound"))
    assert "epsilon not shown by RDP, in truth at most not shown" in as_text(render_report(few))


@pytest.mark.parametrize("render", [render_report, render_report_markdown])
def test_unequal_sites_have_a_table_with_their_figures(render: Any) -> None:
    page = render(with_sites(scanner(resolution=1.25, gamma=0.75), scanner(bias_field=0.375, noise=0.0625)))
    shown = as_text(page.replace("\\", ""))
    assert "sites=academic_and_community" in shown
    for figure in ("1.25", "0.75", "0.375", "0.0625", "85.0%"):
        assert figure in shown
    assert "<old>" not in page


def test_equal_sites_have_none() -> None:
    assert "Point spread" not in render_report(with_sites(scanner(), scanner()))
    assert "Point spread" not in render_report(summary())


def test_a_pool_of_several_scanners_has_none_of_its_own() -> None:
    page = render_report_markdown(with_sites(None, scanner(noise=0.25)))
    rows = [line.split("|")[3:7] for line in page.splitlines() if "&lt;old&gt;" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [["–"] * 4, ["0", "1", "0", "0.25"]]
