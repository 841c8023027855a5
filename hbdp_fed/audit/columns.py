"""The records that a picture shows: the ones that were rebuilt best, and how a run keeps them for later pictures."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hbdp_fed.audit.outcomes import ProbeOutcome
from hbdp_fed.errors import DataFileError
from hbdp_fed.types import Reconstruction
from hbdp_fed.whole_files import whole

_IMAGES = ("original", "reconstruction", "nearest")
_KINDS = {"original": "f", "reconstruction": "f", "nearest": "f", "ssim": "f", "success": "b", "hospital": "U"}
"""NumPy's kind of each array in a file."""


@dataclass(frozen=True)
class Column:
    """One record in a picture.

    Attributes:
        original: float (C, H, W) or (C, H, W, D) in [0, 1]; C = 3 is shown in colour, otherwise the first channel is.
        reconstruction: The same shape.
        nearest: The same shape, the public image that comes closest to the original.
        ssim: Of the reconstruction with the original.
        success: Whether that counts as a success.
        hospital: Whose record.
    """

    original: Tensor
    reconstruction: Tensor
    nearest: Tensor
    ssim: float
    success: bool
    hospital: str


def best_columns(
    probes: Sequence[tuple[ProbeOutcome, Reconstruction, Tensor]], public: Tensor, *, count: int = 8
) -> list[Column]:
    """The ``count`` records that were rebuilt best, the best first.

    Args:
        probes: Each probe's outcome, with the reconstruction and the originals (N, C, *spatial) that it was audited
            from, of a record in several views the one that the outcome is about.
        public: float (P, C, *spatial), the public images of the audit.
        count: At most this many.
    """
    columns = [
        Column(
            original=originals[record],
            reconstruction=reconstruction.images[outcome.reconstruction[record]],
            nearest=public[outcome.nearest_public[record]],
            ssim=float(outcome.ssim[record]),
            success=bool(outcome.success[record]),
            hospital=outcome.hospital,
        )
        for outcome, reconstruction, originals in probes
        for record in torch.nonzero(outcome.reconstruction >= 0).flatten().tolist()
    ]
    return best_first(columns)[:count]


def best_first(columns: Iterable[Column]) -> list[Column]:
    """Successes first, then by SSIM."""
    return sorted(columns, key=lambda column: (not column.success, -column.ssim))


def save_columns(path: Path, columns: Sequence[Column]) -> None:
    """Write columns of one shape as an npz archive, whole or not at all; the same columns are the same bytes.

    Args:
        path: The file; its folder is made if it is not there.
        columns: May be empty.

    Raises:
        ValueError: if images differ in shape.
    """
    shapes = {tuple(getattr(column, name).shape) for column in columns for name in _IMAGES}
    if len(shapes) > 1:
        raise ValueError(f"columns of one file have images of one shape, got {sorted(shapes)}")
    arrays: dict[str, NDArray[Any]] = {
        name: np.array([getattr(column, name).detach().float().numpy() for column in columns], dtype=np.float32)
        for name in _IMAGES
    }
    arrays["ssim"] = np.array([column.ssim for column in columns], dtype=np.float64)
    arrays["success"] = np.array([column.success for column in columns], dtype=np.bool_)
    arrays["hospital"] = np.array([column.hospital for column in columns], dtype=np.str_)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_columns(path: Path) -> list[Column]:
    """The inverse of :func:`save_columns`; images come back in float32.

    Raises:
        DataFileError: if the file is missing or is not what :func:`save_columns` writes.
    """
    arrays = _read(path)
    count, shape = len(arrays["original"]), arrays["original"].shape
    odd = [name for name, array in arrays.items() if array.dtype.kind != _KINDS[name] or len(array) != count]
    odd += [name for name in _IMAGES if arrays[name].shape != shape or (count and len(shape) not in (4, 5))]
    if odd:
        raise DataFileError(path, f"is no file of columns: {', '.join(sorted(set(odd)))} cannot be theirs")
    return [
        Column(
            original=torch.from_numpy(arrays["original"][row]),
            reconstruction=torch.from_numpy(arrays["reconstruction"][row]),
            nearest=torch.from_numpy(arrays["nearest"][row]),
            ssim=float(arrays["ssim"][row]),
            success=bool(arrays["success"][row]),
            hospital=str(arrays["hospital"][row]),
        )
        for row in range(count)
    ]


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # Never unpickle: a data file must not be able to run code.
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataFileError(path, "is a single array, not a file of columns")
        with archive:
            arrays = {name: np.atleast_1d(archive[name]) for name in _KINDS}
    except FileNotFoundError as error:
        raise DataFileError(path, "there is no such file") from error
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataFileError(path, f"is no file of columns ({error})") from error
    return arrays
