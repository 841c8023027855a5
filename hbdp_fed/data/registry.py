"""The data sets by name, and how one is loaded from what a user set."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hbdp_fed.data.chest_xray import load_chest_xray
from hbdp_fed.data.contract import ImageDataset
from hbdp_fed.data.ham10000 import load_ham10000
from hbdp_fed.data.medmnist import load_any_medmnist, load_medmnist
from hbdp_fed.data.msd import load_msd
from hbdp_fed.data.own.dicom import load_dicom
from hbdp_fed.data.own.imagefolder import load_imagefolder
from hbdp_fed.data.own.nifti import load_nifti
from hbdp_fed.data.phantom import load_phantom
from hbdp_fed.data.radimagenet import load_radimagenet
from hbdp_fed.errors import SettingError, unknown_choice

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class DatasetEntry:
    """How one data set is loaded.

    Attributes:
        load: Takes the set's options as keywords, and the keyword ``root`` if it reads files.
        needs_files: Whether it does.
    """

    load: Callable[..., ImageDataset]
    needs_files: bool

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the options that a user may set."""
        parameters = inspect.signature(self.load).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "root")


DATASETS: Mapping[str, DatasetEntry] = {
    "phantom": DatasetEntry(load_phantom, needs_files=False),
    "medmnist": DatasetEntry(load_any_medmnist, needs_files=True),
    # Two sets have a recipe of their own, and so a name.
    **{
        name: DatasetEntry(partial(load_medmnist, name), needs_files=True) for name in ("breastmnist", "pneumoniamnist")
    },
    "ham10000": DatasetEntry(load_ham10000, needs_files=True),
    "msd": DatasetEntry(load_msd, needs_files=True),
    "chest_xray": DatasetEntry(load_chest_xray, needs_files=True),
    "radimagenet": DatasetEntry(load_radimagenet, needs_files=True),
    # Whatever a hospital has, by a table of its own.
    "imagefolder": DatasetEntry(load_imagefolder, needs_files=True),
    "nifti": DatasetEntry(load_nifti, needs_files=True),
    "dicom": DatasetEntry(load_dicom, needs_files=True),
}


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
    if name not in DATASETS:
        raise unknown_choice("data", name, DATASETS)
    entry = DATASETS[name]
    for option in options:
        if option not in entry.options:
            known = ", ".join(entry.options) or "none"
            raise SettingError(f"data.{option}", f"the data set '{name}' has no such option; it has: {known}")
    if not entry.needs_files:
        return entry.load(**options)
    root = root or _own_root(entry, options)
    if root is None:
        listed = ", or give data.manifest as an absolute path" if "manifest" in entry.options else ""
        raise SettingError(
            "data", f"'{name}' is read from files: set HBDP_DATA to the folder that holds the data sets{listed}"
        )
    return entry.load(root=root, **options)


def _own_root(entry: DatasetEntry, options: Mapping[str, Any]) -> Path | None:
    """The manifest's folder, where neither it nor ``folder`` is a path that starts from another one."""
    given = [Path(str(options[key])).expanduser() for key in ("manifest", "folder") if options.get(key)]
    if "manifest" not in entry.options or not options.get("manifest"):
        return None
    return given[0].parent if all(path.is_absolute() for path in given) else None
