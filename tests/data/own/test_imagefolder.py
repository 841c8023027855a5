"""Listed pictures that cannot be used, each with its kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hbdp_fed.data import load_dataset
from hbdp_fed.errors import DataFileError
from tests.data.own.writing import changed, write_manifest, write_pictures

OPTIONS = {"manifest": "own/manifest.csv", "image_size": 16, "class_names": ["no", "yes"]}


def _half_a_picture(folder: Path) -> Path:
    path = folder / "03.png"
    path.write_bytes(path.read_bytes()[:200])
    return path


def _no_picture(folder: Path) -> Path:
    (folder / "03.png").write_bytes(b"no picture")
    return folder / "03.png"


def _unknown_class(folder: Path) -> Path:
    changed(folder, label="perhaps")
    return folder / "03.png"


def _picture_of_fractions(folder: Path) -> Path:
    path = folder / "03.tiff"
    Image.fromarray(np.zeros((20, 24), np.float32)).save(path)
    changed(folder, path="03.tiff")
    return path


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (_half_a_picture, "truncated file: "),
        (_no_picture, "unreadable file: cannot be read"),
        (_unknown_class, "unknown label: has the label 'perhaps', but the classes are no, yes (or 0 to 1)"),
        (_picture_of_fractions, "wrong shape: has 32 bits a pixel"),
    ],
)
def test_a_bad_picture_is_named_with_its_kind_or_left_out(
    harm: Callable[[Path], Path], problem: str, tmp_path: Path
) -> None:
    write_pictures(tmp_path)
    path = harm(tmp_path / "own")
    with pytest.raises(DataFileError) as caught:
        load_dataset("imagefolder", root=tmp_path, options=OPTIONS)
    assert f"{path}: {problem}" in str(caught.value)
    dataset = load_dataset("imagefolder", root=tmp_path, options={**OPTIONS, "on_bad_record": "skip"})
    (line,) = dataset.skipped
    assert line.startswith(f"{path}: {problem}")
    assert sum(map(len, (dataset.train, dataset.val, dataset.test))) == 39


def test_a_mask_of_another_size_is_found_by_the_headers(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    folder = tmp_path / "own"
    Image.new("L", (24, 20), 255).save(folder / "mask.png")
    Image.new("L", (20, 24), 255).save(folder / "turned.png")
    rows = [{"path": f"{number:02d}.png", "mask": "turned.png" if number == 3 else "mask.png"} for number in range(40)]
    write_manifest(folder / "manifest.csv", rows)
    options = {**OPTIONS, "class_names": None}
    with pytest.raises(DataFileError, match=r"turned\.png: wrong shape: has 24x20 pixels, but its image 03\.png 20x24"):
        load_dataset("imagefolder", root=tmp_path, options=options)
