"""What a person sees, in a terminal and in a log file."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from hbdp_fed.types import DpSgdParams, HospitalPlan
from simulations.terminal import progress, show_plan, show_result


def plans(count: int) -> list[HospitalPlan]:
    mechanism = DpSgdParams(noise_multiplier=4.7e-6, max_grad_norm=1.0, sample_rate=0.08, steps=241)
    return [HospitalPlan(f"hospital-{i:02d}", 400, mechanism, 9.99e11) for i in range(1, count + 1)]


def summary(**attack: Any) -> dict[str, Any]:
    figures = {
        "name": "imprint", "records": 40, "success_rate": 0.5, "success_rate_ci95": [0.35, 0.65], "ssim_max": 0.97,
        "baseline_success_rate": 0.1, "control_success_rate": 0.025, "share": 0.999, **attack,
    }  # fmt: skip
    hospitals = [{"eps_rdp": "inf", "eps_tight": 17.5}, {"eps_rdp": 3.0, "eps_tight": 2.5}]
    return {
        "dataset": "phantom",
        "model": "cnn",
        "clients": 2,
        "privacy": {"eps": "inf", "delta": 1e-5, "accountant": "rdp", "hospitals": hospitals},
        "utility": {"mcc": None, "auroc": 0.91, "accuracy": 0.8},
        "noise_to_resolution": [
            {"name": "hospital-01", "clipped_sum": 1234.0, "float64_delta": 4.8e7, "effectively_gaussian": True},
            {"name": "hospital-02", "clipped_sum": 311.0, "float64_delta": 5.8e7, "effectively_gaussian": True},
        ],
        "risk": {
            "worst_case": {"bound": 0.99999, "prior": 0.01, "attacks": []},
            "relaxed": {"bound": 0.25, "prior": 0.01, "attacks": []},
            "realistic": {"bound": None, "prior": None, "attacks": [figures]},
        },
    }


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def log_console() -> Console:
    return Console(file=io.StringIO(), width=120)


def test_the_plan_has_a_line_a_hospital_and_stays_short_for_many() -> None:
    console = log_console()
    show_plan(console, plans(50), title="Plan", noise_to_resolution=[(0.09, 4.8e7)] * 50)
    text = written(console)
    assert "hospital-20" in text
    assert "hospital-21" not in text
    assert "... 30 more" in text
    assert "4.7e-06" in text


def test_the_result_shows_utility_epsilon_bounds_and_attacks() -> None:
    console = log_console()
    show_result(console, summary())
    text = written(console)
    for part in ("AUROC 0.91", "MCC -", "inf by RDP", "at most 17.5", "bound above 0.999",
                 "at most 0.25 (a guess alone: 0.01)", "theory gives no bound",
                 "50.0% of 40 records rebuilt", "35.0% to 65.0%", "best SSIM 0.97", "score 2.5%", "0.999"):  # fmt: skip
        assert part in text


def test_the_result_says_how_fine_the_numbers_were_and_warns_where_they_were_too_coarse() -> None:
    console = log_console()
    show_result(console, summary())
    text = written(console)
    assert "at least 311 in the clipped sums, 4.8e+07 in the updates sent" in text
    assert "WARNING" not in text
    coarse = summary()
    coarse["noise_to_resolution"][1] |= {"clipped_sum": 2.5, "effectively_gaussian": False}
    console = log_console()
    show_result(console, coarse)
    text = " ".join(written(console).replace("│", " ").split())
    assert "at least 2.5 in the clipped sums" in text
    assert "WARNING: below 10 at hospital-02: the noise is not effectively Gaussian" in text
    assert "training.precision=float64" in text
    assert "hospital-01" not in text


def test_without_noise_the_result_says_so_and_does_not_warn() -> None:
    control = summary()
    for entry in control["noise_to_resolution"]:
        entry |= {"clipped_sum": None, "float64_delta": 0.0, "effectively_gaussian": None}
    console = log_console()
    show_result(console, control)
    assert "no noise" in written(console)
    assert "WARNING" not in written(console)


def test_an_attack_without_records_or_reconstructions_has_no_made_up_rate() -> None:
    console = log_console()
    show_result(console, summary(success_rate=None, success_rate_ci95=None, records=0))
    assert "no record was in the attacked batches" in written(console)
    console = log_console()
    show_result(
        console, summary(success_rate=0.0, success_rate_ci95=[0.0, 0.09], ssim_max=None, control_success_rate=None)
    )
    assert "nothing to show" in written(console)


def test_a_log_file_gets_about_ten_lines_whatever_the_number_of_rounds() -> None:
    console = log_console()
    with progress(console, rounds=300) as line:
        for i in range(300):
            line.advance(f"round {i}")
    lines = written(console).splitlines()
    assert 9 <= len(lines) <= 11
    assert lines[-1].startswith("[300/300]")


def test_a_terminal_gets_a_live_bar_with_the_time_left() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with progress(console, rounds=2) as line:
        line.advance("round 1")
        line.say("probing")
    text = written(console)
    assert "1/2" in text
    assert "left" in text
