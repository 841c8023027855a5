"""Listed DICOM: files as images, series as volumes, and what is wrong with either."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from hbdp_fed.data import ImageDataset, load_dataset
from hbdp_fed.data.dicom.series import read_series
from hbdp_fed.errors import DataFileError, SettingError
from tests.data.dicom.writing import CT, POSITION, write_dicom
from tests.data.own.writing import read_manifest, write_manifest, write_radiographs, write_scans

COUNT = 10
SERIES = {"image_size": [18, 16, 16], "window": [-1000, -400]}


def load(root: Path, **options: Any) -> ImageDataset:
    given = {"manifest": "own/manifest.csv", "val_fraction": 0.2, **options}
    return load_dataset("dicom", root=root, options=given)


def everything(dataset: ImageDataset) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {
        name: (image, labels)
        for part in (dataset.train, dataset.val, dataset.test)
        for name, image, labels in zip(part.names, part.images, part.labels, strict=True)
    }


def test_a_series_is_a_volume_with_its_outline_the_right_way_round(tmp_path: Path) -> None:
    """The outlined block is brighter: 255 of 0 to 50 before rescaling, 510 HU after it."""
    write_scans(tmp_path, COUNT)
    dataset = load(tmp_path, **SERIES)
    assert (dataset.task, dataset.group, dataset.spacing) == ("segmentation", "volume", (1.5, 2.0, 3.0))
    for image, labels in everything(dataset).values():
        inside = labels == 1
        assert int(inside.sum()) == 4 * 6 * 6
        # (2 * 255 - 1000 + 1000) / 600, and no more than (2 * 50) / 600 outside.
        assert float(image[0][inside].min()) >= 510 / 600
        assert float(image[0][~inside].max()) <= 100 / 600 + 1e-6


def test_the_mask_of_a_series_may_be_a_nifti_file(tmp_path: Path) -> None:
    """On the grid of the series, its axes in another order."""
    write_scans(tmp_path, COUNT)
    before = everything(load(tmp_path, **SERIES))
    rows = read_manifest(tmp_path / "own/manifest.csv")
    for row in rows:
        folder = tmp_path / "own" / row["path"]
        series = read_series(folder, root=tmp_path)
        outlines = [np.asarray(Image.open(folder.parent / f"outline/o{number}.png")).T for number in range(10)]
        mask = np.stack(outlines[::-1], axis=-1) // 255
        image = nibabel.as_closest_canonical(nibabel.Nifti1Image(mask.astype(np.uint8), series.affine))
        nibabel.save(image, folder.parent / "mask.nii.gz")
        row["mask"] = row["mask"].replace("outline", "mask.nii.gz")
    write_manifest(tmp_path / "own/manifest.csv", rows)
    after = everything(load(tmp_path, **SERIES))
    assert all(torch.equal(after[name][1], labels) for name, (_, labels) in before.items())


def test_a_file_is_an_image(tmp_path: Path) -> None:
    write_radiographs(tmp_path)
    dataset = load(tmp_path, image_size=16, window=[0, 4095])
    assert (dataset.task, dataset.class_names, dataset.group) == ("binary", ("no", "yes"), "image")
    assert dataset.train.images.shape[1:] == (1, 16, 16)
    assert dataset.preparation is not None
    assert dataset.preparation.kind == "dicom"
    # Every image is uniform noise of twelve bits.
    assert abs(float(dataset.train.images.mean()) - 0.5) < 0.02


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"image_size": 8}, r"^data\.image_size: must be an integer of at least 16"),
        ({"image_size": [16, 16]}, r"^data\.image_size: must be three numbers"),
        ({"image_size": "abc"}, r"^data\.image_size: must be one number for files, or three for series"),
        ({"image_size": None}, r"^data\.image_size: must be one number for files, or three for series"),
        ({"window": [5, 1]}, r"^data\.window: must be two"),
        ({"mode": "P"}, r"^data\.mode: 'P' is not known"),
        ({"image_size": [16, 16, 16], "fit": "stretch"}, r"^data\.fit: 'stretch' is not known"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], told: str, tmp_path: Path) -> None:
    write_radiographs(tmp_path)
    with pytest.raises(SettingError, match=told):
        load(tmp_path, **options)


def _slice_cut_off(folder: Path) -> Path:
    path = folder / "03/ct/IM4.dcm"
    path.write_bytes(path.read_bytes()[:-40])
    return path


def _slice_missing(folder: Path) -> Path:
    (folder / "03/ct/IM4.dcm").unlink()
    return folder / "03/ct"


def _outline_missing(folder: Path) -> Path:
    (folder / "03/outline/o4.png").unlink()
    return folder / "03/outline"


def _outline_too_small(folder: Path) -> Path:
    path = folder / "03/outline/o4.png"
    Image.new("L", (18, 15)).save(path)
    return path


def _nothing_outlined(folder: Path) -> Path:
    for path in (folder / "03/outline").iterdir():
        Image.new("L", (18, 16)).save(path)
    return folder / "03/outline"


def _tilted(folder: Path) -> Path:
    for number in range(10):
        path = folder / f"03/ct/IM{number}.dcm"
        position = ("DS", [-10, -30 + number, -20 + 3 * number])
        write_dicom(path, np.zeros((16, 18), np.int16), {**CT, POSITION: position})
    return folder / "03/ct"


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (_slice_cut_off, "truncated file: ends 40 bytes before its pixels do"),
        (_slice_missing, "wrong shape: has slices 3 mm apart, but 6 mm between IM5.dcm and IM3.dcm"),
        (_outline_missing, "wrong shape: has 18 x 16 x 9 voxels, but its image ct 18 x 16 x 10"),
        (_outline_too_small, "wrong shape: has 15x18 pixels, but its slice 16x18"),
        (_nothing_outlined, "mask without the class: holds nothing but background"),
        (_tilted, "wrong orientation: has slices that are shifted by up to 9 mm against each other: a tilted gantry"),
    ],
)
def test_a_bad_series_is_named_with_its_kind_or_left_out(
    harm: Callable[[Path], Path], problem: str, tmp_path: Path
) -> None:
    write_scans(tmp_path, COUNT)
    path = harm(tmp_path / "own")
    with pytest.raises(DataFileError) as caught:
        load(tmp_path, **SERIES)
    assert f"{path}: {problem}" in str(caught.value)
    dataset = load(tmp_path, **SERIES, on_bad_record="skip")
    (line,) = dataset.skipped
    assert line.startswith(f"{path}: {problem}")
    assert sum(map(len, (dataset.train, dataset.val, dataset.test))) == COUNT - 1


def test_files_and_series_are_not_mixed(tmp_path: Path) -> None:
    write_scans(tmp_path, COUNT)
    with pytest.raises(DataFileError, match=r"is a folder; volumes are read with three numbers as data\.image_size"):
        load(tmp_path, image_size=16)
    write_radiographs(tmp_path)
    with pytest.raises(DataFileError, match="is a file; a volume is the folder of its slices"):
        load(tmp_path, image_size=[16, 16, 16])
