"""Image files of any common format: what is read, at which size, and that a broken one is never taken for an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hbdp_fed.data import photographs
from hbdp_fed.data.bad_records import BadRecords
from hbdp_fed.data.photographs import photograph_preparation, read_photographs
from hbdp_fed.errors import DataFileError

SIZE = 16


def picture(seed: int = 0, side: int = 48) -> Image.Image:
    """A smooth random RGB image, which compression leaves as it is and broken bytes do not."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BILINEAR)


def write(path: Path, mode: str = "RGB", seed: int = 0, side: int = 48) -> Path:
    picture(seed, side).convert(mode).save(path)
    return path


def read(*paths: Path, mode: str = "L", policy: str = "stop", nearest: bool = False) -> NDArray[np.uint8]:
    images, _ = read_photographs(paths, mode=mode, image_size=SIZE, bad=BadRecords(policy), nearest=nearest)
    return images.numpy()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_whoever_follows_the_preparation_gets_the_same_pixels(mode: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.png")
    told = photograph_preparation(mode, SIZE).details
    method = getattr(Image.Resampling, told["resampling"].upper())
    with Image.open(path) as stored:
        pixels = np.asarray(stored.convert(told["mode"]).resize(tuple(reversed(told["size"])), method))
    np.testing.assert_array_equal(read(path, mode=mode)[0], np.atleast_3d(pixels).transpose(2, 0, 1))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
@pytest.mark.parametrize("ending", ["png", "jpeg", "bmp", "gif", "tiff"])
def test_common_formats_become_squares_of_the_wanted_mode(
    mode: str, channels: int, ending: str, tmp_path: Path
) -> None:
    images = read(write(tmp_path / f"a.{ending}"), mode=mode)
    assert images.shape == (1, channels, SIZE, SIZE)
    assert images.dtype == np.uint8
    expected = np.asarray(picture().convert(mode).resize((SIZE, SIZE), Image.Resampling.BILINEAR), dtype=float)
    if mode == "RGB":
        expected = expected.transpose(2, 0, 1)
    assert np.abs(images[0] - expected).mean() < 6


@pytest.mark.parametrize("stored", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_8_bit_mode_is_converted(stored: str, tmp_path: Path) -> None:
    images = read(write(tmp_path / "a.png", stored))
    grey = np.asarray(picture().convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR), dtype=float)
    assert abs(images.mean() - grey.mean()) < 8


def test_large_jpegs_are_read_at_a_fraction_and_look_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jpeg", side=640)
    expected = np.asarray(picture(side=640).convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR), dtype=float)
    assert np.abs(read(path)[0, 0] - expected).mean() < 4


def test_nearest_invents_no_grey_level(tmp_path: Path) -> None:
    mask = np.zeros((37, 53), dtype=np.uint8)
    mask[5:20, 9:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert set(np.unique(read(tmp_path / "mask.png", nearest=True))) == {0, 255}
    assert len(np.unique(read(tmp_path / "mask.png"))) > 2


def test_images_keep_their_order_over_several_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "_CHUNK", 3)
    paths = []
    for level in range(8):
        paths.append(tmp_path / f"{level}.png")
        Image.new("L", (SIZE, SIZE), 30 * level).save(paths[-1])
    paths[4].unlink()
    bad = BadRecords("skip")
    images, kept = read_photographs(paths, mode="L", image_size=SIZE, bad=bad)
    assert kept.tolist() == [0, 1, 2, 3, 5, 6, 7]
    assert images[:, 0, 0, 0].tolist() == [30 * number for number in kept.tolist()]
    assert bad.skipped == [f"{paths[4]}: there is no such file"]


def test_no_file_at_all_is_no_image() -> None:
    assert read().shape == (0, 1, SIZE, SIZE)


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def deepen(path: Path) -> None:
    Image.fromarray(np.full((SIZE, SIZE), 40000, dtype=np.uint16)).save(path, format="PNG")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = {
    "missing": (Path.unlink, "there is no such file"),
    "zero bytes": (lambda path: path.write_bytes(b""), "cannot be read"),
    "text": (lambda path: path.write_text("<html>404</html>"), "cannot be read"),
    "half": (lambda path: cut(path, 0.5), "cannot be read"),
    "nearly whole": (lambda path: cut(path, 0.9), "cannot be read"),
    "header alone": (lambda path: cut(path, 0.05), "cannot be read"),
    "16 bits": (deepen, "more than 8 bits"),
    "folder": (make_folder, "cannot be read"),
}


@pytest.mark.parametrize("ending", ["png", "jpeg"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_file_is_an_error_with_its_path_or_left_out(damage: str, ending: str, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.{ending}", seed=seed, side=300) for seed, name in enumerate("abc")]
    harm, message = DAMAGES[damage]
    harm(paths[1])
    with pytest.raises(DataFileError, match=message) as caught:
        read(*paths)
    assert caught.value.path == paths[1]
    assert "\n" not in str(caught.value)
    bad = BadRecords("skip")
    images, kept = read_photographs(paths, mode="L", image_size=SIZE, bad=bad)
    assert kept.tolist() == [0, 2]
    assert len(bad.skipped) == 1
    assert str(paths[1]) in bad.skipped[0]
    assert np.array_equal(images.numpy(), read(paths[0], paths[2]))


@pytest.mark.parametrize("ending", ["png", "jpeg"])
def test_a_cut_file_is_refused_or_complete(ending: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{ending}", side=64)
    whole, intact = read(path), path.read_bytes()
    accepted = 0
    for length in range(0, len(intact), 7):
        path.write_bytes(intact[:length])
        images = read(path, policy="skip")
        if len(images):
            # All pixels of a PNG are there before its last few bytes.
            assert np.array_equal(images, whole)
            accepted += 1
    assert accepted <= 3


@pytest.mark.parametrize("ending", ["png", "jpeg", "gif", "bmp"])
def test_random_damage_never_raises_anything_but_a_data_file_error(ending: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{ending}")
    intact = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(intact)
        for position in rng.integers(min(len(damaged), 1000), size=3):
            damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        read(path, policy="skip")
