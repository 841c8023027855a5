"""Volumes that a manifest lists, whatever kind of file they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hbdp_fed.data.defects import NOT_A_NUMBER, ORIENTATION, SHAPE, UNREADABLE, Defect
from hbdp_fed.data.grid import READERS
from hbdp_fed.data.own.classes import classes_of_mask
from hbdp_fed.data.own.reading import Header, Sample
from hbdp_fed.data.own.table import Row
from hbdp_fed.data.volumes import Prepare, StoredVolume, prepared_image, prepared_pair

Matrix = NDArray[np.float64]

_SAME_PLACE = 0.5
"""By how much the corners of an image and its mask may lie apart, of a voxel's smallest side."""


@dataclass(frozen=True)
class VolumeHeader:
    """Where a volume's voxels are.

    Attributes:
        shape: (X, Y, Z).
        affine: float64 (4, 4), from voxels to mm.
        channels: How many grey levels a voxel has.
    """

    shape: tuple[int, ...]
    affine: Matrix
    channels: int = 1


@dataclass(frozen=True)
class VolumeFiles:
    """How one kind of file is read. Each raises :class:`hbdp_fed.data.defects.Defect`, with the file's path.

    Attributes:
        header: Of a record's image.
        image: The image.
        mask_header: Of its mask, whose image has this header.
        mask: The mask.
    """

    header: Callable[[Row], VolumeHeader]
    image: Callable[[Row], StoredVolume]
    mask_header: Callable[[Row, VolumeHeader], VolumeHeader]
    mask: Callable[[Row], StoredVolume]


@dataclass(frozen=True)
class VolumeReader:
    """Reads volumes and their masks, and brings them to the common grid.

    Attributes:
        files: How their kind of file is read.
        prepare: Of :func:`hbdp_fed.data.volumes.volume_pipeline`.
        class_names: Of masks.
    """

    files: VolumeFiles
    prepare: Prepare = field(repr=False)
    class_names: Sequence[str]
    at_once: int = READERS

    def inspect(self, row: Row) -> Header:
        """As in the protocol."""
        image = self.files.header(row)
        if not _is_grid(image.affine):
            raise Defect(ORIENTATION, "does not say where its voxels are", row.path)
        if row.mask is not None:
            check_mask_grid(row, image, self.files.mask_header(row, image))
        return Header(image.channels)

    def read(self, row: Row) -> Sample:
        """As in the protocol."""
        stored = self.files.image(row)
        if not np.isfinite(stored.voxels).all():
            raise Defect(NOT_A_NUMBER, "has a grey level that is not a finite number", row.path)
        classes = None if row.mask is None else self._classes(row, row.mask, stored.affine)
        try:
            if classes is not None:
                return Sample(*prepared_pair(stored, classes, self.prepare))
            image, affine = prepared_image(stored, self.prepare)
        except ValueError as error:
            raise Defect(UNREADABLE, str(error), row.path) from error
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        return Sample(image, spacing=tuple(round(float(side), 3) for side in sides))

    def _classes(self, row: Row, mask: Path, affine: Matrix) -> NDArray[np.uint8]:
        """The class of every voxel, in the order of the image's axes."""
        stored = self.files.mask(row)
        try:
            classes = classes_of_mask(stored.voxels, self.class_names)
        except Defect as defect:
            raise Defect(defect.kind, defect.text, mask) from defect
        return _turned(classes, stored.affine, affine)


def check_mask_grid(row: Row, image: VolumeHeader, mask: VolumeHeader) -> None:
    """That a mask lies where its image does, whichever order its axes are stored in.

    Raises:
        Defect: otherwise.
    """
    if not _is_grid(mask.affine):
        raise Defect(ORIENTATION, "does not say where its voxels are", row.mask)
    shape, affine = _turned_grid(mask, image.affine)
    if mask.channels != 1 or shape != image.shape:
        sides, own = (" x ".join(map(str, shape)) for shape in (image.shape, mask.shape))
        raise Defect(SHAPE, f"has {own} voxels, but its image {row.path.name} {sides}", row.mask)
    corners = np.asarray([[*corner, 1.0] for corner in product(*((0, side - 1) for side in image.shape))]).T
    apart = np.linalg.norm(((affine - image.affine) @ corners)[:3], axis=0).max()
    voxel = float(np.linalg.norm(image.affine[:3, :3], axis=0).min())
    if not apart <= _SAME_PLACE * voxel:
        raise Defect(
            ORIENTATION,
            f"lies up to {apart:.3g} mm from its image {row.path.name} by what the two say of their axes",
            row.mask,
        )


def _is_grid(affine: Matrix) -> bool:
    return bool(np.isfinite(affine).all()) and abs(float(np.linalg.det(affine[:3, :3]))) > 1e-12


def _turned_grid(mask: VolumeHeader, like: Matrix) -> tuple[tuple[int, ...], Matrix]:
    """The shape and the matrix of a volume whose axes are put into the order and directions of another one's."""
    from nibabel.orientations import inv_ornt_aff

    way = _way(mask.affine, like)
    shape = [0, 0, 0]
    for side, (axis, _) in zip(mask.shape, way, strict=True):
        shape[int(axis)] = side
    return tuple(shape), mask.affine @ inv_ornt_aff(way, mask.shape)  # type: ignore[no-untyped-call]


def _turned(classes: NDArray[np.uint8], affine: Matrix, like: Matrix) -> NDArray[np.uint8]:
    from nibabel.orientations import apply_orientation

    turned: NDArray[np.uint8] = apply_orientation(classes, _way(affine, like))  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(turned)


def _way(affine: Matrix, like: Matrix) -> Matrix:
    """How axes are swapped and turned round, in nibabel's notation."""
    from nibabel.orientations import io_orientation, ornt_transform

    way: Matrix = ornt_transform(io_orientation(affine), io_orientation(like))  # type: ignore[no-untyped-call]
    return way
