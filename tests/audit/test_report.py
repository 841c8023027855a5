"""The page shows the summary's figures, needs nothing beside it, and invents nothing."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from hbdp_fed.audit import render_report
from hbdp_fed.audit.report import show_count, show_number, show_percent

ATTACK = {
    "name": "imprint", "kind": "reconstruction", "surface": "gradient", "records": 40,
    "success_rate": 0.525, "success_rate_ci95": [0.37, 0.67],
    "control_success_rate": 0.025, "baseline_success_rate": 0.1, "ssim_max": 0.973, "share": 0.999,
    "criterion": "SSIM > 0.8 & more", "bound": None, "above_bound": None, "ssim_median": 0.5,
}  # fmt: skip


def summary(**attack: Any) -> dict[str, Any]:
    hospital = {
        "num_records": 400,
        "sample_rate": 0.08,
        "steps": 301,
        "noise_multiplier": 1.4e-5,
        "max_grad_norm": "inf",
        "eps_tight": 7043.7,
        "worst_case_bound": 0.25,
        "relaxed_bound": 0.125,
    }
    return {
        "dataset": "<phantom>", "clients": 2, "model": "cnn", "rounds": 12, "seed": 0, "model_sha256": "ab" * 32,
        "privacy": {
            "eps": "inf", "delta": 1e-5, "noise": "drawn from <dice>",
            "hospitals": [{"name": f"hospital-0{i}", "eps_rdp": "inf", **hospital} for i in (1, 2)],
        },
        "utility": {"mcc": None, "auroc": 0.9218, "round": 11},
        "hyperparameters": {"precision": "float32"},
        "noise_to_resolution": [
            {"name": "hospital-01", "clipped_sum": 1234.5, "float64_delta": 4.875e7, "effectively_gaussian": True},
            {"name": "hospital-02", "clipped_sum": None, "float64_delta": 0.0, "effectively_gaussian": None},
        ],
        "utility_per_hospital": [
            {"name": "hospital-01", "records": 200, "mcc": 0.7, "auroc": 0.9},
            {"name": "hospital-02", "records": 0, "mcc": None, "auroc": None},
        ],
        "risk": {
            "worst_case": {"bound": 0.25, "prior": 0.013, "attacks": []},
            "relaxed": {"bound": 0.125, "prior": 0.013, "attacks": []},
            "realistic": {"bound": None, "prior": None, "attacks": [{**ATTACK, **attack}]},
        },
    }  # fmt: skip


HISTORY = [{"round": 1, "mcc": None, "ece": 0.25}, {"round": 11, "mcc": 0.555, "ece": 0.125}]


def full() -> dict[str, Any]:
    """A summary with everything that a run of several classes can have."""

    def figures(mcc: float | None, **more: Any) -> dict[str, Any]:
        ends = None if mcc is None else [mcc - 0.04, mcc + 0.04]
        return {"mcc": mcc, "ece": 0.0625, "ci95": {"mcc": ends, "ece": None}, "records": 12345, "groups": 321, **more}

    return summary() | {
        "task": "multiclass", "class_names": ["nv", "<mel>"], "metrics": ["mcc", "ece"], "selection": ["mcc", "ece"],
        "utility": figures(0.512, round=11, point={"threshold": 0.4375}),
        "utility_validation": {"mcc": 0.555, "ece": 0.1},
        "utility_per_hospital": [figures(0.625, name="hospital-01"), figures(0.375, name="hospital-02")],
        "worst_hospital": {"name": "hospital-02", "metric": "mcc", "value": 0.375},
        "utility_by_subgroup": [
            figures(0.433, attribute="sex", value="<female>"),
            figures(0.533, attribute="sex", value="male"),
            figures(None, attribute="age_band", value="0-29"),
        ],
        "utility_matrix": {
            "metric": "mcc",
            "hospitals": ["hospital-01", "hospital-02"],
            "rows": [
                {"model": "released", "values": [0.625, 0.375]}, {"model": "hospital-01", "values": [0.611, None]},
                {"model": "hospital-02", "values": [-0.111, 0.322]},
            ],
        },
        "partition": {
            "scheme": "natural", "column": "dataset", "group": "lesion",
            "hospitals": [
                {"name": "hospital-01", "train": 10015, "val": 4, "test": 5, "groups": 777,
                 "classes": {"nv": 9000, "<mel>": 1015}},
                {"name": "hospital-02", "train": 6, "val": 4, "test": 5, "groups": 6, "classes": {"nv": 6}},
            ],
        },
        "skipped": [f"/somewhere/<{i}>.jpg: there is no such file" for i in range(60)],
    }  # fmt: skip


def segmentation() -> dict[str, Any]:
    figures = {
        "dice": 0.871, "hd95": "inf", "dice_1": 0.901, "dice_2": 0.841, "hd95_1": 1.5, "hd95_2": None,
        "ci95": {"dice": [0.86, 0.88], "hd95": None, "dice_2": [0.81, 0.87]}, "records": 41, "groups": None,
    }  # fmt: skip
    return summary() | {
        "task": "segmentation", "class_names": ["background", "spleen", "tumour"], "metrics": ["dice", "hd95"],
        "selection": ["dice"], "utility": {**figures, "round": 7, "point": {}}, "utility_per_hospital": [],
        "worst_hospital": None, "utility_matrix": None, "utility_by_subgroup": [], "skipped": [],
        "partition": {"scheme": "iid", "column": None, "group": "record", "hospitals": []},
    }  # fmt: skip


def section(page: str, heading: str) -> str:
    start = page.index(f"{heading}</h")
    ends = [end for tag in ("<h2>", "<h3>", "<footer>") if (end := page.find(tag, start)) >= 0]
    return page[start : min(ends)]


@pytest.mark.parametrize("written", [summary, full, segmentation])
def test_the_page_is_well_formed_and_self_contained(written: Callable[[], dict[str, Any]]) -> None:
    page = render_report(
        written(),
        history=[{"round": 1, "mcc": 0.5, "auroc": 0.8, "dice": 0.5}],
        reconstructions={"imprint_gradient": b"\x89PNG"},
    )
    open_tags: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in {"meta", "img"}:
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Checker().feed(page)
    assert open_tags == []
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)"', page))
    assert "http" not in page
    assert "&lt;phantom&gt;" in page
    assert not {"<mel>", "<female>", "<1>"} & set(re.findall(r"<[^>]*>", page))


def test_the_page_shows_the_figures_and_no_others() -> None:
    page = render_report(summary())
    for text in (
        "52.5%",
        "37.0%",
        "67.0%",
        "2.5%",
        "0.922",
        "0.973",
        "25.0%",
        "12.5%",
        "1.3%",
        "7044",
        "no bound in theory",
        "hospital-02",
        "1234",
        "4.875e+07",
        "drawn from &lt;dice&gt;",
    ):
        assert text in page
    assert "nan" not in page.lower()
    assert "Training" not in page
    assert "Best reconstructions" not in page


@pytest.mark.parametrize(("interval", "chance", "colour"), [([0.37, 0.67], 0.025, "leak"), ([0.01, 0.1], 0.03, "safe")])
def test_a_rate_within_reach_of_chance_is_not_called_a_leak(interval: list[float], chance: float, colour: str) -> None:
    page = render_report(summary(success_rate_ci95=interval, control_success_rate=chance))
    assert f'class="card {colour}"' in page


def test_only_noise_that_can_be_rounded_off_is_warned_of() -> None:
    assert "not effectively Gaussian" not in render_report(summary())
    coarse = summary()
    coarse["noise_to_resolution"][1] = {
        "name": "hospital-02", "clipped_sum": 0.25, "float64_delta": 9e3, "effectively_gaussian": False,
    }  # fmt: skip
    page = render_report(coarse)
    warning = page[page.index('<p class="warning">') :]
    warning = warning[: warning.index("</p>")]
    assert "hospital-02" in warning
    assert "hospital-01" not in warning
    assert "training.precision=float64" in warning
    coarse["hyperparameters"]["precision"] = "float64"
    assert "training.precision=float64" not in render_report(coarse)


def test_a_run_without_attack_says_so() -> None:
    plain = summary()
    plain["risk"]["realistic"]["attacks"] = []
    assert "no attack was run" in render_report(plain)


def test_what_does_not_exist_is_a_dash() -> None:
    assert (show_number(None), show_percent(None), show_count(None)) == ("–", "–", "–")
    assert (show_number("inf"), show_number(3.4794e-5), show_count(12345)) == ("inf", "3.479e-05", "12,345")


def test_utility_has_every_metric_with_its_interval_and_what_validation_had() -> None:
    page = render_report(full(), history=HISTORY)
    utility = section(page, "Utility")
    for text in (
        "MCC",
        "0.512",
        "0.472 to 0.552",
        "0.555",
        "calibration error",
        "0.062",
        "12,345 records, 321 lesions",
    ):
        assert text in utility
    assert "AUROC" not in page
    assert "Round 11 was released: validation chose it by MCC, then calibration error" in page
    assert "operating point with it: threshold 0.4375" in page


def test_an_older_summary_has_its_threshold_and_no_empty_sections() -> None:
    older = summary()
    older["utility"]["threshold"] = 0.5581
    page = render_report(older, history=[{"round": 11, "mcc": 0.5, "auroc": 0.8}])
    assert "threshold 0.5581" in page
    for heading in ("By class", "Subgroups", "Records", "beside the hospitals"):
        assert f"{heading}</h3>" not in page
    assert "left out" not in page
    assert "95% interval</th>" not in page


def test_the_worst_hospital_is_named_and_marked() -> None:
    hospitals = section(render_report(full()), "At each hospital")
    assert "Worst served: <strong>hospital-02</strong>, with MCC\n0.375, against 0.512" in hospitals
    assert re.findall(r'<tr class="worst"><td>([^<]*)', hospitals) == ["hospital-02"]


def test_the_matrix_marks_its_worst_cell_and_has_a_dash_for_a_missing_one() -> None:
    matrix = section(render_report(full()), "beside the hospitals' own")
    assert re.findall(r'<td class="worst">([^<]*)', matrix) == ["-0.111"]
    assert "<td>–</td>" in matrix


def test_subgroups_stand_under_their_attribute_and_only_a_compared_one_is_the_worst() -> None:
    subgroups = section(render_report(full()), "Subgroups")
    assert re.findall(r'class="attribute"><td [^>]*>([^<]*)', subgroups) == ["sex", "age band"]
    assert re.findall(r'class="member worst"><td>([^<]*)', subgroups) == ["&lt;female&gt;"]


def test_who_holds_what_and_what_was_left_out_are_told() -> None:
    page = render_report(full())
    for text in ("10,015", "777", "9,000", "How records were dealt: natural, by dataset", "lesions"):
        assert text in section(page, "Records")
    assert "60 records left out" in page
    assert page.count("there is no such file") == 50
    assert "and 10 more" in page


def test_more_classes_than_a_table_holds_get_no_columns() -> None:
    many = full()
    many["partition"]["hospitals"][0]["classes"] = {f"class-{i}": 1 for i in range(165)}
    assert "class-7" not in render_report(many)


def test_segmentation_is_told_class_by_class_in_its_own_metrics() -> None:
    page = render_report(segmentation(), history=[{"round": 7, "dice": 0.7, "hd95": "inf"}])
    classes = section(page, "By class")
    for text in ("spleen", "0.901", "1.50", "tumour", "0.841", "0.810 to 0.870"):
        assert text in classes
    assert ">background<" not in page
    assert "MCC" not in page
    assert "Round 7 was released: validation chose it by Dice." in page
    assert "HD95 (mm)" in render_report(segmentation() | {"units": {"hd95": "mm"}})


def test_pictures_stand_where_they_belong_and_others_at_the_end() -> None:
    pictures = {"matrix": b"m", "subgroups": b"s", "partition": b"p", "dose_response": b"d"}
    page = render_report(full(), pictures=pictures)
    headings = {"beside the hospitals' own": b"m", "Subgroups": b"s", "Records": b"p", "Dose response": b"d"}
    for heading, picture in headings.items():
        assert base64.b64encode(picture).decode() in section(page, heading)
    # Beside their pictures, the tables are folded.
    assert "<details open>" not in page
    assert page.count("<details open>") + 2 == render_report(full()).count("<details open>")


def test_every_attack_has_its_picture() -> None:
    page = render_report(summary(), reconstructions={"imprint_gradient": b"r", "trap_weights_gradient": b"s"})
    assert page.count('<div class="wide rebuilt">') == 2
    assert "Best reconstructions" not in render_report(summary())


def test_the_history_is_the_summary_s_unless_another_is_given() -> None:
    trained = full() | {"validation_history": HISTORY}
    page = section(render_report(trained), "Training")
    assert re.findall(r"<td>([^<]*)</td>", page) == ["1", "–", "0.250", "11", "0.555", "0.125"]
    assert "Training</h2>" not in render_report(trained, history=[])
