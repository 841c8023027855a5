"""From a NIfTI file to the grid and the grey levels that a model takes, and from there back to the file's grid."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hbdp_fed.data.bad_records import reason

UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,  # voxels that are no numbers, but colours
    RuntimeError,
    MemoryError,  # a broken header promises any number of voxels
    zlib.error,
)

Prepare = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""MONAI's way with a record: tensors with an affine matrix by name."""


@dataclass(frozen=True)
class StoredVolume:
    """What a NIfTI file holds.

    Attributes:
        voxels: float32 (X, Y, Z), or (X, Y, Z, M) with M modalities.
        affine: float64 (4, 4), from voxels to mm.
    """

    voxels: NDArray[np.float32]
    affine: NDArray[np.float64]

    @property
    def modalities(self) -> int:
        """How many grey levels a voxel has."""
        return self.voxels.shape[3] if self.voxels.ndim == 4 else 1

    @property
    def channels_first(self) -> Tensor:
        """float32 (M, X, Y, Z)."""
        # The last axis of four is the modality.
        moved = np.moveaxis(self.voxels, -1, 0) if self.voxels.ndim == 4 else self.voxels[None]
        return torch.from_numpy(np.ascontiguousarray(moved))


def read_nifti(path: Path) -> StoredVolume | str:
    """The file's voxels and affine matrix, or what is wrong with the file."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        file = nibabel.load(path)
        return StoredVolume(
            voxels=np.asanyarray(file.dataobj, dtype=np.float32),  # type: ignore[attr-defined]
            affine=np.asarray(file.affine),  # type: ignore[attr-defined]
        )
    except (*UNREADABLE, ImageFileError, HeaderDataError) as error:
        return f"cannot be read ({reason(error)})"


def write_nifti(path: Path, voxels: NDArray[np.uint8], affine: NDArray[np.float64]) -> None:
    """A NIfTI file with these voxels, (X, Y, Z), on the grid of ``affine``."""
    import nibabel

    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)  # type: ignore[no-untyped-call]


def volume_pipeline(details: Mapping[str, Any], *, label: bool) -> Prepare:
    """MONAI's transforms of a record, from the grid it is stored on to the common one.

    Args:
        details: Of a :class:`hbdp_fed.data.contract.Preparation` of the kind ``volume``.
        label: Whether the record has a ``label`` beside its ``image``.
    """
    from monai import transforms as mt  # here, because it takes seconds to import

    keys = ("image", "label") if label else ("image",)

    def modes(image: str, of_label: str) -> Sequence[str]:
        return (image, of_label)[: len(keys)]

    low, high, size = details["intensity"]["low"], details["intensity"]["high"], tuple(details["size"])
    intensity: Mapping[str, Callable[[], list[Any]]] = {
        "window": lambda: [mt.ScaleIntensityRanged("image", a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True)],
        "percentiles": lambda: [
            mt.ScaleIntensityRangePercentilesd(
                "image", lower=low, upper=high, b_min=0.0, b_max=1.0, clip=True, channel_wise=True
            ),
            # MONAI does not clip where the two percentiles are the same.
            mt.Lambdad("image", func=lambda image: image.clamp(0.0, 1.0)),
        ],
    }
    fitting: Mapping[str, Callable[[], Any]] = {
        "crop": lambda: mt.ResizeWithPadOrCropd(keys, spatial_size=size),
        # Plain "nearest" takes the first voxel of each block, which shifts labels by half a block against the image.
        "scale": lambda: mt.Resized(keys, spatial_size=size, mode=modes("area", "nearest-exact")),
    }
    spacing = details["spacing"]
    composed: Prepare = mt.Compose(
        [
            mt.Orientationd(keys, axcodes=details["orientation"], labels=None),
            *([] if spacing is None else [mt.Spacingd(keys, pixdim=tuple(spacing), mode=modes("bilinear", "nearest"))]),
            *intensity[details["intensity"]["kind"]](),
            fitting[details["fit"]](),
        ]
    )
    return composed


def prepared_image(stored: StoredVolume, prepare: Prepare) -> tuple[Tensor, NDArray[np.float64]]:
    """The image float32 (M, *size) in [0, 1] that a model takes, and the affine matrix of its grid.

    Args:
        stored: As it was read.
        prepare: Of :func:`volume_pipeline` without a label.

    Raises:
        ValueError: if the volume cannot be brought to the common grid.
    """
    from monai.data.meta_tensor import MetaTensor

    image = MetaTensor(stored.channels_first, affine=torch.from_numpy(stored.affine))
    try:
        ready = prepare({"image": image})["image"]
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"cannot be brought to the common grid ({reason(error)})") from error
    affine: NDArray[np.float64] = ready.affine.double().numpy()
    return ready.as_tensor().float().contiguous(), affine


def prepared_pair(
    stored: StoredVolume, labels: NDArray[Any], prepare: Prepare
) -> tuple[Tensor, Tensor, tuple[float, ...]]:
    """A volume and its labels on the common grid.

    Args:
        stored: As it was read.
        labels: A class a voxel, (X, Y, Z), where the volume is, though the matrix of their own file may differ in a
            last digit.
        prepare: Of :func:`volume_pipeline` with a label.

    Returns:
        The image float32 (M, *size) in [0, 1], the labels int64 (*size), and the size of a voxel in mm.

    Raises:
        ValueError: if the volume cannot be brought to the common grid.
    """
    from monai.data.meta_tensor import MetaTensor

    affine = torch.from_numpy(stored.affine)
    pair = {
        "image": MetaTensor(stored.channels_first, affine=affine),
        "label": MetaTensor(torch.from_numpy(labels[None]), affine=affine),
    }
    try:
        ready = prepare(pair)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"cannot be brought to the common grid ({reason(error)})") from error
    return (
        ready["image"].as_tensor().float().contiguous(),
        ready["label"].as_tensor()[0].long(),
        tuple(round(float(size), 3) for size in ready["image"].pixdim),
    )


def on_file_grid(
    mask: NDArray[np.uint8], affine: NDArray[np.float64], *, like: NDArray[np.float64], shape: Sequence[int]
) -> NDArray[np.uint8]:
    """A mask brought to another grid: each voxel takes the class of the nearest one, and 0 where there is none.

    Args:
        mask: (x, y, z), classes.
        affine: float64 (4, 4), of the mask's grid.
        like: float64 (4, 4), of the grid that is wanted.
        shape: Its (X, Y, Z).
    """
    # From the wanted grid's voxels to the mask's, of which only the rounded place counts.
    way = np.linalg.inv(affine) @ like
    axes = np.meshgrid(*(np.arange(side) for side in shape), indexing="ij")
    places = np.stack([axis.ravel() for axis in axes])
    # A voxel half-way between two would be rounded by the last bit of a matrix.
    found = np.floor(np.round(way[:3, :3] @ places + way[:3, 3:], 6) + 0.5).astype(np.int64)
    inside = ((found >= 0) & (found < np.asarray(mask.shape)[:, None])).all(axis=0)
    wanted = np.zeros(places.shape[1], dtype=np.uint8)
    wanted[inside] = mask[tuple(found[:, inside])]
    return wanted.reshape(tuple(shape))
