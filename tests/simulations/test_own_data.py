"""Records of a manifest that cannot be used: every kind is named with its path before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from hbdp_fed.data import load_dataset
from tests.data.dicom.writing import write_dicom
from tests.data.own.writing import (
    changed,
    write_radiographs,
    write_volume,
    write_volumes,
)
from tests.simulations.refusing import refusal

COUNT = 10

TRAINING = (
    "clients=2", "engine=inprocess", "eps=1e9", "training.rounds=1", "training.local_steps=1",
    "training.learning_rate=0.1", "training.expected_batch=4", "training.max_grad_norm=1", "evaluation.bootstrap=0",
    "adversary.attack=none", "data.manifest=own/manifest.csv", "data.val_fraction=0.2",
)  # fmt: skip
VOLUMES = ("data=nifti", "data.image_size=[16,16,16]", "model=unet", "model.width=8", *TRAINING)
PICTURES = ("data=imagefolder", "data.image_size=16", "model=cnn", "model.width=4", *TRAINING)
RADIOGRAPHS = ("data=dicom", "data.image_size=16", "model=cnn", "model.width=4", *TRAINING)

Harm = Callable[[Path], Path]
"""Breaks a record of a set in its folder, and says which file is to be named."""


# Of volumes, and of whatever has a row.


def _truncated(folder: Path) -> Path:
    path = folder / "images/03.nii.gz"
    path.write_bytes(path.read_bytes()[:900])
    return path


def _zero_bytes(folder: Path) -> Path:
    path = folder / "masks/03.nii.gz"
    path.write_bytes(b"")
    return path


def _not_a_number(folder: Path) -> Path:
    path = folder / "images/03.nii.gz"
    voxels = nibabel.load(path).get_fdata().astype(np.float32)
    voxels[4, 4, 4] = np.nan
    return write_volume(path, voxels)


def _mask_of_another_shape(folder: Path) -> Path:
    return write_volume(folder / "masks/03.nii.gz", np.ones((18, 16, 16), np.uint8))


def _image_of_a_plane(folder: Path) -> Path:
    return write_volume(folder / "images/03.nii.gz", np.ones((18, 16), np.float32))


def _empty_mask(folder: Path) -> Path:
    return write_volume(folder / "masks/03.nii.gz", np.zeros((18, 16, 17), np.uint8))


def _missing(folder: Path) -> Path:
    (folder / "images/03.nii.gz").unlink()
    return folder / "images/03.nii.gz"


def _mask_turned_round(folder: Path) -> Path:
    """The matrix says left where the image's says right."""
    path = folder / "masks/03.nii.gz"
    return write_volume(path, nibabel.load(path).get_fdata().astype(np.uint8), np.diag([-1.0, 1.0, 2.0, 1.0]))


def _mask_of_larger_voxels(folder: Path) -> Path:
    path = folder / "masks/03.nii.gz"
    return write_volume(path, nibabel.load(path).get_fdata().astype(np.uint8), np.diag([1.0, 1.0, 3.0, 1.0]))


def _label_out_of_range(folder: Path) -> Path:
    path = folder / "masks/03.nii.gz"
    return write_volume(path, 3 * nibabel.load(path).get_fdata().astype(np.uint8))


def _id_twice(folder: Path) -> Path:
    changed(folder, id="v1")
    return folder / "images/03.nii.gz"


def _path_twice(folder: Path) -> Path:
    changed(folder, path="images/01.nii.gz")
    return folder / "images/01.nii.gz"


def _up_and_out(folder: Path) -> Path:
    changed(folder, mask="../masks/03.nii.gz")
    return folder / "../masks/03.nii.gz"


def _absolute(folder: Path) -> Path:
    changed(folder, path=str(folder / "images/03.nii.gz"))
    return folder / "images/03.nii.gz"


def _link_out(folder: Path) -> Path:
    path = folder / "images/03.nii.gz"
    path.rename(folder.parent / "elsewhere.nii.gz")
    path.symlink_to(folder.parent / "elsewhere.nii.gz")
    return path


