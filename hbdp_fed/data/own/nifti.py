"""NIfTI volumes that a manifest lists, whatever their orientation and the size of their voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hbdp_fed.data.bad_records import reason
from hbdp_fed.data.contract import ImageDataset
from hbdp_fed.data.defects import SHAPE, TRUNCATED, UNREADABLE, Defect, check_file
from hbdp_fed.data.grid import Grid
from hbdp_fed.data.own.loading import load_listed, open_listing
from hbdp_fed.data.own.table import Row
from hbdp_fed.data.own.volume_reader import VolumeFiles, VolumeHeader, VolumeReader
from hbdp_fed.data.volumes import UNREADABLE as BROKEN
from hbdp_fed.data.volumes import StoredVolume, read_nifti, volume_pipeline

NIFTI = (".nii", ".nii.gz")
_CUT_OFF = ("end-of-stream", "damaged", "Expected ")
"""Words of zlib and nibabel for a file that ends too early."""


def load_nifti(
    *,
    root: Path,
    manifest: str | None = None,
    folder: str | None = None,
    class_names: Sequence[str] | None = None,
    image_size: Sequence[int] = (40, 56, 40),
    fit: str = "crop",
    spacing: Sequence[float] | None = None,
    window: Sequence[float] | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    on_bad_record: str = "stop",
) -> ImageDataset:
    """Read the NIfTI volumes that a manifest lists (see :func:`hbdp_fed.data.own.table.read_table`).

    Args:
        root: What relative paths of ``manifest`` and ``folder`` start from.
        manifest: The CSV table.
        folder: What the paths in it start from; None is the manifest's own folder.
        class_names: The classes; None takes the labels that occur, sorted, or background and foreground of masks.
        image_size: The common size in voxels, three sides of at least 16, in the order right, anterior, superior.
        fit: One of :data:`hbdp_fed.data.grid.FITS`.
        spacing: The size of a voxel in mm that volumes are resampled to first, three numbers; None leaves them.
        window: The grey levels that become 0 and 1, in CT Hounsfield units; None takes two percentiles of each volume.
        val_fraction: The share of patients in the validation split, where the table does not name it.
        test_fraction: The same of the test split.
        split_seed: The division's own seed.
        on_bad_record: ``stop`` or ``skip``: what becomes of records that cannot be used.

    Returns:
        Volumes (N, C, *image_size), float32, a channel a modality. Groups are the patients, if the table names them.

    Raises:
        SettingError: if an option cannot be used.
        DataFileError: if the manifest is none, records are bad under ``stop``, or a split is left without a record.
    """
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
    preparation = grid.preparation(unit="as the file has them")
    prepare = volume_pipeline(preparation.details, label=listing.table.has_masks)
    return load_listed(
        "nifti",
        listing,
        reader=VolumeReader(FILES, prepare, listing.question.class_names),
        preparation=preparation,
        record="volume",
    )


def nifti_header(path: Path) -> VolumeHeader:
    """Where a file's voxels are, without reading them.

    Raises:
        Defect: if it is no NIfTI file of a volume, or shorter than it says.
    """
    check_file(path)
    if not path.name.lower().endswith(NIFTI):
        raise Defect(UNREADABLE, f"is no NIfTI file by its name, which must end in {' or '.join(NIFTI)}", path)
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        file = nibabel.load(path)
        shape = tuple(int(side) for side in file.shape)  # type: ignore[attr-defined]
        affine = np.asarray(file.affine, dtype=np.float64)  # type: ignore[attr-defined]
        start = int(file.dataobj.offset)  # type: ignore[attr-defined]
        wanted = start + math.prod(shape) * file.get_data_dtype().itemsize  # type: ignore[attr-defined]
    except (*BROKEN, ImageFileError, HeaderDataError) as error:
        raise _broken(path, f"cannot be read ({reason(error)})") from error
    if len(shape) not in (3, 4) or 0 in shape:
        raise Defect(SHAPE, f"has the shape {shape}; a volume has three sides, or four with its modalities", path)
    size = path.stat().st_size
    if path.suffix.lower() == ".nii" and size < wanted:
        raise Defect(TRUNCATED, f"has {size} bytes, but its header asks for {wanted}", path)
    return VolumeHeader(shape[:3], affine, channels=shape[3] if len(shape) == 4 else 1)


def nifti_volume(path: Path) -> StoredVolume:
    """A file's voxels.

    Raises:
        Defect: if it cannot be read.
    """
    stored = read_nifti(path)
    if isinstance(stored, str):
        raise _broken(path, stored)
    return stored


def nifti_mask(path: Path) -> StoredVolume:
    """As :func:`nifti_volume`; a fourth axis of one is no axis."""
    stored = nifti_volume(path)
    return StoredVolume(stored.voxels.reshape(stored.voxels.shape[:3]), stored.affine)


def _broken(path: Path, problem: str) -> Defect:
    return Defect(TRUNCATED if any(words in problem for words in _CUT_OFF) else UNREADABLE, problem, path)


def _mask_path(row: Row) -> Path:
    assert row.mask is not None
    return row.mask


FILES = VolumeFiles(
    header=lambda row: nifti_header(row.path),
    image=lambda row: nifti_volume(row.path),
    mask_header=lambda row, _: nifti_header(_mask_path(row)),
    mask=lambda row: nifti_mask(_mask_path(row)),
)
