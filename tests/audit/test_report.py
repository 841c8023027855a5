"""The page shows the summary's figures, needs nothing beside it, and invents nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from hbdp_fed.audit import render_report
from hbdp_fed.audit.report import show_number, show_percent, training_figure

ATTACK = {
    "name": "imprint", "surface": "gradient", "records": 40, "success_rate": 0.525, "success_rate_ci95": [0.37, 0.67],
    "control_success_rate": 0.025, "baseline_success_rate": 0.1, "ssim_max": 0.973, "share": 0.999,
    "criterion": "SSIM > 0.8 & more",
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
            {"records": 200, "mcc": 0.7, "auroc": 0.9},
            {"records": 0, "mcc": None, "auroc": None},
        ],
        "risk": {
            "worst_case": {"bound": 0.25, "prior": 0.013, "attacks": []},
            "relaxed": {"bound": 0.125, "prior": 0.013, "attacks": []},
            "realistic": {"bound": None, "prior": None, "attacks": [{**ATTACK, **attack}]},
        },
    }  # fmt: skip


def test_the_page_is_well_formed_and_self_contained() -> None:
    page = render_report(summary(), history=[{"round": 1, "mcc": 0.5, "auroc": 0.8}], reconstructions=b"\x89PNG")
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


def test_the_page_shows_the_figures_and_no_others() -> None:
    page = render_report(summary())
    for text in (
        "52.5%",
        "37.0%",
        "67.0%",
        "2.5%",
        "0.9218",
        "0.973",
        "0.25",
        "0.125",
        "1.3%",
        "7044",
        "none in theory",
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
    assert (show_number(None), show_percent(None), show_number("inf"), show_number(3.4794e-5)) == (
        "–",
        "–",
        "inf",
        "3.479e-05",
    )


def test_the_training_figure_survives_missing_values() -> None:
    picture = training_figure([{"round": 1, "mcc": None, "auroc": None}, {"round": 2, "mcc": 0.1, "auroc": 0.6}])
    assert picture.startswith(b"\x89PNG")
