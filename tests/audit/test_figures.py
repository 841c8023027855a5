from __future__ import annotations

import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.image import BboxImage, imread
from matplotlib.patches import Rectangle

from hbdp_fed.audit import audit_probe, best_columns, reconstruction_figure, save_figure
from hbdp_fed.audit.columns import Column
from hbdp_fed.audit.criterion import Criterion
from hbdp_fed.audit.figures import budget_figure
from hbdp_fed.types import Reconstruction


def probe(originals, rebuilt, public, hospital="hospital-0"):
    reconstruction = Reconstruction(images=rebuilt, scores=torch.ones(len(rebuilt)))
    return audit_probe(reconstruction, originals, public, hospital=hospital, round=1), reconstruction, originals


def words(figure) -> str:
    return " ".join(text.get_text() for text in figure.texts)


def cells(figure) -> list[Rectangle]:
    """The frames, in the order in which they were drawn."""
    return [artist for artist in figure.artists if isinstance(artist, Rectangle)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 8])
def test_a_figure_has_three_images_a_record(images, tmp_path, channels: int, count: int) -> None:
    originals, public = images(8, channels=channels, seed=1), images(9, channels=channels, seed=2)
    figure = reconstruction_figure(
        best_columns([probe(originals, originals, public)], public, count=count), title="imprint"
    )
    assert len(cells(figure)) == len(pictures(figure)) == 3 * count
    assert "hospital-0" in words(figure)
    assert "SSIM 1.00" in words(figure)
    save_figure(figure, tmp_path / "figures" / "best.png")
    assert imread(tmp_path / "figures" / "best.png").ndim == 3


def test_without_a_success_the_best_is_shown_and_the_figure_says_so(images) -> None:
    originals, public = images(3, seed=1), images(9, seed=2)
    figure = reconstruction_figure(best_columns([probe(originals, public[:3], public)], public), title="imprint")
    assert len(cells(figure)) == 9
    assert "no success" in words(figure)


def test_without_a_reconstruction_the_figure_says_so(images) -> None:
    originals, public = images(3, seed=1), images(9, seed=2)
    figure = reconstruction_figure(best_columns([probe(originals, originals[:0], public)], public), title="imprint")
    assert cells(figure) == []
    assert "no reconstruction" in words(figure)


def test_the_same_figure_is_the_same_bytes(images, tmp_path) -> None:
    originals, public = images(2, seed=1), images(9, seed=2)
    for name in ("a.png", "b.png"):
        columns = best_columns([probe(originals, originals, public)], public)
        save_figure(reconstruction_figure(columns, title="imprint"), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def column(shape: tuple[int, ...] = (1, 12, 12), *, ssim: float = 0.5, success: bool = False) -> Column:
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    return Column(*images, ssim=ssim, success=success, hospital="hospital-0")


def pictures(figure) -> list[torch.Tensor]:
    return [torch.as_tensor(artist.get_array()) for artist in figure.artists if isinstance(artist, BboxImage)]


def framed(figure) -> list[bool]:
    return [to_hex(cell.get_edgecolor()) == "#b3261e" for cell in cells(figure)]


def test_the_figure_tells_which_rule_it_frames_by() -> None:
    figure = reconstruction_figure([column(success=True)], title="imprint", criterion=Criterion(0.65))
    assert "SSIM > 0.65" in words(figure)
    assert framed(figure) == [False, True, False]


@pytest.mark.parametrize("shape", [(1, 12, 14, 9), (3, 12, 14, 9), (1, 12, 14), (3, 12, 14), (4, 12, 14)])
def test_a_volume_shows_its_middle_slice_and_colours_are_kept(shape: tuple[int, ...]) -> None:
    shown = column(shape)
    figure = reconstruction_figure([shown], title="imprint")
    flat = shown.original[..., 4] if len(shape) == 4 else shown.original
    expected = flat.permute(1, 2, 0) if shape[0] == 3 else flat[0]
    assert torch.equal(pictures(figure)[0], expected)
    assert ("middle slice" in words(figure)) == (len(shape) == 4)


def test_a_long_title_widens_the_figure() -> None:
    short, long = (reconstruction_figure([column()], title=title) for title in ("imprint", "imprint " * 20))
    assert long.get_size_inches()[0] > short.get_size_inches()[0]


def test_each_budget_has_its_best_pairs_and_empty_cells_for_what_is_missing(tmp_path) -> None:
    rows = [
        ("eps = 1", []),
        ("eps = 1e+09\n1 of 7 rebuilt", [column(ssim=0.1 * n, success=n == 2) for n in range(7)]),
        ("eps = inf", [column(ssim=0.99, success=True)]),
    ]
    figure = budget_figure(rows, title="imprint")
    assert [cell.get_fill() for cell in cells(figure)] == [True] * 10 + [False] * 12 + [True] * 8
    assert len(pictures(figure)) == 12
    text = words(figure)
    for part in ("imprint", "eps = 1e+09", "1 of 7 rebuilt", "eps = inf", "SSIM 0.99", "SSIM 0.30"):
        assert part in text
    # The success comes first although its SSIM is small, and four of the six others follow.
    assert [text.index(f"SSIM {ssim}") for ssim in ("0.20", "0.60", "0.50", "0.40", "0.30")] == sorted(
        text.index(f"SSIM {ssim}") for ssim in ("0.20", "0.60", "0.50", "0.40", "0.30")
    )
    assert "SSIM 0.10" not in text
    assert [number for number, leak in enumerate(framed(figure)) if leak] == [11, 21]
    first, best = cells(figure)[0], cells(figure)[20]
    assert first.get_y() > best.get_y() + best.get_height()
    save_figure(figure, tmp_path / "budget.png")
    assert imread(tmp_path / "budget.png").shape[1] == 1500


def test_pairs_are_original_and_reconstruction() -> None:
    shown = column((1, 12, 14, 9))
    figure = budget_figure([("eps = inf", [shown])], title="imprint", count=2)
    assert torch.equal(pictures(figure)[0], shown.original[0, :, :, 4])
    assert torch.equal(pictures(figure)[1], shown.reconstruction[0, :, :, 4])
    assert "middle slice" in words(figure)
    # The reading aid is no reason for more than 1500 pixels.
    assert budget_figure([("eps = inf", [shown])], title="imprint").get_size_inches()[0] == pytest.approx(10)


def test_no_budget_is_an_empty_figure() -> None:
    assert cells(budget_figure([], title="imprint")) == []
