"""The pictures of utility show what the summary has, stay readable at any size, and invent nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hbdp_fed.audit import (
    as_png,
    matrix_figure,
    partition_figure,
    subgroup_figure,
    summary_figures,
    training_figure,
    wording,
)


def partition(hospitals: int = 4, classes: int = 7, **more: Any) -> dict[str, Any]:
    def entry(index: int) -> dict[str, Any]:
        counts = {f"class-{c}": 10 * index + c for c in range(classes)}
        train = sum(counts.values()) or 40 * index
        return {"name": f"hospital-{index:02d}", "train": train, "val": 5, "test": 9, "groups": 3 * index,
                "classes": counts}  # fmt: skip

    return {"scheme": "natural", "column": "dataset", "group": "lesion",
            "hospitals": [entry(index) for index in range(1, hospitals + 1)], **more}  # fmt: skip


def matrix(metric: str = "mcc") -> dict[str, Any]:
    rows = [("released", [0.7, 0.6]), ("Aachen", [0.72, 0.2]), ("Bonn", [None, 0.5])]
    return {"metric": metric, "hospitals": ["Aachen", "Bonn"],
            "rows": [{"model": model, "values": values} for model, values in rows]}  # fmt: skip


def subgroups() -> list[dict[str, Any]]:
    def entry(attribute: str, value: str, mcc: float | None, ends: list[float] | None) -> dict[str, Any]:
        return {"attribute": attribute, "value": value, "records": 100, "groups": 80, "mcc": mcc, "ci95": {"mcc": ends}}

    return [
        entry("sex", "female", 0.4, [0.3, 0.5]),
        entry("sex", "male", 0.5, [0.4, 0.6]),
        entry("skin_type", "I", 0.6, None),
        entry("skin_type", "VI", None, None),
    ]


def words(figure: Figure) -> set[str]:
    """Everything that is written in a figure, once it is drawn."""
    assert as_png(figure, dpi=40).startswith(b"\x89PNG")
    texts = [text.get_text() for text in figure.texts]
    for axes in [*figure.axes, *(child for parent in figure.axes for child in parent.child_axes)]:
        texts += [text.get_text() for text in (*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels())]
        texts += [axes.get_xlabel(), axes.get_ylabel()]
    for legend in [*figure.legends, *(axes.legend_ for axes in figure.axes if axes.legend_)]:
        texts += [text.get_text() for text in legend.get_texts()]
    return set(texts)


def bar_ends(axes: Axes) -> list[float]:
    bars = [list(container) for container in axes.containers if isinstance(container, BarContainer)]
    return [max(bar.get_x() + bar.get_width() for bar in row) for row in zip(*bars, strict=True)]


def test_a_hospital_s_bar_is_as_long_as_its_records_are_many() -> None:
    dealt = partition()
    figure = partition_figure(dealt)
    assert bar_ends(figure.axes[0]) == [hospital["train"] for hospital in dealt["hospitals"]]
    found = words(figure)
    assert {"hospital-01", "91 (3 lesions)", "class-0", "class-6", "natural partition by dataset"} <= found
    assert "other" not in " ".join(found)


def test_many_classes_get_ten_colours_and_one_for_the_others() -> None:
    dealt = partition(classes=165)
    figure = partition_figure(dealt)
    assert bar_ends(figure.axes[0]) == [hospital["train"] for hospital in dealt["hospitals"]]
    found = words(figure)
    assert {"class-164", "class-155", "other (155 classes)"} <= found
    assert "class-154" not in found
    colours = {bar.get_facecolor() for bar in figure.axes[0].patches if isinstance(bar, Rectangle)}
    assert len(colours) == 11


def test_without_classes_bars_are_plain() -> None:
    figure = partition_figure(partition(classes=0, group="record"))
    assert bar_ends(figure.axes[0]) == [40, 80, 120, 160]
    assert figure.legends == []
    assert "40" in words(figure)


def test_where_records_have_several_findings_the_figure_says_what_it_counts() -> None:
    dealt = partition()
    for hospital in dealt["hospitals"]:
        hospital["train"] = 50
    assert {"findings in the training records", "50 records (3 lesions)"} <= words(partition_figure(dealt))


def test_a_crowd_of_hospitals_is_drawn_row_by_row_and_an_endless_one_is_cut() -> None:
    fifty, hundred = partition_figure(partition(50)), partition_figure(partition(100))
    assert len(fifty.axes[0].get_yticks()) == 50
    # A row's label is 8 points high.
    assert fifty.get_figheight() / 50 > 8 / 72
    assert len(hundred.axes[0].get_yticks()) == 60
    assert any("40 more hospitals are not drawn" in text for text in words(hundred))


def test_shares_are_drawn_too_where_the_smallest_hospital_would_show_nothing() -> None:
    assert len(partition_figure(partition(4)).axes) == 1
    uneven = partition(3)
    uneven["hospitals"][0]["classes"] = {"class-0": 1, "class-1": 3}
    uneven["hospitals"][0]["train"] = 4
    uneven["hospitals"][1] |= {"train": 0, "classes": {}}
    figure = partition_figure(uneven)
    assert "shares" in words(figure)
    assert bar_ends(figure.axes[1]) == pytest.approx([1, 0, 1])


def frames(figure: Figure) -> list[tuple[float, float]]:
    """Row and column of every framed cell."""
    rectangles = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and not patch.get_fill()]
    return [(round(frame.get_y() + 0.5), round(frame.get_x() + 0.5)) for frame in rectangles]


@pytest.mark.parametrize(("metric", "worst"), [("mcc", (1, 1)), ("hd95", (1, 0))])
def test_the_worst_cell_is_framed_by_what_is_worse_for_the_metric(metric: str, worst: tuple[int, int]) -> None:
    figure = matrix_figure(matrix(metric))
    assert frames(figure) == [worst]
    assert {"0.72", "0.20", "released model", "Aachen", "Bonn"} <= words(figure)


def test_a_missing_cell_is_hatched_and_has_no_number() -> None:
    axes = matrix_figure(matrix()).axes[0]
    assert [patch.get_hatch() for patch in axes.patches].count("////") == 1
    assert len(axes.texts) == 5


def test_a_matrix_without_any_figure_frames_nothing() -> None:
    empty = matrix()
    for row in empty["rows"]:
        row["values"] = [None, None]
    figure = matrix_figure(empty)
    assert frames(figure) == []
    words(figure)


def test_better_is_lighter_whichever_way_the_metric_runs() -> None:
    def light(metric: str, row: int, column: int) -> float:
        (cells,) = matrix_figure(matrix(metric)).axes[0].collections
        return float(cells.get_array()[row, column, :3].sum())

    assert light("mcc", 0, 0) > light("mcc", 1, 1)
    assert light("hd95", 0, 0) < light("hd95", 1, 1)


def test_a_matrix_of_fifty_hospitals_has_every_number() -> None:
    names = [f"hospital-{index}" for index in range(50)]
    rows = [{"model": model, "values": [0.25] * 50} for model in ["released", *names]]
    figure = matrix_figure({"metric": "mcc", "hospitals": names, "rows": rows})
    assert [text.get_text() for text in figure.axes[0].texts] == [".25"] * 51 * 50


def test_subgroups_stand_under_their_attribute_with_interval_and_size() -> None:
    figure = subgroup_figure(subgroups(), "mcc", overall=0.45, group="patient")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["sex", "female", "male", "skin type", "I", "VI"]
    lines = [list(map(float, line.get_xdata())) for line in figure.axes[0].lines]
    assert [0.3, 0.5] in lines
    assert [0.6] in lines
    found = words(figure)
    assert {"100 records, 80 patients", "cannot be judged"} <= found
    assert any("dashed: all test records" in text for text in found)


def test_without_an_overall_figure_there_is_no_line_for_it() -> None:
    figure = subgroup_figure(subgroups(), "mcc")
    assert not any("dashed" in text for text in words(figure))
    assert "100 records" in words(figure)


def test_training_shows_whatever_metrics_there_are_and_leaves_gaps() -> None:
    history = [{"round": 1, "dice": None, "hd95": "inf"}, {"round": 2, "dice": 0.75, "hd95": 3.5}]
    figure = training_figure(history, ["dice", "hd95", "mcc"], chosen=2)
    assert {"Dice", "HD95", "round"} <= words(figure)
    assert "MCC" not in words(figure)
    values = [[float(value) for value in axes.lines[0].get_ydata()] for axes in figure.axes]
    assert [math.isnan(first) for first, _ in values] == [True, True]
    assert [second for _, second in values] == [0.75, 3.5]


def test_training_without_any_figure_is_an_empty_picture() -> None:
    words(training_figure([{"round": 1}], ["mcc"]))
    words(training_figure([{"round": 1, "mcc": None, "auroc": None}], ["mcc", "auroc"]))


def test_a_summary_gets_the_pictures_that_it_has_the_figures_for() -> None:
    summary = {"metrics": ["mcc"], "utility": {"mcc": 0.5}}
    assert summary_figures(summary) == {}
    empty = {"utility_matrix": None, "utility_by_subgroup": [], "partition": {"hospitals": []}}
    assert summary_figures(summary | empty) == {}
    full = summary | {"utility_matrix": matrix(), "utility_by_subgroup": subgroups(), "partition": partition()}
    assert list(summary_figures(full)) == ["partition", "matrix", "subgroups"]


def test_the_same_figure_is_the_same_bytes() -> None:
    assert as_png(matrix_figure(matrix())) == as_png(matrix_figure(matrix()))


def test_figures_are_written_as_people_read_them() -> None:
    assert wording.written("mcc", 0.51249) == "0.512"
    assert [wording.written("hd95", value) for value in (1.5, 12.345, "inf", None)] == ["1.50", "12.3", "inf", "-"]
    assert wording.with_interval("dice_1", {"dice_1": 0.871, "ci95": {"dice_1": [0.86, 0.88]}}) == (
        "0.871 (0.860 to 0.880)"
    )
    assert wording.with_interval("dice", {"dice": 0.871, "ci95": {"dice": None}}) == "0.871"
    assert [wording.label(name) for name in ("balanced_accuracy", "hd95_2", "new_one")] == [
        "balanced accuracy", "HD95", "new one",
    ]  # fmt: skip
    assert wording.label("hd95", {"hd95": "mm"}) == "HD95 (mm)"
    assert [wording.plural(word) for word in ("lesion", "study", "class", "day")] == [
        "lesions", "studies", "classes", "days",
    ]  # fmt: skip
    assert wording.counted(1, "study") == "1 study"


def test_the_worst_is_the_largest_where_less_is_better() -> None:
    entries = [{"ece": 0.1, "mcc": 0.2}, {"ece": 0.3, "mcc": 0.4}, {"ece": None, "mcc": None}]
    assert wording.worst("ece", entries) is entries[1]
    assert wording.best("ece", entries) is entries[0]
    assert wording.worst("mcc", entries) is entries[0]
    assert wording.worst("mcc", entries[2:]) is None
    assert wording.worst("hd95", [{"hd95": 3.0}, {"hd95": "inf"}]) == {"hd95": "inf"}
