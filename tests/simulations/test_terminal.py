"""What a person sees, in a terminal and in a log file."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from rich.console import Console

from hbdp_fed.types import DpSgdParams, HospitalPlan, PatientCount
from simulations.terminal import show_partition, show_plan, show_result, show_skipped


def plans(count: int) -> list[HospitalPlan]:
    mechanism = DpSgdParams(noise_multiplier=4.7e-6, max_grad_norm=1.0, sample_rate=0.08, steps=241)
    return [HospitalPlan(f"hospital-{i:02d}", 400, mechanism, 9.99e11) for i in range(1, count + 1)]


def summary(**attack: Any) -> dict[str, Any]:
    figures = {
        "name": "imprint", "records": 40, "success_rate": 0.5, "success_rate_ci95": [0.35, 0.65], "ssim_max": 0.97,
        "baseline_success_rate": 0.1, "control_success_rate": 0.025, "share": 0.999,
        "kind": "reconstruction", "surface": "gradient", **attack,
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


def test_the_plan_counts_patients_where_they_are_the_unit() -> None:
    console = log_console()
    own = [replace(plan, patients=PatientCount(123, 321)) for plan in plans(2)]
    show_plan(console, own, title="Plan", noise_to_resolution=[(0.09, 4.8e7)] * 2, unit="lesion")
    assert "lesions" in written(console)
    assert written(console).count("123") == 2


def test_what_a_denoiser_gained_is_told_where_anything_was_rebuilt() -> None:
    cleaned = {"success_rate": 0.6, "success_rate_ci95": [0.4, 0.7], "ssim_mean": 0.5, "ssim_median": 0.5}
    for own, told in [({"ssim_max": 0.9, "ssim_gain": 0.07}, True), ({"ssim_max": None, "ssim_gain": 0.0}, False)]:
        console = log_console()
        show_result(console, summary(denoised={**cleaned, **own}))
        assert ("after the denoiser 60.0% rebuilt; SSIM +0.07 on average, best 0.90" in written(console)) == told


def test_the_result_shows_utility_epsilon_bounds_and_attacks() -> None:
    console = log_console()
    show_result(console, summary())
    text = written(console)
    for part in ("AUROC 0.91", "MCC -", "inf by RDP", "at most 17.5", "bound above 0.999",
                 "at most 0.25 (a guess alone: 0.01)", "theory gives no bound",
                 "50.0% of 40 records rebuilt", "35.0% to 65.0%", "best SSIM 0.97", "score 2.5%", "0.999"):  # fmt: skip
        assert part in text


def shown(value: dict[str, Any]) -> str:
    """The result's text without its frame, on one line."""
    console = log_console()
    show_result(console, value)
    return " ".join(written(console).replace("│", " ").split())


def test_utility_has_its_intervals_and_no_figure_is_broken_over_two_lines() -> None:
    names = ["mcc", "auroc", "accuracy", "balanced_accuracy", "ece"]
    figures = dict.fromkeys(names, 0.512)
    figures |= {"ece": 0.03125, "ci95": {name: [0.4711, 0.5532] for name in names[:4]} | {"ece": None}}
    console = log_console()
    show_result(console, summary() | {"metrics": names, "utility": figures})
    lines = written(console).splitlines()
    for part in ("MCC 0.512 (0.471 to 0.553)   AUROC 0.512 (0.471 to 0.553)",
                 "balanced accuracy 0.512 (0.471 to 0.553)", "calibration error 0.031 "):  # fmt: skip
        assert any(part in line for line in lines)
    assert "worst" not in written(console).replace("worst case", "")


def test_segmentation_has_a_line_a_class_and_its_unit_only_where_one_is_given() -> None:
    figures = {"dice": 0.871, "hd95": 1.5, "dice_1": 0.9, "hd95_1": 12.34, "dice_2": 0.842, "hd95_2": "inf",
               "ci95": {"dice": [0.86, 0.88], "hd95": None, "dice_2": [0.8, 0.9]}}  # fmt: skip
    value = summary() | {
        "metrics": ["dice", "hd95"], "utility": figures, "class_names": ["background", "spleen", "[tumour]"],
    }  # fmt: skip
    text = shown(value)
    for part in ("Dice 0.871 (0.860 to 0.880) HD95 1.50", "spleen: Dice 0.900 HD95 12.3",
                 "[tumour]: Dice 0.842 (0.800 to 0.900) HD95 inf"):  # fmt: skip
        assert part in text
    assert "mm" not in text
    assert "HD95 12.3 mm" in shown(value | {"units": {"hd95": "mm"}})


