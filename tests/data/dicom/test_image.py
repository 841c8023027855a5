"""How bright each pixel of a DICOM file is shown, computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hbdp_fed.data.defects import UNREADABLE, Defect
from hbdp_fed.data.dicom.header import read_header
from hbdp_fed.data.dicom.image import dicom_preparation, read_dicom_image, shown
from tests.data.dicom.writing import Attributes, write_dicom

SLOPE, INTERCEPT, CENTER, WIDTH, FUNCTION = 0x00281053, 0x00281052, 0x00281050, 0x00281051, 0x00281056
MODALITY_TABLE, VOI_TABLE, DESCRIPTOR, DATA = 0x00283000, 0x00283010, 0x00283002, 0x00283006
VALUES = np.array([[0, 10, 20], [30, 40, 50]], dtype=np.uint16)


def bright(path: Path, *, window: tuple[float, float] | None = None) -> NDArray[np.float64]:
    return shown(read_header(path), window=window)


def written(tmp_path: Path, attributes: Attributes, pixels: NDArray[Any] = VALUES, **how: Any) -> Path:
    return write_dicom(tmp_path / "a", pixels, attributes, **how)


def test_a_window_is_about_values_after_rescaling(tmp_path: Path) -> None:
    path = written(tmp_path, {SLOPE: ("DS", 2), INTERCEPT: ("DS", -20), CENTER: ("DS", [99]), WIDTH: ("DS", [3])})
    np.testing.assert_allclose(bright(path, window=(0.0, 40.0)), [[0, 0, 0.5], [1, 1, 1]])


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # (x - (c - 0.5)) / (w - 1) + 0.5 with c = 25.5 and w = 51
        ("LINEAR", [[0, 0.2, 0.4], [0.6, 0.8, 1]]),
        # (x - c) / w + 0.5
        ("LINEAR_EXACT", [[0, 10 / 51, 20 / 51], [30 / 51, 40 / 51, 50 / 51]]),
        ("SIGMOID", (1 / (1 + np.exp(-4 * (VALUES - 25.5) / 51))).tolist()),
    ],
)
def test_without_one_the_first_window_of_the_file_is_taken(
    function: str, expected: list[list[float]], tmp_path: Path
) -> None:
    attributes = {CENTER: ("DS", [25.5, 1000]), WIDTH: ("DS", [51, 1]), FUNCTION: ("CS", function)}
    np.testing.assert_allclose(bright(written(tmp_path, attributes)), expected, atol=1e-12)


def test_a_table_is_taken_where_there_is_no_window(tmp_path: Path) -> None:
    """From 20 on: 0, 100, 200 of eight bits; what is outside takes the nearest end."""
    table = {DESCRIPTOR: ("US", [3, 20, 8]), DATA: ("OW", bytes([0, 0, 100, 0, 200, 0]))}
    pixels = np.array([[3, 20, 21], [22, 23, 900]], dtype=np.uint16)
    path = written(tmp_path, {VOI_TABLE: ("SQ", [table])}, pixels)
    np.testing.assert_allclose(bright(path) * 255, [[0, 0, 100], [200, 200, 200]])


def test_values_beyond_a_table_of_few_bits_take_its_end(tmp_path: Path) -> None:
    """Cut to the eight bits of an entry, 276 would be 20 again."""
    table = {DESCRIPTOR: ("US", [3, 20, 8]), DATA: ("OW", bytes([0, 0, 100, 0, 200, 0]))}
    pixels = np.array([[276, 20]], dtype=np.uint16)
    path = written(tmp_path, {VOI_TABLE: ("SQ", [table])}, pixels)
    np.testing.assert_allclose(bright(path) * 255, [[200, 0]])


def test_without_either_two_percentiles_are_taken(tmp_path: Path) -> None:
    values = np.arange(1000, dtype=np.uint16).reshape(40, 25)
    low, high = np.percentile(values, (0.5, 99.5))
    expected = np.clip((values - low) / (high - low), 0, 1)
    np.testing.assert_allclose(bright(written(tmp_path, {}, values)), expected, atol=1e-12)
    assert np.isfinite(bright(written(tmp_path, {}, np.full((4, 4), 7, np.uint16)))).all()


def test_a_modality_table_comes_before_the_window(tmp_path: Path) -> None:
    table = {DESCRIPTOR: ("US", [3, 10, 16]), DATA: ("US", [1000, 1500, 2000])}
    pixels = np.array([[10, 11, 12]], dtype=np.uint16)
    path = written(tmp_path, {MODALITY_TABLE: ("SQ", [table])}, pixels)
    np.testing.assert_allclose(bright(path, window=(1000.0, 2000.0)), [[0, 0.5, 1]])


def test_what_is_meant_to_be_seen_inverted_is_inverted(tmp_path: Path) -> None:
    attributes = {CENTER: ("DS", 25.5), WIDTH: ("DS", 51)}
    plain = bright(written(tmp_path, attributes))
    np.testing.assert_allclose(bright(written(tmp_path, attributes, photometric="MONOCHROME1")), 1 - plain)


def test_a_palette_gives_its_colours(tmp_path: Path) -> None:
    colours = {0x00281201: [0, 65535, 0], 0x00281202: [0, 0, 65535], 0x00281203: [65535, 0, 13107]}
    attributes = {
        **{tag - 0x100: ("US", [3, 5, 16]) for tag in colours},
        **{tag: ("OW", np.array(values, "<u2").tobytes()) for tag, values in colours.items()},
    }
    pixels = np.array([[5, 6, 7]], dtype=np.uint8)
    found = bright(written(tmp_path, attributes, pixels, photometric="PALETTE COLOR"))
    np.testing.assert_allclose(found, [[[0, 0, 1], [1, 0, 0], [0, 1, 0.2]]])


@pytest.mark.parametrize(
    "attributes",
    [
        {CENTER: ("DS", 10), WIDTH: ("DS", 0)},
        {CENTER: ("DS", 10), WIDTH: ("DS", "wide")},
        {CENTER: ("DS", "nan"), WIDTH: ("DS", 10)},
        {SLOPE: ("DS", 2)},
        {MODALITY_TABLE: ("SQ", [{DESCRIPTOR: ("US", [2, 0]), DATA: ("US", [1, 2])}])},
        {CENTER: ("DS", 10), WIDTH: ("DS", 5), FUNCTION: ("CS", "CUBIC")},
        {VOI_TABLE: ("SQ", [{DESCRIPTOR: ("US", [9, 0, 16]), DATA: ("US", [1, 2])}])},
        {VOI_TABLE: ("SQ", [{DESCRIPTOR: ("US", [2, 0, 16])}])},
    ],
)
def test_a_brightness_that_nobody_can_tell_is_refused(attributes: Attributes, tmp_path: Path) -> None:
    with pytest.raises(Defect) as caught:
        bright(written(tmp_path, attributes))
    assert caught.value.kind == UNREADABLE


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_an_image_has_the_size_and_the_channels_that_are_wanted(mode: str, channels: int, tmp_path: Path) -> None:
    colours = np.zeros((30, 20, 3), dtype=np.uint8)
    colours[..., 0] = 255
    path = written(tmp_path, {}, colours, photometric="RGB")
    image = read_dicom_image(path, mode=mode, size=(16, 16), window=None)
    assert image.shape == (channels, 16, 16)
    expected = torch.tensor([1.0, 0.0, 0.0] if mode == "RGB" else [0.299])[:, None, None]
    assert torch.allclose(image, expected.expand_as(image), atol=1e-6)
    grey = read_dicom_image(written(tmp_path, {}), mode=mode, size=(16, 16), window=(0.0, 50.0))
    assert grey.shape == (channels, 16, 16)
    assert 0 <= float(grey.min()) < float(grey.max()) <= 1


def test_the_preparation_says_which_window() -> None:
    fixed = dicom_preparation("L", 64, (-150, 250))
    assert "values from -150 to 250 become 0 to 1" in fixed.words
    assert fixed.details == {"mode": "L", "size": [64, 64], "resampling": "bilinear", "window": [-150, 250]}
    assert dicom_preparation("L", 64, None).details["window"] is None
