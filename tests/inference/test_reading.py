"""Files to a model's input: the same pixels that the data set's loader gives, or a clear refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from hbdp_fed.data import ImageDataset, as_floats, load_dataset
from hbdp_fed.data.dicom.series import read_series, read_series_volume
from hbdp_fed.inference import ModelInput, Unusable, find_images, readers_for
from hbdp_fed.inference.reading import ReadImage
from tests.data.own.writing import write_pictures, write_radiographs, write_scans

RNG = np.random.default_rng(0)


def read(path: Path, wanted: ModelInput) -> list[ReadImage]:
    (file,) = find_images([path])
    return readers_for(wanted)[file.kind](path)


def save_picture(path: Path, shape: tuple[int, ...]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, shape).astype(np.uint8)).save(path)
    return path


# As the loaders do.


def test_pictures_are_read_as_the_loader_of_their_data_set_reads_them(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for number in range(12):
            save_picture(tmp_path / "chest_xray" / split / "NORMAL" / f"IM-{number:04d}-0001.jpeg", (40, 53))
            name = f"person{number}_virus_1.jpeg"
            save_picture(tmp_path / "chest_xray" / split / "PNEUMONIA" / name, (90, 33, 3))
    dataset = load_dataset("chest_xray", root=tmp_path, options={"image_size": 16})
    assert dataset.preparation is not None
    assert dataset.test.names is not None
    wanted = ModelInput((1, 16, 16), dataset.preparation.kind, dataset.preparation.details)
    for name, pixels in zip(dataset.test.names, dataset.test.images, strict=True):
        (image,) = read(tmp_path / "chest_xray" / str(name), wanted)
        assert torch.equal(image.pixels, as_floats(pixels))
        assert image.original == ((40, 53) if "NORMAL" in name else (90, 33))


def wanted_by(dataset: ImageDataset) -> ModelInput:
    assert dataset.preparation is not None
    # As a card keeps it.
    details = json.loads(json.dumps(dict(dataset.preparation.details)))
    return ModelInput(tuple(dataset.train.images.shape[1:]), dataset.preparation.kind, details)


def as_loaded(dataset: ImageDataset, folder: Path) -> None:
    """Every test file, read for a model of this data set, is what the loader made of it."""
    assert dataset.test.names is not None
    assert len(dataset.test) > 1
    for name, pixels in zip(dataset.test.names, dataset.test.images, strict=True):
        (image,) = read(folder / str(name), wanted_by(dataset))
        assert torch.equal(image.pixels, as_floats(pixels))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_own_pictures_are_read_as_their_loader_reads_them(mode: str, tmp_path: Path) -> None:
    """Of 8 and of 16 bits, and one that lies on its side."""
    write_pictures(tmp_path)
    for number in range(0, 40, 3):
        deep = RNG.integers(0, 65536, (20, 24)).astype(np.uint16)
        Image.fromarray(deep).save(tmp_path / f"own/{number:02d}.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    save_picture(tmp_path / "own/turned.png", (30, 20))
    Image.open(tmp_path / "own/turned.png").save(tmp_path / "own/turned.png", exif=exif)
    options = {"manifest": "own/manifest.csv", "image_size": 16, "mode": mode}
    dataset = load_dataset("imagefolder", root=tmp_path, options=options)
    as_loaded(dataset, tmp_path / "own")
    (image,) = read(tmp_path / "own/turned.png", wanted_by(dataset))
    assert image.original == (20, 30)


@pytest.mark.parametrize("window", [None, [0, 3000]])
def test_dicom_files_are_read_as_their_loader_reads_them(window: list[float] | None, tmp_path: Path) -> None:
    write_radiographs(tmp_path)
    options = {"manifest": "own/manifest.csv", "image_size": 16, "window": window, "val_fraction": 0.2}
    dataset = load_dataset("dicom", root=tmp_path, options=options)
    as_loaded(dataset, tmp_path / "own")
    (image,) = read(tmp_path / "own/00.dcm", wanted_by(dataset))
    assert image.original == (20, 24)
    broken = tmp_path / "own/broken.dcm"
    broken.write_bytes(b"x")
    with pytest.raises(Unusable, match="is no DICOM file"):
        read(broken, wanted_by(dataset))
    with pytest.raises(Unusable, match="is a picture, but the model takes DICOM files"):
        read(save_picture(tmp_path / "a.png", (20, 24)), wanted_by(dataset))


def test_a_model_of_dicom_series_is_asked_about_nifti(tmp_path: Path) -> None:
    """In the same units: the volume that the loader read, written as NIfTI, gives the same pixels."""
    write_scans(tmp_path)
    options = {
        "manifest": "own/manifest.csv", "image_size": [16, 16, 16], "window": [-1000, 0], "val_fraction": 0.2,
    }  # fmt: skip
    dataset = load_dataset("dicom", root=tmp_path, options=options)
    assert dataset.test.names is not None
    for name, pixels in zip(dataset.test.names, dataset.test.images, strict=True):
        stored = read_series_volume(read_series(tmp_path / "own" / str(name), root=tmp_path))
        path = tmp_path / "volume.nii.gz"
        nibabel.save(nibabel.Nifti1Image(stored.voxels, stored.affine), path)
        (image,) = read(path, wanted_by(dataset))
        assert torch.equal(image.pixels, pixels)
    with pytest.raises(Unusable, match="is a slice of a volume; convert its series to NIfTI, in Hounsfield units"):
        read(tmp_path / "own/00/ct/IM0.dcm", wanted_by(dataset))


def test_other_models_do_not_take_dicom(tmp_path: Path) -> None:
    write_radiographs(tmp_path, 1)
    with pytest.raises(Unusable, match=r"is a DICOM file, but the model takes images of the shape \(1, 16, 16\)"):
        read(tmp_path / "own/00.dcm", ModelInput((1, 16, 16), "photograph", {}))


@pytest.mark.parametrize("modality", ["CT", "MRI"])
@pytest.mark.parametrize("options", [{"fit": "crop"}, {"fit": "scale", "spacing": [1.0, 1.0, 1.5]}])
def test_volumes_are_read_as_the_loader_of_the_decathlon_reads_them(
    modality: str, options: dict[str, object], tmp_path: Path
) -> None:
    folder = tmp_path / "msd" / "Task99_Test"
    affine = np.diag([-0.8, 0.9, 2.0, 1.0])
    pairs = []
    for number in range(10):
        pair = {"image": f"imagesTr/{number}.nii.gz", "label": f"labelsTr/{number}.nii.gz"}
        values = RNG.integers(-400, 600, (18, 15, 20))
        for place, array in ((pair["image"], values.astype(np.int16)), (pair["label"], (values > 0).astype(np.uint8))):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, affine), folder / place)
        pairs.append(pair)
    content = {"labels": {"0": "background", "1": "organ"}, "modality": {"0": modality}, "training": pairs}
    (folder / "dataset.json").write_text(json.dumps(content))
    settings = {"task": "Task99_Test", "image_size": [16, 16, 16], **options}
    dataset = load_dataset("msd", root=tmp_path, options=settings)
    assert dataset.preparation is not None
    assert dataset.test.names is not None
    wanted = ModelInput((1, 16, 16, 16), dataset.preparation.kind, dataset.preparation.details)
    for name, pixels in zip(dataset.test.names, dataset.test.images, strict=True):
        (image,) = read(folder / "imagesTr" / f"{name}.nii.gz", wanted)
        assert torch.equal(image.pixels, pixels)
        assert image.original == (18, 15, 20)


def test_a_picture_of_8_bits_is_divided_by_255_and_not_scaled(tmp_path: Path) -> None:
    path = save_picture(tmp_path / "a.png", (20, 16))
    (image,) = read(path, ModelInput((1, 20, 16), "array"))
    assert torch.equal(image.pixels[0], torch.from_numpy(np.array(Image.open(path))).float() / 255)


# Arrays.


@pytest.mark.parametrize("shape", [(1, 20, 16), (20, 16), (5, 1, 20, 16), (5, 20, 16)])
@pytest.mark.parametrize("dtype", ["uint8", "float64", "float16"])
def test_arrays_hold_one_image_or_several(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    values = RNG.integers(0, 256, shape)
    stored = values.astype(np.uint8) if dtype == "uint8" else (values / 255).astype(dtype)
    np.save(tmp_path / "a.npy", stored)
    images = read(tmp_path / "a.npy", ModelInput((1, 20, 16)))
    several = len(shape) == 4 or shape[0] == 5
    assert [image.name for image in images] == ([f"a.npy[{i}]" for i in range(5)] if several else ["a.npy"])
    expected = torch.from_numpy(stored.astype(np.float32)) / (255 if dtype == "uint8" else 1)
    assert torch.equal(torch.stack([image.pixels for image in images]).flatten(), expected.flatten())
    assert all(image.pixels.shape == (1, 20, 16) and image.pixels.dtype == torch.float32 for image in images)


def test_the_arrays_of_an_archive_are_told_apart_by_name(tmp_path: Path) -> None:
    one, several = np.zeros((16, 16), dtype=np.uint8), np.zeros((2, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", left=one, right=several)
    names = [image.name for image in read(tmp_path / "a.npz", ModelInput((1, 16, 16)))]
    assert names == ["a.npz:left", "a.npz:right[0]", "a.npz:right[1]"]


# Refusals.


def _text(path: Path) -> None:
    path.write_text("no picture")


def _nifti(shape: tuple[int, ...], value: float = 0.0) -> Callable[[Path], None]:
    return lambda path: nibabel.save(nibabel.Nifti1Image(np.full(shape, value, dtype=np.float32), np.eye(4)), path)


def _array(values: object) -> Callable[[Path], None]:
    return lambda path: np.save(path, np.asarray(values))


PICTURES = ModelInput((1, 16, 16), "array")
VOLUMES = ModelInput(
    (1, 16, 16, 16),
    "volume",
    {
        "orientation": "RAS", "spacing": None, "fit": "crop", "size": [16, 16, 16],
        "intensity": {"kind": "window", "low": 0.0, "high": 1.0},
    },
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "wanted", "write", "message"),
    [
        ("a.png", PICTURES, _text, "cannot be read"),
        ("a.png", PICTURES, lambda p: save_picture(p, (20, 16)), "has 20x16 pixels, but the model takes 16x16"),
        ("a.png", VOLUMES, lambda p: save_picture(p, (16, 16)), "is a picture, but the model takes images"),
        (
            "a.png",
            PICTURES,
            lambda p: Image.fromarray(np.zeros((16, 16), dtype=np.uint16)).save(p),
            "has more than 8 bits a pixel",
        ),
        ("a.nii.gz", PICTURES, _nifti((16, 16, 16)), "is a volume, but the model takes"),
        ("a.nii.gz", VOLUMES, _text, "cannot be read"),
        ("a.nii.gz", VOLUMES, _nifti((16, 16, 16, 2)), "has 2 modalities, but the model takes 1"),
        ("a.nii.gz", VOLUMES, _nifti((16, 16)), "has 2 dimensions"),
        ("a.nii.gz", VOLUMES, _nifti((16, 16, 16), float("nan")), "not a finite number"),
        ("a.npy", PICTURES, _text, "cannot be read"),
        ("a.npy", PICTURES, _array(np.zeros((16, 17))), r"of the shape \(16, 17\), but the model takes \(1, 16, 16\)"),
        ("a.npy", PICTURES, _array(np.zeros((0, 16, 16))), r"of the shape \(0, 16, 16\)"),
        ("a.npy", PICTURES, _array(np.zeros((16, 16), dtype=np.int64)), "holds int64"),
        ("a.npy", PICTURES, _array(np.full((16, 16), 1.5)), r"numbers outside of \[0, 1\]"),
        ("a.npy", PICTURES, _array(np.full((16, 16), np.nan)), r"numbers outside of \[0, 1\]"),
        ("a.npz", PICTURES, np.savez, "holds no array"),
        ("a.npz", PICTURES, lambda p: np.savez(p, a=np.array([{}], dtype=object)), "cannot be read"),
    ],
)
def test_what_a_model_does_not_take_is_refused(
    name: str, wanted: ModelInput, write: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    with pytest.raises(Unusable, match=message):
        read(tmp_path / name, wanted)