def test_the_worst_hospital_and_the_worst_subgroup_of_each_attribute_are_named() -> None:
    def entry(attribute: str, value: str, mcc: float | None) -> dict[str, Any]:
        return {"attribute": attribute, "value": value, "records": 90, "groups": 70, "mcc": mcc,
                "ci95": {"mcc": None if mcc is None else [0.31, 0.52]}}  # fmt: skip

    value = summary() | {
        "partition": {"group": "lesion"},
        "worst_hospital": {"name": "rosendahl", "metric": "mcc", "value": 0.3251},
        "utility_per_hospital": [{"name": "rosendahl", "records": 1, "mcc": 0.3251, "ci95": {"mcc": [0.2, 0.4]}}],
        "utility_by_subgroup": [
            entry("sex", "female", 0.412), entry("sex", "male", 0.5), entry("sex", "unknown", None),
            entry("skin_type", "VI", None),
        ],
    }  # fmt: skip
    text = shown(value)
    assert "worst hospital rosendahl: MCC 0.325 (0.200 to 0.400), 1 record" in text
    assert "sex: female MCC 0.412 (0.310 to 0.520), 90 records, 70 lesions; best male 0.500" in text
    assert "skin type: no group can be judged" in text


def partition(hospitals: int, classes: dict[str, int], group: str = "lesion") -> dict[str, Any]:
    return {
        "scheme": "natural", "column": "dataset", "group": group,
        "hospitals": [
            {"name": f"hospital-{i:02d}", "train": 2766, "val": 4, "test": 5, "groups": 777, "classes": classes}
            for i in range(1, hospitals + 1)
        ],
    }  # fmt: skip


def test_who_holds_what_has_a_line_a_hospital_and_a_column_a_class() -> None:
    console = log_console()
    show_partition(console, partition(30, {"nv": 2590, "mel": 176}))
    text = written(console)
    for part in ("natural partition by dataset", "lesions", "2,766", "777", "nv", "2,590", "176", "... 10 more"):
        assert part in text
    assert "hospital-21" not in text


def test_many_classes_or_long_names_share_one_column() -> None:
    many = {f"class-{i}": i for i in range(165)}
    long = {f"{'long' * 4}-{i}": i for i in range(8)}
    for classes, part in ((many, "class-164: 164, class-163: 163, class-162: 162 and 161 more"), (long, "and 4 more")):
        console = log_console()
        show_partition(console, partition(2, classes, group="record"))
        text = " ".join(written(console).replace("│", " ").split())
        assert part in text
        assert "777" not in text


def test_a_partition_without_classes_or_hospitals_is_short() -> None:
    console = log_console()
    show_partition(console, partition(1, {}))
    assert "hospital-01" in written(console)
    assert "classes" not in written(console)
    console = log_console()
    show_partition(console, {})
    assert written(console) == ""


def test_left_out_records_are_counted_and_the_first_ones_named() -> None:
    console = log_console()
    show_skipped(console, [f"/data/[bold]{i}.jpg: {'there is no such file ' * 10}" for i in range(8)])
    lines = written(console).splitlines()
    assert lines[0] == "left out 8 records (data.on_bad_record=skip):"
    assert [line[:16] for line in lines[1:6]] == [f"  /data/[bold]{i}." for i in range(5)]
    assert lines[6:] == ["  and 3 more"]
    console = log_console()
    show_skipped(console, ["/data/a.jpg: broken"])
    assert written(console) == "left out 1 record (data.on_bad_record=skip):\n  /data/a.jpg: broken\n"
    console = log_console()
    show_skipped(console, [])
    assert written(console) == ""


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
