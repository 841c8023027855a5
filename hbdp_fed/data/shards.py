"""A site's own records on its own disk.

The format is safetensors: it holds nothing but tensors, so a shard cannot run code, and it is mapped into memory, so
opening one takes no longer for a large hospital than for a small one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hbdp_fed.data.contract import Records
from hbdp_fed.errors import DataFileError
from hbdp_fed.whole_files import whole

_ADVICE = "write the site's shard again"


def write_shard(path: Path, records: Records) -> None:
    """Write ``records`` to ``path``, replacing what was there in one step, so that no reader sees half a file.

    Images, labels and outlines are written; training needs no names, patients or attributes.

    Raises:
        DataFileError: if the file cannot be written.
    """
    tensors = shard_tensors(records)
    try:
        with whole(path, shared=True) as unfinished:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished)
    except (OSError, SafetensorError) as error:
        raise DataFileError(path, f"cannot be written ({error})") from error


def shard_tensors(records: Records) -> dict[str, Tensor]:
    """What a shard holds of records, by name."""
    tensors = {"images": records.images, "labels": records.labels}
    return tensors if records.masks is None else {**tensors, "masks": records.masks}


def read_shard(path: Path) -> Records:
    """Read the images, labels and outlines that :func:`write_shard` wrote, bit for bit.

    Returns:
        Records whose tensors are mapped from the file: pages are read when they are first used.

    Raises:
        DataFileError: if the file is missing, damaged or not a shard.
    """
    if not path.is_file():
        raise DataFileError(path, f"there is no such file; {_ADVICE}")
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataFileError(path, f"cannot be read ({error}); {_ADVICE}") from error
    return shard_of(path, tensors)


def shard_of(path: Path, tensors: Mapping[str, Tensor]) -> Records:
    """The records that these tensors of a file are.

    Raises:
        DataFileError: if they are no shard's.
    """
    if problem := _problem(tensors):
        raise DataFileError(path, f"is not a shard: {problem}; {_ADVICE}")
    return Records(images=tensors["images"], labels=tensors["labels"], masks=tensors.get("masks"))


def _problem(tensors: Mapping[str, Tensor]) -> str | None:
    """What is wrong with a shard's tensors; None if nothing is."""
    if not {"images", "labels"} <= tensors.keys() <= {"images", "labels", "masks"}:
        return f"it holds {', '.join(sorted(tensors)) or 'nothing'}"
    images, labels = tensors["images"], tensors["labels"]
    if images.dtype not in (torch.float32, torch.uint8) or images.dim() not in (4, 5):
        return f"images is {images.dtype} {tuple(images.shape)}, not float32 or uint8 (N, C, *spatial)"
    count, _, *spatial = images.shape
    fitting = labels.dim() in (1, 2) or list(labels.shape[1:]) == spatial
    if labels.dtype != torch.int64 or labels.shape[:1] != (count,) or not fitting:
        accepted = f"({count},), ({count}, K) or ({count}, {', '.join(map(str, spatial))})"
        return f"labels is {labels.dtype} {tuple(labels.shape)}, not int64 {accepted}"
    masks = tensors.get("masks")
    if masks is not None and (masks.dtype != torch.bool or list(masks.shape) != [count, 1, *spatial]):
        return f"masks is {masks.dtype} {tuple(masks.shape)}, not bool {(count, 1, *spatial)}"
    return None
