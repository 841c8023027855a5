"""A folder of DICOM slices as one volume (DICOM PS3.3, C.7.6.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hbdp_fed.data.defects import EMPTY, MISSING, ORIENTATION, OUTSIDE, SHAPE, UNREADABLE, Defect
from hbdp_fed.data.dicom.header import DicomFile, numbers, read_header, text
from hbdp_fed.data.dicom.image import physical
from hbdp_fed.data.dicom.pixels import MONOCHROME, Frame, frame_of, stored_pixels
from hbdp_fed.data.volumes import StoredVolume

Vector = NDArray[np.float64]

_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM counts millimetres to the left and to the back, NIfTI and MONAI to the right and to the front."""

_UNLIKE = 1e-3
"""By how much directions may differ between slices, and from being perpendicular unit vectors."""

_SHIFTED = 0.5
"""By how much slices may be shifted against each other, of a pixel."""

_UNEVEN = 0.05
"""By how much the distance of two slices may differ from the usual one, as a share of it."""

_INDEX = "DICOMDIR"


@dataclass(frozen=True)
class Slice:
    """One file of a series.

    Attributes:
        file: Its header.
        frame: What it says of its pixels.
        position: The centre of its first pixel, mm to the left, to the back and up.
        across: The direction in which columns follow each other.
        down: The direction in which rows do.
        size: The distance of two rows and of two columns in mm.
    """

    file: DicomFile
    frame: Frame
    position: Vector
    across: Vector
    down: Vector
    size: tuple[float, float]


