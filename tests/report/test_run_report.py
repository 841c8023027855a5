"""The page shows the summary's figures, needs nothing beside it, and invents nothing."""

from __future__ import annotations

import base64
import copy
import html
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from hbdp_fed.audit.numbers import show_count, show_duration, show_number, show_percent, show_similarity
from hbdp_fed.report import render_report

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


HISTORY: list[dict[str, Any]] = [{"round": 1, "mcc": None, "ece": 0.25}, {"round": 11, "mcc": 0.555, "ece": 0.125}]


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
                {"name": "hospital-01", "train": 10015, "val": 41, "test": 51, "groups": 777,
                 "classes": {"nv": 9000, "<mel>": 1015}},
                {"name": "hospital-02", "train": 60, "val": 40, "test": 50, "groups": 60, "classes": {"nv": 60}},
            ],
        },
        "skipped": [f"/somewhere/<{i}>.jpg: there is no such file" for i in range(60)],
    }  # fmt: skip


NAMING = {
    "name": "candidate_matching", "kind": "identification", "surface": "gradient", "records": 101, "candidates": 64,
    "success_rate": 0.131, "success_rate_ci95": [0.082, 0.207], "criterion": "the one of 64 is named",
    "baseline_success_rate": 0.0157, "bound": 0.283, "bound_prior": 0.0157, "optimal": 0.241, "steps": 253,
    "above_bound": False,
}  # fmt: skip
POINTS = [
    {"level": 0.013, "false_positive_rate": 0.012, "true_positive_rate": 0.071,
     "true_positive_rate_ci95": [0.034, 0.142], "bound": 0.229, "bound_at_limit": 0.304},
    {"level": 0.103, "false_positive_rate": 0.099, "true_positive_rate": 0.352,
     "true_positive_rate_ci95": [0.266, 0.449], "bound": 0.563, "bound_at_limit": 0.662},
]  # fmt: skip
TELLING = {
    "name": "membership", "kind": "membership", "surface": "gradient", "records": 102, "outsiders": 317,
    "success_rate": 0.352, "success_rate_ci95": [0.266, 0.449], "criterion": "told from others",
    "baseline_success_rate": 0.103, "bound": 0.662, "bound_prior": 0.103, "auc": 0.7123, "points": POINTS,
    "steps": 253, "above_bound": False,
}  # fmt: skip
LAW = {
    "records": 167, "left_out": 1, "probes": 5, "mse": 0.5, "mse_law": 0.5, "mse_ratio": 1.042,
    "mse_ratio_ci95": [0.931, 1.155], "psnr_median": 17.08, "psnr_median_law": 17.19, "ncc_median": 0.4321,
    "ncc_median_law": 0.4357, "within_central_95": 0.62,
}  # fmt: skip
PROBE = {
    **ATTACK, "name": "linear_probe", "records": 168, "probes": 5,
    "success_rate": 0.0, "success_rate_ci95": [0.0, 0.022], "control_success_rate": 0.006,
    "baseline_success_rate": 0.011, "ssim_max": 0.318, "ssim_median": 0.127,
    "share": None, "bound": 0.058, "bound_prior": 0.014, "law": LAW, "above_bound": False,
}  # fmt: skip
TRAP = {
    **ATTACK, "name": "trap_weights", "records": 139, "success_rate": 0.463, "success_rate_ci95": [0.384, 0.983],
    "control_success_rate": 0.007, "share": 0.825, "success_rates": {"0.6": 0.777, "0.8": 0.463},
}  # fmt: skip


def attacked(*more: dict[str, Any], **changed: dict[str, Any]) -> dict[str, Any]:
    """A summary with all five attacks, some of them changed, and further ones of the worst case."""
    run = copy.deepcopy(summary())
    entries = {
        "worst_case": [NAMING, TELLING, *more],
        "relaxed": [PROBE],
        "realistic": [run["risk"]["realistic"]["attacks"][0], TRAP],
    }
    for model, attacks in entries.items():
        run["risk"][model]["attacks"] = [{**one, **changed.get(one["name"], {})} for one in attacks]
    return run


def rows(table: str) -> list[list[str]]:
    """What a reader sees in a table's cells."""
    return [
        [words(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S)]
        for row in re.findall(r"<tr[^>]*>(.*?)</tr>", table, re.S)
    ]


