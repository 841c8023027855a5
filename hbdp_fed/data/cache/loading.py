"""Loads a data set, or finds it where it was kept."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbdp_fed.data.cache.contents import contents
from hbdp_fed.data.cache.folder import DataCache
from hbdp_fed.data.cache.keys import key_of
from hbdp_fed.data.contract import ImageDataset
from hbdp_fed.data.keeping import Keep, in_memory
from hbdp_fed.data.registry import NO_OPTIONS, DatasetEntry, entry_for, load_dataset

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A data set, and where what it is dealt into is kept.

    Attributes:
        dataset: The data set.
        keep: For :func:`hbdp_fed.data.deal`.
    """

    dataset: ImageDataset
    keep: Keep = in_memory


def load_kept(
    cache: DataCache | None, name: str, *, root: Path | None = None, options: Mapping[str, Any] = NO_OPTIONS
) -> Loaded:
    """Load a data set as :func:`hbdp_fed.data.load_dataset` does, or find it in the cache, bit for bit the same.

    A set that reads no files is drawn: that takes no longer than to look for it.

    Args:
        cache: Where; None keeps nothing.
        name: A key of ``DATASETS``.
        root: The folder of the data files.
        options: The set's own options.

    Raises:
        UserError: as :func:`hbdp_fed.data.load_dataset`.
    """
    entry, root = entry_for(name, root=root, options=options)
    if cache is None or root is None or entry.files is None:
        return Loaded(load_dataset(name, root=root, options=options))
    made_of = {"name": name, "options": {**entry.defaults, **options}}
    key = _key(cache, entry, root, made_of)
    if key is not None and (found := cache.find(key, root=root)) is not None:
        return Loaded(found, cache.shards(key))
    dataset = load_dataset(name, root=root, options=options)
    if key is None:
        return Loaded(dataset)
    if _key(cache, entry, root, made_of) != key:
        _LOGGER.warning("records of %s are not kept: files were changed while they were read", name)
        return Loaded(dataset)
    kept = cache.keep(key, dataset, root=root, made_of=made_of)
    # What is dealt out of a data set that there is no room for has no room either.
    return Loaded(dataset) if kept is dataset else Loaded(kept, cache.shards(key))


def _key(cache: DataCache, entry: DatasetEntry, root: Path, made_of: Mapping[str, Any]) -> str | None:
    """The data set's key; None where a file cannot be read, of which the loader has more to say."""
    assert entry.files is not None
    try:
        index = cache.index(made_of["name"], root.absolute())
    except OSError as error:
        _LOGGER.warning("records of %s are not kept: %s", made_of["name"], error)
        return None
    try:
        files = sorted({str(file) for file in entry.files(root=root, **made_of["options"])})
        found = contents(files, index)
    except OSError as error:
        _LOGGER.info("records of %s are not kept: %s", made_of["name"], error)
        return None
    digest = hashlib.sha256()
    for file, sha256 in found.items():
        # By its place below the root, wherever that lies.
        digest.update(os.fsencode(f"{file.removeprefix(f'{root}{os.sep}')}\0{sha256}\n"))
    return key_of(**made_of, files=digest.hexdigest())
