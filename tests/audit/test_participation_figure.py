"""The picture of who took part shows every hospital and round in its colour, and stays readable at any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from hbdp_fed.audit import as_png, summary_figures
from hbdp_fed.audit.participation_figure import STATUSES, participation_figure


def hospitals(*courses: str) -> list[dict[str, Any]]:
    return [
        {"name": f"hospital-{place:02d}", "course": course, "used": course.count("u")}
        for place, course in enumerate(courses, start=1)
    ]


def tints(figure: Figure) -> np.ndarray[Any, Any]:
    (mesh,) = [part for part in figure.axes[0].collections if isinstance(part, QuadMesh)]
    return np.asarray(mesh.get_array())


def named(figure: Figure) -> list[str]:
    assert as_png(figure, dpi=40).startswith(b"\x89PNG")
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_every_cell_has_the_colour_of_what_happened() -> None:
    figure = participation_figure(hospitals("uo.l", "ufuu"), rounds=3)
    expected = [[to_rgb(STATUSES[letter][1]) for letter in course] for course in ("uo.l", "ufuu")]
    np.testing.assert_allclose(tints(figure), expected)
    assert named(figure) == ["used", "not asked", "offline", "late", "failed"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["hospital-01", "hospital-02"]
    (right,) = figure.axes[0].child_axes
    assert [label.get_text() for label in right.get_yticklabels()] == ["1 of 4", "3 of 4"]
    assert "probes" in figure.texts[1].get_text()


def test_only_what_happened_is_in_the_legend_and_probes_are_told_of_where_there_are_some() -> None:
    figure = participation_figure(hospitals("uuo", "uuu"), rounds=3)
    assert named(figure) == ["used", "offline"]
    assert "probes" not in figure.texts[1].get_text()


def test_more_rounds_than_there_is_room_for_mix_their_colours() -> None:
    figure = participation_figure(hospitals("uo" * 450 + "u"), rounds=901)
    found = tints(figure)
    assert found.shape[1] <= 400
    used, offline = (np.array(to_rgb(STATUSES[letter][1])) for letter in "uo")
    # Three rounds a stripe: two used and one offline, or the other way round; the last stripe has one.
    np.testing.assert_allclose(found[0, 0], (2 * used + offline) / 3)
    np.testing.assert_allclose(found[0, 1], (used + 2 * offline) / 3)
    np.testing.assert_allclose(found[0, -1], used)


def test_a_crowd_is_cut_and_the_figure_says_so() -> None:
    figure = participation_figure(hospitals(*["uo"] * 70), rounds=2)
    assert tints(figure).shape[0] == 50
    assert figure.axes[0].get_xlabel() == "round; 20 more hospitals are not drawn"
    # A row's label is 7 points high.
    assert figure.get_figheight() / 50 > 7 / 72


@pytest.mark.parametrize(("course", "drawn"), [("uuu", False), ("uou", True), ("u.u", True)])
def test_the_picture_is_drawn_where_there_is_something_to_see(course: str, drawn: bool) -> None:
    summary = {"utility": {}, "rounds": 3, "participation": {"hospitals": hospitals("uuu", course)}}
    assert ("participation" in summary_figures(summary)) is drawn
