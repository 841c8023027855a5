"""Pictures as hospitals have them: 16 bits, transparent, with a palette, lying on their side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hbdp_fed.data.defects import EMPTY, MISSING, SHAPE, TRUNCATED, UNREADABLE, Defect
from hbdp_fed.data.pictures import (
    ORIENTATION_TAG,
    is_deep,
    picture_preparation,
    read_mask,
    read_picture,
    upright_size,
)

SIZE = (16, 16)


def smooth(side: int = 32) -> np.ndarray:
    """A ramp in both directions, uint16, which scaling leaves a ramp."""
    ramp = np.linspace(0, 65535, side)
    return np.rint((ramp[:, None] + ramp[None]) / 2).astype(np.uint16)


def saved(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path)
    return path


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_sixteen_bits_are_scaled_by_their_full_range(mode: str, channels: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", smooth())
    assert is_deep(path)
    image = read_picture(path, mode=mode, size=(32, 32))
    assert image.dtype == torch.float32
    expected = torch.from_numpy(smooth() / np.float32(65535)).expand(channels, 32, 32)
    assert torch.equal(image, expected)
    # The mean of each block of four pixels is that of the half-sized picture, up to the filter's edge.
    half = read_picture(path, mode=mode, size=SIZE)[0, 2:-2, 2:-2].numpy()
    blocks = (smooth() / 65535).reshape(16, 2, 16, 2).mean(axis=(1, 3))[2:-2, 2:-2]
    np.testing.assert_allclose(half, blocks, atol=1e-3)


def test_twelve_bits_in_sixteen_keep_their_steps(tmp_path: Path) -> None:
    """Eight bits would leave 16 of 4096."""
    image = read_picture(saved(tmp_path / "a.png", smooth() // 16), mode="L", size=(32, 32))
    assert len(torch.unique(image)) > 60


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_eight_bits_are_bytes(ending: str, tmp_path: Path) -> None:
    pixels = (smooth() // 257).astype(np.uint8)
    path = saved(tmp_path / f"a.{ending}", pixels)
    assert not is_deep(path)
    np.testing.assert_array_equal(read_picture(path, mode="L", size=(32, 32))[0].numpy(), pixels)


def test_a_grey_jpeg_is_grey_in_both_modes(tmp_path: Path) -> None:
    pixels = (smooth() // 257).astype(np.uint8)
    path = saved(tmp_path / "a.jpeg", pixels)
    grey, colours = (read_picture(path, mode=mode, size=SIZE) for mode in ("L", "RGB"))
    assert torch.equal(colours, grey.expand(3, *SIZE))
    expected = np.asarray(Image.fromarray(pixels).resize(SIZE, Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(grey[0].numpy() - expected).max() < 6


def test_what_is_transparent_is_black_whatever_colour_is_stored_there(tmp_path: Path) -> None:
    pixels = np.full((16, 16, 4), 200, dtype=np.uint8)
    pixels[:8, :, 3], pixels[8:, :, 3], pixels[:, 8:, 3] = 0, 255, 128
    image = read_picture(saved(tmp_path / "a.png", pixels), mode="RGB", size=SIZE)
    assert set(torch.unique(image[:, :8, :8]).tolist()) == {0}
    assert set(torch.unique(image[:, 8:, :8]).tolist()) == {200}
    assert set(torch.unique(image[:, :, 8:]).tolist()) == {round(200 * 128 / 255)}


def test_a_palette_gives_its_colours(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8).repeat(8, 0).repeat(8, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30])
    picture.save(tmp_path / "a.png")
    image = read_picture(tmp_path / "a.png", mode="RGB", size=SIZE)
    assert [image[:, y, x].tolist() for y, x in ((0, 0), (0, 15), (15, 0))] == [[255, 0, 0], [0, 255, 0], [10, 20, 30]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpeg", "png"])
def test_a_picture_is_turned_upright(orientation: int, ending: str, tmp_path: Path) -> None:
    """Each tag undone by hand, from the place that row 0 and column 0 are said to be in (EXIF 2.3, 4.6.4)."""
    upright = np.zeros((16, 32), dtype=np.uint8)
    upright[:8, :16] = 255
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
        6: upright.T[::-1], 7: upright.T[::-1, ::-1], 8: upright.T[:, ::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    assert upright_size(path) == (16, 32)
    image = read_picture(path, mode="L", size=(16, 32))[0].numpy()
    np.testing.assert_allclose(image, upright, atol=40 if ending == "jpeg" else 0)


def test_brightness_that_nobody_can_tell_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tiff", smooth().astype(np.float32))
    for read in (is_deep, lambda path: read_picture(path, mode="L", size=SIZE)):
        with pytest.raises(Defect, match="32 bits a pixel") as caught:
            read(path)
        assert caught.value.kind == SHAPE


@pytest.mark.parametrize(
    ("content", "kind"),
    [(None, MISSING), (b"", EMPTY), (b"no picture", UNREADABLE), ("half", TRUNCATED)],
)
def test_what_cannot_be_read_is_told_apart(content: bytes | str | None, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    if content == "half":
        noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
        whole = saved(path, noise).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(Defect) as caught:
        read_picture(path, mode="L", size=SIZE)
    assert (caught.value.kind, caught.value.path) == (kind, path)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_a_black_and_white_mask_is_the_same_however_it_is_stored(mode: str, tmp_path: Path) -> None:
    mask = np.zeros((8, 9), dtype=np.uint8)
    mask[2:5, 3:7] = 255
    found = read_mask(saved(tmp_path / "a.png", mask, mode))
    np.testing.assert_array_equal(found > 0, mask > 0)


@pytest.mark.parametrize("is_inverted", [False, True])
def test_the_colours_of_a_black_and_white_palette_decide(is_inverted: bool, tmp_path: Path) -> None:
    mask = np.zeros((8, 9), dtype=np.uint8)
    mask[2:5, 3:7] = 1
    picture = Image.fromarray(1 - mask if is_inverted else mask)
    picture.putpalette([255, 255, 255, 0, 0, 0] if is_inverted else [0, 0, 0, 255, 255, 255])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), mask * 255)


def test_the_numbers_of_a_coloured_palette_are_classes(tmp_path: Path) -> None:
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    picture = Image.fromarray(mask)
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), mask)
    with pytest.raises(Defect, match="mask with colours"):
        read_mask(saved(tmp_path / "b.png", np.asarray(picture.convert("RGB"))))


def test_the_preparation_says_what_is_done() -> None:
    told = picture_preparation("RGB", 32)
    assert (told.kind, told.details["mode"], told.details["size"]) == ("picture", "RGB", [32, 32])
    assert "65535" in told.words
