"""From a file to images as a model takes them: what its data set's loader does, and nothing else."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hbdp_fed.data.bad_records import reason
from hbdp_fed.data.contract import as_floats
from hbdp_fed.data.defects import Defect
from hbdp_fed.data.dicom.header import read_header
from hbdp_fed.data.dicom.image import DICOM as OF_DICOM
from hbdp_fed.data.dicom.image import read_dicom_image
from hbdp_fed.data.dicom.pixels import frame_of
from hbdp_fed.data.photographs import CHANNELS, UNREADABLE, read_photograph
from hbdp_fed.data.pictures import PICTURE as OF_PICTURE
from hbdp_fed.data.pictures import read_picture, upright_size
from hbdp_fed.data.volumes import StoredVolume, prepared_image, read_nifti, volume_pipeline
from hbdp_fed.inference.finding import ARRAY, DICOM, PICTURE, VOLUME

PHOTOGRAPH, OF_VOLUME = "photograph", "volume"
"""The kinds of :class:`hbdp_fed.data.Preparation` that start from a file of any size."""

_BROKEN = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
_MODES = {channels: mode for mode, channels in CHANNELS.items()}


class Unusable(ValueError):
    """A file does not hold what the model takes; the message is the end of a sentence that begins with its path."""


@dataclass(frozen=True)
class ModelInput:
    """What a model takes, and how an image comes to it.

    Attributes:
        shape: (C, *spatial), two or three spatial dimensions.
        kind: Of the data set's preparation (see :class:`hbdp_fed.data.Preparation`); None where it is not known.
        details: The preparation's.
    """

    shape: tuple[int, ...]
    kind: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spatial(self) -> tuple[int, ...]:
        """The shape without channels."""
        return self.shape[1:]


@dataclass(frozen=True)
class ReadImage:
    """One image as the model takes it.

    Attributes:
        name: The file's name, and which of its images it is where it may hold several.
        pixels: float32 (C, *spatial) in [0, 1].
        original: Height and width of the picture, or the sides of the volume, that the file holds; None of an array.
        affine: float64 (4, 4), of the grid of ``pixels``; None where there is none.
        original_affine: The same of the file's own grid.
    """

    name: str
    pixels: Tensor
    original: tuple[int, ...] | None = None
    affine: NDArray[np.float64] | None = None
    original_affine: NDArray[np.float64] | None = None


Reader = Callable[[Path], list[ReadImage]]
"""Reads a file; raises :class:`Unusable` if it cannot be used."""


def readers_for(wanted: ModelInput) -> Mapping[str, Reader]:
    """How files are read for a model, by their kind (:data:`hbdp_fed.inference.finding.SUFFIXES`).

    Args:
        wanted: What the model takes.
    """
    readers: Mapping[str, Callable[[ModelInput], Reader]] = {
        PICTURE: _picture_reader,
        VOLUME: _volume_reader,
        ARRAY: _array_reader,
        DICOM: _dicom_reader,
    }
    return {kind: make(wanted) for kind, make in readers.items()}


def _picture_reader(wanted: ModelInput) -> Reader:
    channels, spatial = wanted.shape[0], wanted.spatial
    if len(spatial) != 2 or channels not in _MODES:
        return _refusing(f"is a picture, but the model takes images of the shape {wanted.shape}")
    if wanted.kind == OF_DICOM:
        return _refusing("is a picture, but the model takes DICOM files")
    if wanted.kind == OF_PICTURE:
        return _own_picture_reader(wanted)
    height, width = spatial
    is_scaled = wanted.kind == PHOTOGRAPH

    def read(path: Path) -> list[ReadImage]:
        own = _picture_size(path)
        if not is_scaled and own != spatial:
            raise Unusable(
                f"has {own[0]}x{own[1]} pixels, but the model takes {height}x{width}; how its data came to that size "
                "is not known, so pictures are not scaled"
            )
        pixels = read_photograph(path, mode=_MODES[channels], size=(height, width))
        if isinstance(pixels, str):
            raise Unusable(pixels)
        return [ReadImage(path.name, as_floats(pixels), original=own)]

    return read


def _own_picture_reader(wanted: ModelInput) -> Reader:
    def read(path: Path) -> list[ReadImage]:
        try:
            pixels = read_picture(path, mode=wanted.details["mode"], size=(wanted.spatial[0], wanted.spatial[1]))
            return [ReadImage(path.name, as_floats(pixels), original=upright_size(path))]
        except Defect as defect:
            raise Unusable(defect.text) from defect

    return read


def _dicom_reader(wanted: ModelInput) -> Reader:
    if wanted.kind == OF_VOLUME:
        return _refusing("is a slice of a volume; convert its series to NIfTI, in Hounsfield units if it is CT")
    if wanted.kind != OF_DICOM:
        return _refusing(f"is a DICOM file, but the model takes images of the shape {wanted.shape} that were none")
    details = wanted.details

    def read(path: Path) -> list[ReadImage]:
        size = (wanted.spatial[0], wanted.spatial[1])
        try:
            pixels = read_dicom_image(path, mode=details["mode"], size=size, window=details["window"])
            frame = frame_of(read_header(path))
        except Defect as defect:
            raise Unusable(defect.text) from defect
        return [ReadImage(path.name, pixels, original=(frame.rows, frame.columns))]

    return read


def _picture_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except UNREADABLE as error:
        raise Unusable(f"cannot be read ({reason(error)})") from error


def _volume_reader(wanted: ModelInput) -> Reader:
    if wanted.kind != OF_VOLUME:
        return _refusing(
            f"is a volume, but the model takes images of the shape {wanted.shape} that were no NIfTI files"
        )
    prepare = volume_pipeline(wanted.details, label=False)

    def read(path: Path) -> list[ReadImage]:
        stored = read_nifti(path)
        if isinstance(stored, str):
            raise Unusable(stored)
        _check_volume(stored, wanted.shape[0])
        try:
            pixels, affine = prepared_image(stored, prepare)
        except ValueError as error:
            raise Unusable(str(error)) from error
        return [
            ReadImage(
                path.name,
                pixels,
                original=stored.voxels.shape[:3],
                affine=affine,
                original_affine=stored.affine,
            )
        ]

    return read


def _check_volume(stored: StoredVolume, modalities: int) -> None:
    if stored.voxels.ndim not in (3, 4):
        raise Unusable(f"has {stored.voxels.ndim} dimensions; a volume has three, or four with its modalities")
    if stored.modalities != modalities:
        raise Unusable(f"has {stored.modalities} modalities, but the model takes {modalities}")
    if not np.isfinite(stored.voxels).all():
        raise Unusable("has a grey level that is not a finite number")


def _array_reader(wanted: ModelInput) -> Reader:
    def read(path: Path) -> list[ReadImage]:
        return [
            ReadImage(name, pixels)
            for key, array in _arrays(path)
            for name, pixels in _images_in(array, f"{path.name}{f':{key}' if key else ''}", wanted.shape)
        ]

    return read


def _arrays(path: Path) -> list[tuple[str, NDArray[Any]]]:
    """What the file holds, by name; the array of an npy file has none."""
    try:
        # Never unpickle: an image file must not be able to run code.
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return [("", content)]
        with content:
            arrays = [(name, content[name]) for name in content.files]
    except _BROKEN as error:
        raise Unusable(f"cannot be read ({reason(error)})") from error
    if not arrays:
        raise Unusable("holds no array")
    return arrays


def _images_in(array: NDArray[Any], name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
    """One image, or one after the other of several, with a name each."""
    is_alone = array.shape == shape or (shape[0] == 1 and array.shape == shape[1:])
    if is_alone:
        yield name, _pixels(array.reshape(shape), name)
        return
    fits = array.shape[1:] == shape or (shape[0] == 1 and array.shape[1:] == shape[1:])
    if not fits or not len(array):
        grey = f", {shape[1:]}, or N of them" if shape[0] == 1 else ", or N of them"
        raise Unusable(f"holds an array of the shape {array.shape}, but the model takes {shape}{grey}")
    pixels = _pixels(array.reshape(len(array), *shape), name)
    for number, image in enumerate(pixels):
        yield f"{name}[{number}]", image


def _pixels(array: NDArray[Any], name: str) -> Tensor:
    """float32 in [0, 1]."""
    if array.dtype == np.uint8:
        return as_floats(torch.from_numpy(np.ascontiguousarray(array)))
    if array.dtype.kind != "f":
        raise Unusable(f"holds {array.dtype} in {name}; images are uint8, or numbers with a fraction in [0, 1]")
    # Written so that NaN is refused, too.
    if not bool(((array >= 0) & (array <= 1)).all()):
        raise Unusable(f"holds numbers outside of [0, 1] in {name}; prepare them as the model's data was")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _refusing(problem: str) -> Reader:
    def read(path: Path) -> list[ReadImage]:
        raise Unusable(problem)

    return read