@dataclass(frozen=True)
class Series:
    """The slices of a volume.

    Attributes:
        slices: Along the normal of their plane.
        order: Which file each is, counted in the order of the files' names.
        affine: float64 (4, 4), from (column, row, slice) to mm to the right, to the front and up.
    """

    slices: tuple[Slice, ...]
    order: tuple[int, ...]
    affine: Vector

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows, slices."""
        frame = self.slices[0].frame
        return frame.columns, frame.rows, len(self.slices)


def read_series(folder: Path, *, root: Path) -> Series:
    """Read the headers of all files of a folder, which have to be slices of one volume.

    Args:
        folder: Where they are, and nothing else but hidden files and an index.
        root: The folder that no link of theirs may lead out of.

    Raises:
        Defect: if one cannot be read, or they do not make one volume.
    """
    paths = slice_files(folder, root=root)
    slices = [_slice(path) for path in paths]
    first = slices[0]
    for one in slices[1:]:
        _check_alike(first, one)
    normal = np.cross(first.across, first.down)
    heights = np.asarray([one.position @ normal for one in slices])
    order = tuple(int(number) for number in np.argsort(heights, kind="stable"))
    ordered = [slices[number] for number in order]
    step = _step(folder, ordered, normal)
    affine = np.eye(4)
    affine[:3, 0] = first.across * first.size[1]
    affine[:3, 1] = first.down * first.size[0]
    affine[:3, 2] = step
    affine[:3, 3] = ordered[0].position
    return Series(tuple(ordered), order, _TO_RAS @ affine)


def read_series_volume(series: Series) -> StoredVolume:
    """A series' physical values, of CT in Hounsfield units.

    Raises:
        Defect: if a slice cannot be read.
    """
    voxels = np.empty(series.shape, dtype=np.float32)
    for number, one in enumerate(series.slices):
        try:
            pixels = stored_pixels(one.file, one.frame)
            voxels[:, :, number] = physical(pixels, one.file.header).T
        except Defect as defect:
            raise Defect(defect.kind, defect.text, one.file.path) from defect
    return StoredVolume(voxels, series.affine)


def slice_files(folder: Path, *, root: Path, suffix: str | None = None) -> list[Path]:
    """The files of a folder in the order of their names, numbers in them by their size.

    Args:
        folder: Where they are.
        root: The folder that no link of theirs may lead out of.
        suffix: How their names end; None takes all but hidden files and an index.

    Raises:
        Defect: if there is no such folder, or it holds none.
    """
    if not folder.exists():
        raise Defect(MISSING, "there is no such folder", folder)
    if not folder.is_dir():
        raise Defect(SHAPE, "is a file; a volume is the folder of its slices", folder)
    try:
        paths = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    except OSError as error:
        raise Defect(UNREADABLE, f"cannot be looked into ({error.strerror})", folder) from error
    wanted = [path for path in paths if (path.suffix.lower() == suffix if suffix else path.name != _INDEX)]
    if not wanted:
        raise Defect(EMPTY, f"holds no {suffix or 'file'}", folder)
    inside = root.resolve()
    for path in wanted:
        if not path.resolve().is_relative_to(inside):
            raise Defect(OUTSIDE, f"is a link that leaves {root}", path)
    return sorted(wanted, key=lambda path: _by_number(path.name))


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(digits), "") if digits else (-1, letters) for digits, letters in re.findall(r"(\d+)|(\D+)", name)]


def _slice(path: Path) -> Slice:
    file = read_header(path)
    try:
        frame = frame_of(file)
        if frame.photometric not in MONOCHROME:
            raise Defect(SHAPE, f"has colours ({frame.photometric}), which a slice of a volume has not")
        header = file.header
        position, directions = numbers(header, "ImagePositionPatient"), numbers(header, "ImageOrientationPatient")
        size = numbers(header, "PixelSpacing")
        if len(position) != 3 or len(directions) != 6 or len(size) != 2 or not all(mm > 0 for mm in size):
            raise Defect(
                ORIENTATION,
                "does not say where its slice lies (ImagePositionPatient, ImageOrientationPatient, PixelSpacing)",
            )
        across, down = np.asarray(directions[:3]), np.asarray(directions[3:])
        off = [float(np.linalg.norm(across)) - 1, float(np.linalg.norm(down)) - 1, float(across @ down)]
        if not max(map(abs, off)) <= _UNLIKE:
            raise Defect(ORIENTATION, "has rows and columns that are not perpendicular (ImageOrientationPatient)")
    except Defect as defect:
        raise Defect(defect.kind, defect.text, path) from defect
    return Slice(file, frame, np.asarray(position), across, down, (size[0], size[1]))


def _check_alike(first: Slice, other: Slice) -> None:
    """That two slices can be of one volume.

    Raises:
        Defect: otherwise.
    """
    path, name = other.file.path, first.file.path.name
    own, wanted = (text(one.file.header, "SeriesInstanceUID") for one in (other, first))
    if own != wanted:
        raise Defect(SHAPE, f"is of another series than {name}; a volume is the folder of one", path)
    if other.frame.shape != first.frame.shape:
        raise Defect(SHAPE, f"has {other.frame.shape} pixels, but {name} {first.frame.shape}", path)
    if not np.allclose(other.size, first.size, rtol=_UNLIKE):
        raise Defect(SHAPE, f"has pixels of {other.size} mm, but {name} of {first.size}", path)
    if max(np.abs(other.across - first.across).max(), np.abs(other.down - first.down).max()) > _UNLIKE:
        raise Defect(ORIENTATION, f"lies in another direction than {name}", path)


def _step(folder: Path, ordered: Sequence[Slice], normal: Vector) -> Vector:
    """From one slice to the next in mm.

    Raises:
        Defect: if slices are missing, twice there or shifted against each other.
    """
    first, last = ordered[0], ordered[-1]
    if len(ordered) == 1:
        header = first.file.header
        gap = (numbers(header, "SpacingBetweenSlices") or numbers(header, "SliceThickness") or [0.0])[0]
        if gap <= 0:
            raise Defect(ORIENTATION, "has one slice alone, which does not say how thick it is", folder)
        return normal * gap
    gaps = np.asarray([(b.position - a.position) @ normal for a, b in pairwise(ordered)])
    usual = float(np.median(gaps))
    narrow, wide = int(gaps.argmin()), int(gaps.argmax())
    if gaps[narrow] <= _UNEVEN * usual or usual <= 0:
        names = f"{ordered[narrow].file.path.name} and {ordered[narrow + 1].file.path.name}"
        raise Defect(ORIENTATION, f"has two slices in one place: {names}", folder)
    if gaps[wide] > (1 + _UNEVEN) * usual or gaps[narrow] < (1 - _UNEVEN) * usual:
        place = wide if gaps[wide] > (1 + _UNEVEN) * usual else narrow
        names = f"{ordered[place].file.path.name} and {ordered[place + 1].file.path.name}"
        raise Defect(
            SHAPE,
            f"has slices {usual:.4g} mm apart, but {gaps[place]:.4g} mm between {names}: are some missing?",
            folder,
        )
    offsets = np.asarray([one.position - first.position for one in ordered])
    aside = np.linalg.norm(offsets - np.outer(offsets @ normal, normal), axis=1).max()
    if aside > _SHIFTED * min(first.size):
        raise Defect(
            ORIENTATION,
            f"has slices that are shifted by up to {aside:.3g} mm against each other: a tilted gantry",
            folder,
        )
    step: Vector = (last.position - first.position) / (len(ordered) - 1)
    return step
