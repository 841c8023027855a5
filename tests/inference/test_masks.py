"""Masks lie on their images, voxel by voxel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from hbdp_fed.inference import ImageFile, MaskWriter, ModelInput, readers_for
from hbdp_fed.inference.reading import ReadImage

SHAPE = (20, 14, 9)


def details(**more: Any) -> dict[str, Any]:
    return {
        "orientation": "RAS", "spacing": None, "fit": "crop", "size": [24, 16, 12],
        "intensity": {"kind": "window", "low": 0.0, "high": 1.0}, **more,
    }  # fmt: skip


def blob() -> np.ndarray:
    """A body that looks different along every axis."""
    voxels = np.zeros(SHAPE, dtype=np.float32)
    voxels[3:11, 2:7, 4:8] = 1
    voxels[3, 2, 4:8] = 0
    return voxels


def oblique() -> np.ndarray:
    """A patient who lies on the side, a little turned, in voxels that are no cubes."""
    turn = np.array([[np.cos(0.1), -np.sin(0.1), 0], [np.sin(0.1), np.cos(0.1), 0], [0, 0, 1]])
    axes = turn @ np.diag([0.8, 1.2, 2.5]) @ np.array([[0, -1, 0], [0, 0, 1], [-1, 0, 0]], dtype=float)
    return np.block([[axes, np.array([[5.0], [-3.0], [7.0]])], [np.zeros((1, 3)), np.ones((1, 1))]])


@pytest.mark.parametrize("affine", [np.diag([-0.8, 0.8, 2.5, 1.0]), oblique()], ids=["lps", "oblique"])
def test_a_mask_of_a_padded_volume_comes_back_to_every_voxel(affine: np.ndarray, tmp_path: Path) -> None:
    """The model's answer is its own input: brought back, it must be the file."""
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(blob(), affine), path)
    (image,) = readers_for(ModelInput((1, 24, 24, 24), "volume", details(size=[24, 24, 24])))["volume"](path)
    written, mask = MaskWriter(tmp_path).write(ImageFile(path, "volume"), image, image.pixels[0].numpy())
    back = nibabel.load(written)
    assert written.name == "a_mask.nii.gz"
    assert np.array_equal(np.asarray(back.dataobj), blob())  # type: ignore[attr-defined]
    assert np.array_equal(mask, blob())
    assert np.allclose(back.affine, affine, atol=1e-6)  # type: ignore[attr-defined]


def test_what_was_cropped_is_background(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE, dtype=np.float32), np.eye(4)), path)
    (image,) = readers_for(ModelInput((1, 16, 16, 16), "volume", details(size=[16, 16, 16])))["volume"](path)
    _, mask = MaskWriter(tmp_path).write(ImageFile(path, "volume"), image, image.pixels[0].numpy())
    expected = np.zeros(SHAPE)
    expected[2:18] = 1
    assert np.array_equal(mask, expected)


def test_a_mask_of_a_scaled_volume_lies_where_the_body_is(tmp_path: Path) -> None:
    path, voxels = tmp_path / "a.nii.gz", np.zeros((32, 32, 32), dtype=np.float32)
    voxels[4:20, 8:24, 16:28] = 1
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    wanted = ModelInput((1, 16, 16, 16), "volume", details(size=[16, 16, 16], fit="scale"))
    (image,) = readers_for(wanted)["volume"](path)
    _, mask = MaskWriter(tmp_path).write(ImageFile(path, "volume"), image, image.pixels[0].round().numpy())
    # The body begins and ends between voxels of the coarse grid, so nothing of it is lost.
    assert np.array_equal(mask, voxels)


def test_a_mask_of_a_picture_has_its_size_and_the_classes_as_values(tmp_path: Path) -> None:
    image = ReadImage("a.png", torch.zeros(1, 4, 4), original=(8, 12))
    classes = np.arange(16).reshape(4, 4) % 3
    written, mask = MaskWriter(tmp_path).write(ImageFile(Path("a.png"), "picture"), image, classes)
    with Image.open(written) as picture:
        assert picture.mode == "P"
        stored = np.array(picture)
    assert np.array_equal(stored, classes.repeat(2, axis=0).repeat(3, axis=1))
    assert np.array_equal(mask, stored)


def test_an_array_has_an_array_for_a_mask(tmp_path: Path) -> None:
    image = ReadImage("a.npz:left[3]", torch.zeros(1, 4, 4))
    written, _ = MaskWriter(tmp_path).write(ImageFile(Path("a.npz"), "array"), image, np.ones((4, 4), dtype=int))
    assert written.name == "a_left_3_mask.npy"
    assert np.array_equal(np.load(written), np.ones((4, 4)))


def test_images_of_the_same_name_have_masks_of_their_own(tmp_path: Path) -> None:
    writer, image = MaskWriter(tmp_path), ReadImage("a.png", torch.zeros(1, 4, 4), original=(4, 4))
    written = [
        writer.write(ImageFile(Path(folder) / "a.png", "picture"), image, np.zeros((4, 4)))[0].name
        for folder in ("one", "two")
    ]
    assert written == ["a_mask.png", "a_mask-2.png"]