OF_VOLUMES: dict[str, tuple[Harm, str]] = {
    "truncated": (_truncated, "truncated file: cannot be read"),
    "zero bytes": (_zero_bytes, "zero bytes: has no content"),
    "not a number": (_not_a_number, "not a number: has a grey level"),
    "mask of another shape": (_mask_of_another_shape, "wrong shape: has 18 x 16 x 16 voxels, but its image 03.nii.gz"),
    "image of a plane": (_image_of_a_plane, "wrong shape: has the shape (18, 16); a volume has three sides"),
    "empty mask": (_empty_mask, "mask without the class: holds nothing but background"),
    "missing": (_missing, "missing file: there is no such file"),
    "turned round": (_mask_turned_round, "wrong orientation: lies up to 17 mm from its image 03.nii.gz"),
    "larger voxels": (_mask_of_larger_voxels, "wrong orientation: lies up to 16 mm from its image"),
    "out of range": (_label_out_of_range, "unknown label: holds 3, but the classes are 0 to 1"),
    "id twice": (_id_twice, "duplicate: line 5 has the id 'v1' of line 3"),
    "path twice": (_path_twice, "duplicate: line 5 lists what line 3 does"),
    "up and out": (_up_and_out, "path outside the folder: goes up with '..'"),
    "absolute": (_absolute, "path outside the folder: is absolute"),
    "link out": (_link_out, "path outside the folder: is a link that leaves"),
}


@pytest.mark.parametrize("name", OF_VOLUMES)
def test_a_bad_volume_is_named_with_its_kind_before_training_or_left_out(
    name: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harm, problem = OF_VOLUMES[name]
    write_volumes(root, COUNT)
    path = harm(root / "own")
    told = refusal(capsys, *VOLUMES)
    assert f"manifest.csv: 1 of {COUNT} records cannot be used (1 {problem.partition(':')[0]});" in told
    assert "leave them out with data.on_bad_record=skip" in told
    assert f"{path}: {problem}" in told
    _check_left_out("nifti", [16, 16, 16], f"{path}: {problem}", root)


def _check_left_out(name: str, image_size: Any, problem: str, root: Path) -> None:
    options = {
        "manifest": "own/manifest.csv", "image_size": image_size, "val_fraction": 0.2, "on_bad_record": "skip",
    }  # fmt: skip
    dataset = load_dataset(name, root=root, options=options)
    (line,) = dataset.skipped
    assert line.startswith(problem)
    assert sum(map(len, (dataset.train, dataset.val, dataset.test))) == COUNT - 1


def test_all_that_headers_show_is_in_one_message(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_volumes(root, COUNT)
    folder = root / "own"
    paths = [folder / f"images/{number:02d}.nii.gz" for number in (5, 7, 9)]
    paths[0].unlink()
    paths[1].write_bytes(b"")
    write_volume(paths[2], np.ones((4, 4), np.float32))
    changed(folder, id="v1")
    told = refusal(capsys, *VOLUMES)
    assert f"4 of {COUNT} records cannot be used (1 duplicate, 1 missing file, 1 zero bytes, 1 wrong shape)" in told
    assert all(str(path) in told for path in [*paths, folder / "images/03.nii.gz"])


# Of other kinds of files: tests/data/own.


def test_what_has_no_decoder_is_one_clear_message(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_radiographs(root, COUNT)
    path = root / "own/03.dcm"
    write_dicom(path, b"", syntax="1.2.840.10008.1.2.4.70", shape=(20, 24))
    told = refusal(capsys, *RADIOGRAPHS)
    assert f"{path}: no decoder: has pixels kept as JPEG Lossless, Non-Hierarchical, First-Order Prediction" in told
    assert "which nothing here decodes; store it uncompressed" in told
    _check_left_out("dicom", 16, f"{path}: no decoder", root)


def test_a_run_without_a_manifest_says_how_to_get_one(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refusal(capsys, *PICTURES, "data.manifest=null")
    assert told.startswith("error: data.manifest: must name the CSV table of the records: python -m scripts.manifest")