def named(table: str) -> dict[str, dict[str, str]]:
    """By the first cell's text, a row by the headings of its columns."""
    head, *body = rows(table)
    return {row[0]: dict(zip(head, row, strict=True)) for row in body}


def words(part: str) -> str:
    """What a reader sees of a part of the page."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", part)).split())


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


VOID = {"meta", "img"}


def shown(summary: dict[str, Any], **more: Any) -> str:
    """The page without its style and its script, which are the same for every run."""
    return re.sub(r"<(script|style)>.*?</\1>", "", render_report(summary, **more), flags=re.S)


def section(page: str, heading: str) -> str:
    start = page.index(f"{heading}</h")
    ends = [end for tag in ("<h2", "<h3", "<footer>") if (end := page.find(tag, start)) >= 0]
    return page[start : min(ends)]


@pytest.mark.parametrize("written", [summary, full, segmentation, attacked])
def test_the_page_is_well_formed_and_self_contained(written: Callable[[], dict[str, Any]]) -> None:
    page = render_report(
        written(),
        history=[{"round": 1, "mcc": 0.5, "auroc": 0.8, "dice": 0.5}],
        reconstructions={"imprint_gradient": b"\x89PNG"},
    )
    open_tags: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in VOID:
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Checker().feed(page)
    assert open_tags == []
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)"', page))
    assert "http" not in page.replace("http-equiv", "")
    assert "&lt;phantom&gt;" in page
    assert not {"<mel>", "<female>", "<1>"} & set(re.findall(r"<[^>]*>", page))


def test_the_page_shows_the_figures_and_no_others() -> None:
    page = shown(summary())
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
    assert "Training</h2>" not in page
    assert "Best reconstructions" not in page


@pytest.mark.parametrize(("interval", "chance", "colour"), [([0.37, 0.67], 0.025, "leak"), ([0.01, 0.1], 0.03, "safe")])
def test_a_rate_within_reach_of_chance_is_not_called_a_leak(interval: list[float], chance: float, colour: str) -> None:
    page = shown(summary(success_rate_ci95=interval, control_success_rate=chance))
    assert f'class="card {colour}"' in page


def test_the_page_says_first_in_plain_words_what_came_of_it() -> None:
    told = words(section(shown(attacked()), "In plain words"))
    assert "At epsilon inf, a server that may change the model rebuilds images of patients." in told
    assert "of 40 records that were attacked, 52.5% were rebuilt by imprint (95% interval 37.0% to 67.0%)" in told
    assert "it succeeds with a record with a probability of at most 25.0%." in told
    held = shown(summary(success_rate_ci95=[0.01, 0.1], control_success_rate=0.03))
    assert "no realistic attack was shown to rebuild more images than chance would" in words(held)
    plain = summary()
    plain["risk"]["realistic"]["attacks"] = []
    assert "No realistic attack was run" in words(section(shown(plain), "In plain words"))


def test_every_attack_has_its_row_with_all_that_was_measured_and_all_that_theory_says() -> None:
    page = shown(attacked())
    worst = named(section(page, "Worst case"))
    assert worst["candidate matching gradient, 253 steps"] == {
        "attack": "candidate matching gradient, 253 steps", "records": "101", "0% 100%": "",
        "success": "13.1% 8.2% to 20.7%", "chance": "1.6%", "best possible": "24.1%", "bound": "28.3%",
    }  # fmt: skip
    assert worst["membership gradient, 253 steps"] == {
        "attack": "membership gradient, 253 steps", "records": "102", "0% 100%": "",
        "success": "35.2% 26.6% to 44.9%", "chance": "10.3%", "best possible": "–", "bound": "66.2%",
    }  # fmt: skip
    assert named(section(page, "Relaxed"))["linear probe gradient, 5 probes"] == {
        "attack": "linear probe gradient, 5 probes", "records": "168", "0% 100%": "",
        "success": "0.0% 0.0% to 2.2%", "chance": "0.6%", "bound": "5.8% from 1.4%",
        "public guess": "1.1%", "best SSIM": "0.318", "median SSIM": "0.127",
    }  # fmt: skip
    realistic = named(section(page, "Realistic"))
    assert realistic["trap weights gradient"] == {
        "attack": "trap weights gradient", "records": "139", "0% 100%": "",
        "success": "46.3% 38.4% to 98.3%", "chance": "0.7%",
        "public guess": "10.0%", "best SSIM": "0.973", "median SSIM": "0.500", "share": "82.5%",
    }  # fmt: skip
    assert realistic["imprint gradient"]["share"] == "99.9%"
    # By the threshold, of the one attack that has several.
    assert "of trap weights, success by the SSIM to exceed: 0.6: 77.7%, 0.8: 46.3%." in words(
        section(page, "What the figures mean")
    )


def test_each_threat_model_says_its_bound_beside_a_guess() -> None:
    page = shown(attacked())
    assert "a probability of at most 25.0% ; a guess alone has 1.3%" in words(section(page, "Worst case"))
    assert "a probability of at most 12.5% ; a guess alone has 1.3%" in words(section(page, "Relaxed"))
    assert "There is no bound in theory" in section(page, "Realistic")
    assert "rules nothing out" not in page


def test_a_bound_that_rules_nothing_out_is_called_so_and_not_certainty() -> None:
    run = attacked(candidate_matching={"bound": 0.99999, "optimal": 0.99998})
    run["risk"]["worst_case"]["bound"] = 0.9999999
    run["privacy"]["hospitals"][0]["worst_case_bound"] = 0.9999999
    page = shown(run)
    worst = section(page, "Worst case")
    assert "Theory rules nothing out" in worst
    row = named(worst)["candidate matching gradient, 253 steps"]
    assert (row["best possible"], row["bound"]) == (">99.9%", ">99.9%")
    assert named(section(page, "Privacy of each hospital's records"))["hospital-01"]["bound, worst case"] == ">99.9%"


def test_only_certainty_is_written_as_certain_and_only_never_as_never() -> None:
    assert [show_percent(value) for value in (1.0, 1 - 1e-12, 0.9995, 0.9994, 0.0004, 1e-12, 0.0)] == [
        "100.0%", ">99.9%", ">99.9%", "99.9%", "<0.1%", "<0.1%", "0.0%",
    ]  # fmt: skip
    assert [show_similarity(value) for value in (1.0, 0.99999, 0.9994, 0.5, -0.25, None, "inf")] == [
        "1.000", ">0.999", "0.999", "0.500", "-0.250", "–", "inf",
    ]  # fmt: skip


def test_how_far_the_bound_lies_above_the_best_possible_is_said_in_words() -> None:
    worst = words(section(shown(attacked()), "Worst case"))
    assert "Candidate matching: the bound lies 4.2 percentage points above the best possible" in worst
    assert "which names 24.1%" in worst
    near = attacked(candidate_matching={"optimal": 0.28299})
    assert "comes as near to the bound as one decimal shows" in section(shown(near), "Worst case")
    # Of membership there is no such figure.
    assert "Membership: the" not in worst


def test_the_scale_of_an_attack_stands_where_its_figures_are() -> None:
    worst = section(shown(attacked()), "Worst case")
    first = worst[worst.index('<div class="scale"') :]
    first = first[: first.index("</div>")]
    marks = dict(re.findall(r'<i class="([^"]*)" style="([^"]*)"', first))
    assert marks == {
        "beyond": "left:24.10%;width:4.20%", "ruled": "left:28.30%;right:0", "rate leak": "left:0;width:13.10%",
        "reach": "left:8.20%;width:12.50%", "chance": "left:1.57%", "optimal": "left:24.10%", "bound": "left:28.30%",
    }  # fmt: skip
    assert 'aria-label="success 13.1%, chance 1.6%, best possible 24.1%, bound 28.3%"' in first


def test_an_attack_above_its_bound_is_marked_and_its_reader_told() -> None:
    assert "above its bound" not in shown(attacked())
    odd = {**NAMING, "surface": "global_model", "success_rate_ci95": [0.31, 0.49], "success_rate": 0.4}
    page = shown(attacked({**odd, "above_bound": True}))
    worst = section(page, "Worst case")
    assert re.findall(r'<tr class="worst"><th scope="row">([^<]*?)\s*<small>([^<,]*)', worst) == [
        ("candidate matching", "global model")
    ]
    warning = words(worst[worst.index('<p class="warning">') :])
    assert warning.startswith("Candidate matching on the global model lies above its bound")
    assert "31.0% and more, against 28.3%" in warning
    card = page[page.index("candidate matching on the global model, the strongest of 2") :]
    assert "above its bound, 28.3%" in card[: card.index("</div>")]


def test_of_each_kind_the_strongest_has_a_card() -> None:
    page = shown(attacked({**NAMING, "surface": "update", "success_rate": 0.2}))
    top = page[: page.index("Risk under each threat model")]
    cards = [words(card) for card in re.findall(r'<div class="card (?:leak|safe)">(.*?)</div>', top, re.S)]
    assert [card.split(" (")[0] for card in cards] == [
        "20.0% of 101 records named by candidate matching on the update, the strongest of 2",
        "35.2% of 102 records recognised by membership",
        "0.0% of 168 records rebuilt by linear probe",
        "52.5% of 40 records rebuilt by imprint, the strongest of 2",
    ]
    assert [card.split("): ")[1] for card in cards] == [
        "more than chance; bound 28.3%", "more than chance; bound 66.2%", "not more than chance; bound 5.8%",
        "more than chance",
    ]  # fmt: skip


def test_what_counts_as_success_is_told_once_for_all_attacks_that_it_is_of() -> None:
    meaning = words(section(shown(attacked()), "What the figures mean"))
    assert "success of linear probe, imprint, trap weights: SSIM > 0.8 & more." in meaning
    assert "success of candidate matching: the one of 64 is named." in meaning
    assert "success of membership: told from others." in meaning
    assert "global model" not in meaning
    seen = attacked({**NAMING, "surface": "global_model"})
    assert "global model what is seen:" in words(section(shown(seen), "Threat models explained"))


def test_a_membership_test_has_all_its_thresholds() -> None:
    table = section(shown(attacked()), "Was a record there? (gradient)")
    assert rows(table) == [
        ["false alarms allowed", "false alarms", "recognised", "bound", "bound with margin"],
        ["1.3%", "1.2%", "7.1% 3.4% to 14.2%", "22.9%", "30.4%"],
        ["10.3%", "9.9%", "35.2% 26.6% to 44.9%", "56.3%", "66.2%"],
    ]
    assert "Area under the curve 0.712, over 102 records that were there and 317 that were not" in words(table)
    assert "Was a record there?" not in shown(summary())


def test_the_linear_probe_stands_beside_its_law() -> None:
    law = section(shown(attacked()), "The unprocessed linear probe beside its law")
    assert rows(law)[1] == ["gradient", "167", "5", "1.042 0.931 to 1.155", "17.08", "17.19", "0.432", "0.436"]
    assert "beside its law" not in shown(summary())


@pytest.mark.parametrize(
    ("name", "nothing"),
    [
        ("imprint", {"records": 0, "success_rate": None, "success_rate_ci95": None, "control_success_rate": None,
                     "baseline_success_rate": None, "ssim_max": None, "ssim_median": None, "share": None, "law": None,
                     "success_rates": {"0.6": None, "0.8": None}}),
        ("linear_probe", {"success_rate": None, "success_rate_ci95": None, "bound": None, "bound_prior": None,
                          "law": dict.fromkeys(LAW) | {"records": 0, "probes": 0, "psnr_median": "inf"}}),
        ("candidate_matching", {"records": 0, "success_rate": None, "success_rate_ci95": None, "optimal": None,
                                "above_bound": None}),
        ("membership", {"auc": None}),
    ],
    ids=["no record rebuilt", "no law", "no game", "no area"],
)  # fmt: skip
def test_figures_that_do_not_exist_are_dashes_and_nothing_breaks(name: str, nothing: dict[str, Any]) -> None:
    page = shown(attacked(**{name: nothing}))
    spoken = name.replace("_", " ")
    row = next(row for row in rows(page) if row[0].startswith(f"{spoken} gradient"))
    if name == "membership":
        assert "Over 102 records that were there" in words(section(page, "Was a record there? (gradient)"))
    else:
        assert row[3] == "–"
    assert "None" not in page
    assert "nan" not in page.lower()


def test_where_no_record_was_attacked_the_card_takes_no_side() -> None:
    nothing = {"success_rate": None, "success_rate_ci95": None, "records": 0}
    page = shown(attacked(membership=nothing))
    assert '<div class="card"><b>–</b>\n    <span>of 0 records recognised by membership; bound 66.2%' in page


def test_names_are_written_as_text() -> None:
    odd = {**NAMING, "name": "<b>LOKI</b>", "surface": "<i>update</i>", "criterion": "<u>seen</u>", "above_bound": True}
    page = shown(attacked(odd), reconstructions={"<s>picture</s>": b"r"})
    for tag in ("<b>LOKI", "<i>update", "<u>seen", "<s>picture"):
        assert tag not in page
        assert tag.replace("<", "&lt;").replace(">", "&gt;") in page


def test_only_noise_that_can_be_rounded_off_is_warned_of() -> None:
    assert "not effectively Gaussian" not in shown(summary())
    coarse = summary()
    coarse["noise_to_resolution"][1] = {
        "name": "hospital-02", "clipped_sum": 0.25, "float64_delta": 9e3, "effectively_gaussian": False,
    }  # fmt: skip
    page = shown(coarse)
    warning = page[page.index('<p class="warning">') :]
    warning = warning[: warning.index("</p>")]
    assert "hospital-02" in warning
    assert "hospital-01" not in warning
    assert "training.precision=float64" in warning
    coarse["hyperparameters"]["precision"] = "float64"
    assert "training.precision=float64" not in shown(coarse)


def test_a_run_without_attack_says_so() -> None:
    plain = summary()
    plain["risk"]["realistic"]["attacks"] = []
    page = shown(plain)
    assert "no attack was run" in page
    for heading in ("Worst case", "Relaxed", "Realistic"):
        assert "No attack of this kind was run." in section(page, heading)
    # The bounds are there all the same, and nothing is explained that is not there.
    assert "a probability of at most <strong>" not in section(page, "Realistic")
    assert "25.0%" in section(page, "Worst case")
    assert "What the figures mean" not in page
    assert 'class="scale' not in page


def test_what_does_not_exist_is_a_dash() -> None:
    assert (show_number(None), show_percent(None), show_count(None)) == ("–", "–", "–")
    assert (show_number("inf"), show_number(3.4794e-5), show_count(12345)) == ("inf", "3.479e-05", "12,345")


def test_utility_has_every_metric_with_its_interval_and_what_validation_had() -> None:
    page = shown(full(), history=HISTORY)
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
    page = shown(older, history=[{"round": 11, "mcc": 0.5, "auroc": 0.8}])
    assert "threshold 0.5581" in page
    for heading in ("By class", "Subgroups", "Records", "beside the hospitals"):
        assert f"{heading}</h3>" not in page
    assert "records left out" not in page
    assert "95% interval</th>" not in page


def test_the_worst_hospital_is_named_and_marked() -> None:
    hospitals = section(shown(full()), "At each hospital")
    assert "Worst served: <strong>hospital-02</strong>, with MCC\n0.375, against 0.512" in hospitals
    assert re.findall(r'<tr class="worst"><th scope="row">([^<]*)', hospitals) == ["hospital-02"]


def test_the_matrix_marks_its_worst_cell_and_has_a_dash_for_a_missing_one() -> None:
    matrix = section(shown(full()), "beside the hospitals' own")
    assert re.findall(r'<td class="worst">([^<]*)', matrix) == ["-0.111"]
    assert "<td>–</td>" in matrix


def test_subgroups_stand_under_their_attribute_and_only_a_compared_one_is_the_worst() -> None:
    subgroups = section(shown(full()), "Subgroups")
    assert re.findall(r'class="attribute"><th [^>]*>([^<]*)', subgroups) == ["sex", "age band"]
    assert re.findall(r'class="member worst"><th scope="row">([^<]*)', subgroups) == ["&lt;female&gt;"]


def test_who_holds_what_and_what_was_left_out_are_told() -> None:
    page = shown(full())
    for text in ("10,015", "777", "9,000", "How records were dealt: natural, by dataset", "lesions"):
        assert text in section(page, "Records")
    assert "60 records left out" in page
    assert page.count("there is no such file") == 50
    assert "and 10 more" in page


def test_more_classes_than_a_table_holds_get_no_columns() -> None:
    many = full()
    many["partition"]["hospitals"][0]["classes"] = {f"class-{i}": 1 for i in range(165)}
    assert "class-7" not in shown(many)


def test_segmentation_is_told_class_by_class_in_its_own_metrics() -> None:
    page = shown(segmentation(), history=[{"round": 7, "dice": 0.7, "hd95": "inf"}])
    classes = section(page, "By class")
    for text in ("spleen", "0.901", "1.50", "tumour", "0.841", "0.810 to 0.870"):
        assert text in classes
    assert ">background<" not in page
    assert "MCC" not in page
    assert "Round 7 was released: validation chose it by Dice." in page
    assert "HD95 (mm)" in shown(segmentation() | {"units": {"hd95": "mm"}})


def test_pictures_stand_where_they_belong_and_others_at_the_end() -> None:
    pictures = {"matrix": b"m", "subgroups": b"s", "partition": b"p", "dose_response": b"d"}
    page = shown(full(), pictures=pictures)
    headings = {"beside the hospitals' own": b"m", "Subgroups": b"s", "Records": b"p", "Dose response": b"d"}
    for heading, picture in headings.items():
        assert base64.b64encode(picture).decode() in section(page, heading)
    # Beside their pictures, the tables are folded.
    assert "<details open>" not in page
    assert page.count("<details open>") + 2 == shown(full()).count("<details open>")


def test_every_attack_has_its_picture() -> None:
    pictures = {"imprint_gradient": b"r", "linear_probe_gradient": b"s", "trap_weights_update": b"t"}
    page = shown(attacked(), reconstructions=pictures)
    page = page[page.index("Best reconstructions</h2>") :]
    # The last one belongs to no entry of the summary.
    headings = {"Imprint": b"r", "Linear probe": b"s", "Trap weights update": b"t"}
    assert re.findall(r"<h3>([^<]*)</h3>", page)[:3] == list(headings)
    for heading, picture in headings.items():
        assert base64.b64encode(picture).decode() in section(page, heading)
    assert "52.5% of 40 records rebuilt." in section(page, "Imprint")
    assert "records rebuilt" not in section(page, "Trap weights update")
    assert "Best reconstructions" not in shown(summary())


def test_the_history_is_the_summary_s_unless_another_is_given() -> None:
    trained = full() | {"validation_history": HISTORY}
    page = section(shown(trained), "Training")
    assert rows(page)[1:] == [["1", "–", "0.250"], ["11", "0.555", "0.125"]]
    assert "Training</h2>" not in shown(trained, history=[])


def test_who_took_part_and_what_the_clock_says_are_told() -> None:
    def own(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "used": 9, "offline": 0, "late": 0, "failed": 0, "course": "u" * 9,
                "simulated_s": 12.5, "sent_gb": 0.25, "eps_spent": 777.0, **more}  # fmt: skip

    entries = [own("hospital-01"), own("<hospital-02>", used=5, offline=3, late=1, simulated_s=90.0, eps_spent="inf")]
    found = summary() | {
        "participation": {"offline": 3, "late": 1, "hospitals": entries},
        "time": {"simulated_s": 18_432.0, "waited_for": {"hospital-01": 0.25, "<hospital-02>": 0.75}},
    }
    page = shown(found, pictures={"participation": b"who"})
    text = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())
    assert "all rounds and probes take 5 h 07 min :" in text
    assert "<hospital-02> held up 75.0% of them, more than any other hospital. Hospitals were offline" in text
    assert "offline 3 times and late 1 time;" in text
    assert "<hospital-02> 5 3 1 0 1 min 30 s 75.0% 0.25 inf" in text
    assert "hospital-01 9 0 0 0 12.5 s 25.0% 0.25 777" in text
    assert page.count(base64.b64encode(b"who").decode()) == 1
    alike = found | {"time": {"simulated_s": 1.0, "waited_for": {"hospital-01": 1.0, "<hospital-02>": 1.0}}}
    assert "more than any other hospital" not in shown(alike)
    assert "simulated clock" not in shown(summary())


def test_durations_are_written_in_the_units_that_people_use() -> None:
    seconds = (None, 0.0, 0.4249, 59.94, 59.96, 200, 3599.4, 3599.6, 18_432, 36_000_000)
    assert [show_duration(value) for value in seconds] == [
        "–", "0 s", "0.425 s", "59.9 s", "1 min 00 s", "3 min 20 s", "59 min 59 s", "1 h 00 min", "5 h 07 min",
        "10,000 h 00 min",
    ]  # fmt: skip
