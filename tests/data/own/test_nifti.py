"""Listed volumes: whatever their orientation and the size of their voxels, they come to the same grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from hbdp_fed.data import ImageDataset, load_dataset
from hbdp_fed.errors import DataFileError
from tests.data.own.writing import write_manifest, write_volume, write_volumes

COUNT = 10
OPTIONS = {"manifest": "own/manifest.csv", "image_size": [18, 16, 17], "val_fraction": 0.2, "window": [-200, 600]}


def load(root: Path, **options: Any) -> ImageDataset:
    return load_dataset("nifti", root=root, options={**OPTIONS, **options})


def reoriented(path: Path, axes: str) -> None:
    """The same volume with its axes stored in another order or direction, by nibabel's own means."""
    image = nibabel.load(path)
    way = ornt_transform(io_orientation(image.affine), axcodes2ornt(axes))
    nibabel.save(image.as_reoriented(way), path)
    assert nibabel.aff2axcodes(nibabel.load(path).affine) == tuple(axes)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    write_volumes(tmp_path, COUNT)
    return tmp_path


def everything(dataset: ImageDataset) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {
        name: (image, labels)
        for part in (dataset.train, dataset.val, dataset.test)
        for name, image, labels in zip(part.names, part.images, part.labels, strict=True)
    }


def test_volumes_and_masks_are_what_is_in_the_files(listed: Path) -> None:
    dataset = load(listed)
    assert (dataset.task, dataset.group, dataset.spacing) == ("segmentation", "patient", (1.0, 1.0, 2.0))
    for name, (image, labels) in everything(dataset).items():
        number = int(name[1:])
        stored = nibabel.load(listed / f"own/images/{number:02d}.nii.gz").get_fdata()
        np.testing.assert_allclose(image[0].numpy(), np.clip((stored + 200) / 800, 0, 1), atol=1e-6)
        np.testing.assert_array_equal(
            labels.numpy(), nibabel.load(listed / f"own/masks/{number:02d}.nii.gz").get_fdata()
        )


def test_any_orientation_gives_the_same_records(listed: Path) -> None:
    """Images and masks each with another order of axes."""
    before = everything(load(listed))
    for number, (image, mask) in enumerate(
        [("LPS", "LPS"), ("RAS", "LAS"), ("PIR", "SAR"), ("ASL", "RAS"), ("SRP", "SRP"), ("LAS", "PIR")]
    ):
        reoriented(listed / f"own/images/{number:02d}.nii.gz", image)
        reoriented(listed / f"own/masks/{number:02d}.nii.gz", mask)
    after = everything(load(listed))
    assert before.keys() == after.keys()
    for name, (image, labels) in before.items():
        assert torch.equal(after[name][0], image), name
        assert torch.equal(after[name][1], labels), name


@pytest.mark.parametrize("axes", ["RAS", "PIR"])
@pytest.mark.parametrize("sizes", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0)])
def test_a_ramp_in_mm_stays_one_on_the_common_spacing(
    axes: str, sizes: tuple[float, float, float], tmp_path: Path
) -> None:
    """The grey level is 3 x - 5 y + 7 z at x mm to the right, y to the front and z up, however it is sampled."""
    shape = tuple(round(60 / size) for size in sizes)
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = -30
    x, y, z = (affine[axis, axis] * np.arange(shape[axis]) + affine[axis, 3] for axis in range(3))
    values = 3 * x[:, None, None] - 5 * y[None, :, None] + 7 * z[None, None]
    rows = []
    for number in range(COUNT):
        path = write_volume(tmp_path / f"own/{number}.nii.gz", values.astype(np.float32), affine)
        reoriented(path, axes)
        rows.append({"path": path.name, "label": number % 2})
    write_manifest(tmp_path / "own/manifest.csv", rows)
    dataset = load(tmp_path, spacing=[2, 2, 2], image_size=[16, 16, 16], window=[-1000, 1000])
    assert (dataset.task, dataset.spacing) == ("binary", (2.0, 2.0, 2.0))
    image = dataset.train.images[0, 0] * 2000 - 1000
    for axis, slope in enumerate((3, -5, 7)):
        steps = torch.diff(image, dim=axis)
        assert torch.allclose(steps, torch.tensor(2.0 * slope), atol=0.05)


def test_a_fourth_axis_is_the_modality(tmp_path: Path) -> None:
    rows = []
    for number in range(COUNT):
        volume = np.stack([np.full((16, 16, 16), level + number) for level in (1.0, 50.0)], axis=-1)
        write_volume(tmp_path / f"own/{number}.nii", volume.astype(np.float32))
        rows.append({"path": f"{number}.nii", "label": number % 2})
    write_manifest(tmp_path / "own/manifest.csv", rows)
    dataset = load(tmp_path, window=[0, 100], image_size=[16, 16, 16])
    assert dataset.train.images.shape[1:] == (2, 16, 16, 16)
    first = int(str(dataset.train.names[0]).split(".")[0])  # type: ignore[index]
    assert torch.allclose(dataset.train.images[0, :, 0, 0, 0], torch.tensor([1.0 + first, 50.0 + first]) / 100)
    write_volume(tmp_path / "own/3.nii", np.zeros((16, 16, 16), np.float32))
    with pytest.raises(DataFileError, match=r"3\.nii: wrong shape: has 1 channels, but most records have 2"):
        load(tmp_path, image_size=[16, 16, 16])


def test_real_volumes_are_those_of_their_own_loader(hbdp_data: Path, tmp_path: Path) -> None:
    """Twenty of the Decathlon's hippocampi."""
    folder = hbdp_data / "msd/Task04_Hippocampus"
    names = sorted(path.name for path in (folder / "labelsTr").glob("hippocampus_*.nii.gz"))
    pairs = [name for name in names if (folder / "imagesTr" / name).is_file()][:20]
    write_manifest(
        tmp_path / "m.csv",
        [{"path": f"imagesTr/{name}", "mask": f"labelsTr/{name}", "id": name[:-7]} for name in pairs],
    )
    options = {
        "manifest": str(tmp_path / "m.csv"), "folder": str(folder), "class_names": ["background", "front", "back"],
    }  # fmt: skip
    listed = everything(load_dataset("nifti", root=hbdp_data, options=options))
    assert len(listed) == 20
    for name, (image, labels) in listed.items():
        stored = nibabel.load(folder / f"imagesTr/{name}.nii.gz").get_fdata()
        low, high = np.percentile(stored, (0.5, 99.5))
        assert nibabel.aff2axcodes(nibabel.load(folder / f"imagesTr/{name}.nii.gz").affine) == ("R", "A", "S")
        inner = tuple(
            slice((wanted - side) // 2, (wanted - side) // 2 + side) if wanted >= side else slice(None)
            for wanted, side in zip((40, 56, 40), stored.shape, strict=True)
        )
        cut = tuple(
            slice(None) if wanted >= side else slice((side - wanted) // 2, (side - wanted) // 2 + wanted)
            for wanted, side in zip((40, 56, 40), stored.shape, strict=True)
        )
        np.testing.assert_allclose(image[0][inner], np.clip((stored - low) / (high - low), 0, 1)[cut], atol=1e-5)
        wanted = nibabel.load(folder / f"labelsTr/{name}.nii.gz").get_fdata()
        np.testing.assert_array_equal(labels[inner], wanted[cut])
