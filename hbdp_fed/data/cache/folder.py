"""The folder: a folder for each data set, named by its key, that holds it and what it was dealt into.

    <key>/dataset.safetensors       the three splits
    <key>/<key>.safetensors         a hospital's records, or a split as scanners show it
    contents/<name>.json            the hashes of files, which need not be read again

They hold patients' pictures, so nobody but their owner may look into the folders.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from hbdp_fed.data.cache.keys import code_version, key_of
from hbdp_fed.data.cache.sealed import read_sealed, write_sealed
from hbdp_fed.data.cache.stored import dataset_of, facts_of, tensors_of
from hbdp_fed.data.contract import ImageDataset, Records
from hbdp_fed.data.keeping import Keep, Kept
from hbdp_fed.data.shards import shard_of, shard_tensors
from hbdp_fed.errors import DataFileError

_LOGGER = logging.getLogger(__name__)

DATASET_FILE = "dataset.safetensors"
SUFFIX = ".safetensors"
CONTENTS = "contents"
_ONLY_OWNER = 0o700

_LEFT_FREE = 2**30
"""Bytes of the disk that keeping never takes."""

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class DataCache:
    """A folder of prepared records. Whatever goes wrong with it, the records are made as they would be without it.

    Attributes:
        path: Absolute path. It is made when the first thing is kept.
    """

    path: Path

    def index(self, name: str, root: Path) -> Path:
        """Where the hashes of a data set's files are remembered.

        Raises:
            OSError: if the folder cannot be made.
        """
        folder = self.path / CONTENTS
        make_private(folder)
        return folder / f"{name}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json"

    def find(self, key: str, *, root: Path) -> ImageDataset | None:
        """The data set with this key, mapped; None if there is none, or none that can be used."""
        file = self.path / key / DATASET_FILE

        def read(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> ImageDataset:
            return dataset_of(tensors, about["facts"], root=root)

        found = _read(file, key, read)
        if found is not None:
            with suppress(OSError):  # the time says when it was used last
                os.utime(file)
        return found

    def keep(self, key: str, dataset: ImageDataset, *, root: Path, made_of: Mapping[str, Any]) -> ImageDataset:
        """Write a data set down.

        Args:
            key: Its key.
            dataset: As it was loaded.
            root: The folder that it was read from.
            made_of: What people are told of it in a list: the data set's name and options.

        Returns:
            The same, mapped from the file; or as it was given, if it cannot be written.
        """
        about = {"key": key, "code": code_version(), "made_of": made_of, "facts": facts_of(dataset, root=root)}
        if not _written(self.path / key / DATASET_FILE, tensors_of(dataset), about):
            return dataset
        found = self.find(key, root=root)
        return dataset if found is None else found

    def shards(self, dataset_key: str) -> Keep:
        """Keeps what a data set is dealt into beside it."""

        def keep(facts: Mapping[str, Any], make: Callable[[], Records]) -> Kept:
            key = key_of(dataset=dataset_key, shard=facts)
            file = self.path / dataset_key / f"{key}{SUFFIX}"
            found = _read(file, key, lambda tensors, _: shard_of(file, tensors))
            if found is None:
                records = make()
                if _written(file, shard_tensors(records), {"key": key, "split": facts["split"]}):
                    found = _read(file, key, lambda tensors, _: shard_of(file, tensors))
                if found is None:
                    return Kept(records, None)
            return Kept(found, file)

        return keep


def _read(file: Path, key: str, read: Callable[[Mapping[str, Tensor], Mapping[str, Any]], _Found]) -> _Found | None:
    """What a file holds, if it is there and is what it should be."""
    if not file.exists():
        return None
    try:
        tensors, about = read_sealed(file)
        if about.get("key") != key:
            raise DataFileError(file, "is another file than its name says")
        return read(tensors, about)
    except (DataFileError, KeyError, TypeError, ValueError) as error:
        problem = error.problem if isinstance(error, DataFileError) else f"has another layout ({error!r})"
        _LOGGER.warning("%s %s; it is made again", file, problem)
        return None


def _written(file: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bool:
    """Whether it could be written."""
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    try:
        make_private(file.parent)
        free = shutil.disk_usage(file.parent).free
        if free < needed + _LEFT_FREE:
            raise DataFileError(file, f"cannot be written: it takes {_gb(needed)}, and the disk has {_gb(free)} left")
        write_sealed(file, tensors, about)
    except DataFileError as error:
        _LOGGER.warning("records are not kept: %s", error)
        return False
    except OSError as error:
        _LOGGER.warning("records are not kept: %s cannot be made (%s)", file.parent, error.strerror)
        return False
    return True


def make_private(folder: Path) -> None:
    """Make a folder, and the one above it, that nobody but their owner may look into. What is there stays as it is.

    Raises:
        OSError: if that is not possible.
    """
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for path in (folder.parent, folder):
        path.mkdir(mode=_ONLY_OWNER, exist_ok=True)


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
