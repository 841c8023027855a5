"""DICOM that a manifest lists: files, which are images, or folders of slices, which are volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hbdp_fed.data.checks import check_integer
from hbdp_fed.data.contract import ImageDataset, Preparation
from hbdp_fed.data.defects import SHAPE, Defect
from hbdp_fed.data.dicom.header import read_header
from hbdp_fed.data.dicom.image import dicom_preparation, read_dicom_image
from hbdp_fed.data.dicom.pixels import frame_of
from hbdp_fed.data.dicom.series import read_series, read_series_volume, slice_files
from hbdp_fed.data.grid import Grid, check_window
from hbdp_fed.data.own.imagefolder import scaled_mask
from hbdp_fed.data.own.loading import Listing, load_listed, open_listing
from hbdp_fed.data.own.nifti import NIFTI, nifti_header, nifti_mask
from hbdp_fed.data.own.reading import Header, RecordReader, Sample
from hbdp_fed.data.own.table import Row
from hbdp_fed.data.own.volume_reader import VolumeFiles, VolumeHeader, VolumeReader
from hbdp_fed.data.photographs import CHANNELS
from hbdp_fed.data.pictures import read_mask, upright_size
from hbdp_fed.data.volumes import StoredVolume, volume_pipeline
from hbdp_fed.errors import SettingError, unknown_choice

_OUTLINES = ".png"


def load_dicom(
    *,
    root: Path,
    manifest: str | None = None,
    folder: str | None = None,
    class_names: Sequence[str] | None = None,
    image_size: int | list[int] | tuple[int, ...] = 64,
    mode: str = "L",
    fit: str = "crop",
    spacing: Sequence[float] | None = None,
    window: Sequence[float] | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    on_bad_record: str = "stop",
) -> ImageDataset:
    """Read the DICOM files or series that a manifest lists (see :func:`hbdp_fed.data.own.table.read_table`).

    Args:
        root: What relative paths of ``manifest`` and ``folder`` start from.
        manifest: The CSV table. A path is a file, or the folder of a series; the mask of a series is a NIfTI file, or a
            folder of one PNG a slice in the order of the file names.
        folder: What the paths in it start from; None is the manifest's own folder.
        class_names: The classes; None takes the labels that occur, sorted, or background and foreground of masks.
        image_size: One number for files: height and width that each is scaled to, at least 16. Three for series: the
            common size in voxels, sides of at least 16, in the order right, anterior, superior.
        mode: For files: ``L`` for grey, or ``RGB``.
        fit: For series, one of :data:`hbdp_fed.data.grid.FITS`.
        spacing: For series: the size of a voxel in mm that they are resampled to first; None leaves them.
        window: The values after rescaling, in CT Hounsfield units, that become 0 and 1. None takes the window of each
            file, and of a series two percentiles.
        val_fraction: The share of patients in the validation split, where the table does not name it.
        test_fraction: The same of the test split.
        split_seed: The division's own seed.
        on_bad_record: ``stop`` or ``skip``: what becomes of records that cannot be used.

    Returns:
        float32 (N, C, *image_size). Groups are the patients, if the table names them.

    Raises:
        SettingError: if an option cannot be used.
        DataFileError: if the manifest is none, records are bad under ``stop``, or a split is left without a record.
    """
    if mode not in CHANNELS:
        raise unknown_choice("data.mode", mode, CHANNELS)
    if window is not None:
        check_window(window)
    if not isinstance(image_size, int | list | tuple):
        raise SettingError("data.image_size", f"must be one number for files, or three for series, got {image_size}")
    grid = None
    if isinstance(image_size, int):
        check_integer("data.image_size", image_size, minimum=16)
    else:
        grid = Grid(size=image_size, fit=fit, spacing=spacing, window=window)
    listing = open_listing(
        root=root,
        manifest=manifest,
        folder=folder,
        class_names=class_names,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        split_seed=split_seed,
        on_bad_record=on_bad_record,
    )
    reader: RecordReader
    if isinstance(image_size, int):
        reader = DicomReader(mode, image_size, window, listing.question.class_names)
        preparation = dicom_preparation(mode, image_size, window)
    else:
        assert grid is not None
        reader, preparation = _series_reader(listing, grid)
    return load_listed(
        "dicom",
        listing,
        reader=reader,
        preparation=preparation,
        record="image" if grid is None else "volume",
    )


@dataclass(frozen=True)
class DicomReader:
    """Reads DICOM files, each an image, and the pictures that are their masks.

    Attributes:
        mode: ``L`` or ``RGB``.
        image_size: Height and width of what is returned.
        window: The values that become 0 and 1; None takes each file's own.
        class_names: Of masks.
    """

    mode: str
    image_size: int
    window: Sequence[float] | None
    class_names: Sequence[str]
    at_once: int = 64

    def inspect(self, row: Row) -> Header:
        """As in the protocol."""
        if row.path.is_dir():
            raise Defect(SHAPE, "is a folder; volumes are read with three numbers as data.image_size", row.path)
        file = read_header(row.path)
        frame = frame_of(file)
        if row.mask is not None:
            own = upright_size(row.mask)
            if own != (frame.rows, frame.columns):
                sides = f"{frame.rows}x{frame.columns}"
                raise Defect(SHAPE, f"has {own[0]}x{own[1]} pixels, but its image {row.path.name} {sides}", row.mask)
        return Header(CHANNELS[self.mode])

    def read(self, row: Row) -> Sample:
        """As in the protocol."""
        size = (self.image_size, self.image_size)
        image = read_dicom_image(row.path, mode=self.mode, size=size, window=self.window)
        return Sample(image, None if row.mask is None else scaled_mask(row.mask, self.class_names, self.image_size))


def _series_reader(listing: Listing, grid: Grid) -> tuple[VolumeReader, Preparation]:
    preparation = grid.preparation(unit="after the rescale slope and intercept, of CT Hounsfield units")
    prepare = volume_pipeline(preparation.details, label=listing.table.has_masks)
    files = series_files(listing.table.folder)
    return VolumeReader(files, prepare, listing.question.class_names), preparation


def series_files(root: Path) -> VolumeFiles:
    """How series are read.

    Args:
        root: The folder that no link may lead out of.
    """

    def header(row: Row) -> VolumeHeader:
        series = read_series(row.path, root=root)
        return VolumeHeader(series.shape, series.affine)

    def mask_header(row: Row, image: VolumeHeader) -> VolumeHeader:
        mask = _mask_of(row)
        if mask.name.lower().endswith(NIFTI):
            return nifti_header(mask)
        outlines = slice_files(mask, root=root, suffix=_OUTLINES)
        for path in outlines:
            height, width = upright_size(path)
            if (width, height) != image.shape[:2]:
                raise Defect(
                    SHAPE, f"has {height}x{width} pixels, but its slice {image.shape[1]}x{image.shape[0]}", path
                )
        return VolumeHeader((*image.shape[:2], len(outlines)), image.affine)

    def mask(row: Row) -> StoredVolume:
        path = _mask_of(row)
        if path.name.lower().endswith(NIFTI):
            return nifti_mask(path)
        series = read_series(row.path, root=root)
        outlines = [read_mask(outline).T for outline in slice_files(path, root=root, suffix=_OUTLINES)]
        # Outlines are named in the files' order, which may be any.
        stacked = np.stack([outlines[number] for number in series.order], axis=-1)
        return StoredVolume(stacked.astype(np.float32), series.affine)

    return VolumeFiles(
        header=header,
        image=lambda row: read_series_volume(read_series(row.path, root=root)),
        mask_header=mask_header,
        mask=mask,
    )


def _mask_of(row: Row) -> Path:
    assert row.mask is not None
    return row.mask
