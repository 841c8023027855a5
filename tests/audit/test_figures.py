from __future__ import annotations

import pytest
import torch
from matplotlib.image import imread

from hbdp_fed.audit import audit_probe, best_columns, reconstruction_figure, save_figure
from hbdp_fed.types import Reconstruction


def probe(originals, rebuilt, public, hospital="hospital-0"):
    reconstruction = Reconstruction(images=rebuilt, scores=torch.ones(len(rebuilt)))
    return audit_probe(reconstruction, originals, public, hospital=hospital, round=1), reconstruction, originals


def words(figure) -> str:
    return " ".join(
        [text.get_text() for text in figure.texts] + [axes.get_title() for axes in figure.axes if axes.get_title()]
    )


def test_the_best_come_first_each_with_its_original_and_hospital(images) -> None:
    public, first, second = images(9, seed=2), images(3, seed=1), images(3, seed=3)
    columns = best_columns(
        [probe(first, images(3, seed=4), public, "Aachen"), probe(second, second, public, "Bonn")], public, count=4
    )
    assert [column.hospital for column in columns] == ["Bonn"] * 3 + ["Aachen"]
    assert [column.success for column in columns] == [True] * 3 + [False]
    assert all(torch.equal(column.original, column.reconstruction) for column in columns[:3])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 8])
def test_a_figure_has_three_images_a_record(images, tmp_path, channels: int, count: int) -> None:
    originals, public = images(8, channels=channels, seed=1), images(9, channels=channels, seed=2)
    figure = reconstruction_figure(
        best_columns([probe(originals, originals, public)], public, count=count), title="imprint"
    )
    assert len(figure.axes) == 3 * count
    assert "hospital-0" in words(figure)
    assert "SSIM 1.00" in words(figure)
    save_figure(figure, tmp_path / "figures" / "best.png")
    assert imread(tmp_path / "figures" / "best.png").ndim == 3


def test_without_a_success_the_best_is_shown_and_the_figure_says_so(images) -> None:
    originals, public = images(3, seed=1), images(9, seed=2)
    figure = reconstruction_figure(best_columns([probe(originals, public[:3], public)], public), title="imprint")
    assert len(figure.axes) == 9
    assert "no success" in words(figure)


def test_without_a_reconstruction_the_figure_says_so(images) -> None:
    originals, public = images(3, seed=1), images(9, seed=2)
    figure = reconstruction_figure(best_columns([probe(originals, originals[:0], public)], public), title="imprint")
    assert figure.axes == []
    assert "no reconstruction" in words(figure)


def test_the_same_figure_is_the_same_bytes(images, tmp_path) -> None:
    originals, public = images(2, seed=1), images(9, seed=2)
    for name in ("a.png", "b.png"):
        columns = best_columns([probe(originals, originals, public)], public)
        save_figure(reconstruction_figure(columns, title="imprint"), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
