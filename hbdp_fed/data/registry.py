"""The data sets by name, and how one is loaded from what a user set."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hbdp_fed.data.chest_xray import chest_xray_files, load_chest_xray
from hbdp_fed.data.contract import ImageDataset
from hbdp_fed.data.ham10000 import ham10000_files, load_ham10000
from hbdp_fed.data.medmnist import any_medmnist_files, load_any_medmnist, load_medmnist, medmnist_files
from hbdp_fed.data.msd import load_msd, msd_files
from hbdp_fed.data.own.dicom import load_dicom
from hbdp_fed.data.own.files import own_files
from hbdp_fed.data.own.imagefolder import load_imagefolder
from hbdp_fed.data.own.nifti import load_nifti
from hbdp_fed.data.phantom import load_phantom
from hbdp_fed.data.radimagenet import load_radimagenet, radimagenet_files
from hbdp_fed.errors import SettingError, unknown_choice

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class DatasetEntry:
    """How one data set is loaded.

    Attributes:
        load: Takes the set's options as keywords, and the keyword ``root`` if it reads files.
        needs_files: Whether it does.
        files: Takes ``root`` and all of the set's options as keywords and gives all files on which the result depends,
            also those that should be there and are not: calls of ``load`` with the same options that see the same files
            under the same names give the same bits. So prepared records can be kept (see :mod:`hbdp_fed.data.cache`);
            None if they cannot be.
    """

    load: Callable[..., ImageDataset]
    needs_files: bool
    files: Callable[..., Iterable[Path]] | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the options that a user may set."""
        return tuple(self.defaults)

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The options with the values that they have where nobody sets them."""
        parameters = inspect.signature(self.load).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "root"}


DATASETS: Mapping[str, DatasetEntry] = {
    "phantom": DatasetEntry(load_phantom, needs_files=False),
    "medmnist": DatasetEntry(load_any_medmnist, needs_files=True, files=any_medmnist_files),
    # Two sets have a recipe of their own, and so a name.
    **{
        name: DatasetEntry(partial(load_medmnist, name), needs_files=True, files=partial(medmnist_files, name))
        for name in ("breastmnist", "pneumoniamnist")
    },
    "ham10000": DatasetEntry(load_ham10000, needs_files=True, files=ham10000_files),
    "msd": DatasetEntry(load_msd, needs_files=True, files=msd_files),
    "chest_xray": DatasetEntry(load_chest_xray, needs_files=True, files=chest_xray_files),
    "radimagenet": DatasetEntry(load_radimagenet, needs_files=True, files=radimagenet_files),
    # Whatever a hospital has, by a table of its own.
    "imagefolder": DatasetEntry(load_imagefolder, needs_files=True, files=own_files),
    "nifti": DatasetEntry(load_nifti, needs_files=True, files=own_files),
    "dicom": DatasetEntry(load_dicom, needs_files=True, files=own_files),
}


def entry_for(name: str, *, root: Path | None, options: Mapping[str, Any]) -> tuple[DatasetEntry, Path | None]:
    """The data set's entry, if it can be loaded with these arguments, and the folder that its files are read from.

    Returns:
        The folder is ``root``; without one, a manifest's own, where its paths need no other; None for a set without
        files.

    Raises:
        SettingError: if the name or an option is unknown, or ``root`` is needed and None.
    """
    if name not in DATASETS:
        raise unknown_choice("data", name, DATASETS)
    entry = DATASETS[name]
    for option in options:
        if option not in entry.options:
            known = ", ".join(entry.options) or "none"
            raise SettingError(f"data.{option}", f"the data set '{name}' has no such option; it has: {known}")
    if not entry.needs_files:
        return entry, None
    root = root or _own_root(entry, options)
    if root is None:
        listed = ", or give data.manifest as an absolute path" if "manifest" in entry.options else ""
        raise SettingError(
            "data", f"'{name}' is read from files: set HBDP_DATA to the folder that holds the data sets{listed}"
        )
    return entry, root


def load_dataset(name: str, *, root: Path | None = None, options: Mapping[str, Any] = NO_OPTIONS) -> ImageDataset:
    """Load a data set.

    A run's seed has no part in it: a set that is drawn has a seed of its own among its options, so that runs with
    different seeds train on the same data.

    Args:
        name: A key of ``DATASETS``.
        root: The folder of the data files; a set that needs none ignores it, and one that a manifest lists can do
            without it if the paths among its options are absolute.
        options: The set's own options, each without the prefix ``data.``.

    Raises:
        SettingError: if the name or an option is unknown, a value cannot be used, or ``root`` is needed and None.
        DataFileError: if a file is missing or broken.
    """
    entry, root = entry_for(name, root=root, options=options)
    return entry.load(root=root, **options) if entry.needs_files else entry.load(**options)


def _own_root(entry: DatasetEntry, options: Mapping[str, Any]) -> Path | None:
    """The manifest's folder, where neither it nor ``folder`` is a path that starts from another one."""
    given = [Path(str(options[key])).expanduser() for key in ("manifest", "folder") if options.get(key)]
    if "manifest" not in entry.options or not options.get("manifest"):
        return None
    return given[0].parent if all(path.is_absolute() for path in given) else None
