"""Where a run keeps prepared records, by the setting ``data.cache``."""

from __future__ import annotations

from pathlib import Path

from hbdp_fed.data import DATASETS
from hbdp_fed.data.cache import DataCache
from hbdp_fed.errors import SettingError
from simulations.schema import DataConfig
from simulations.typed_path import typed_path

KEY = "data.cache"
AUTO, NONE = "auto", "none"

AUTO_FOLDER = Path("runs/cache")
"""Where ``auto`` keeps them: beside the folders of runs."""


def cache_of(data: DataConfig) -> DataCache | None:
    """Where the records of this data set are kept; None if they are not.

    Raises:
        SettingError: if the setting names what cannot be a folder.
    """
    if data.cache == NONE:
        return None
    path = AUTO_FOLDER if data.cache == AUTO else typed_path(KEY, data.cache)
    if path.exists() and not path.is_dir():
        raise SettingError(KEY, f"{path} is no folder; give one, {AUTO} ({AUTO_FOLDER}) or {NONE}")
    entry = DATASETS.get(data.name)
    return None if entry is None or entry.files is None else DataCache(path.resolve())


def reading_line(data: DataConfig) -> str:
    """What people are told before records are read: patients' pictures are about to lie in one more place."""
    cache = cache_of(data)
    kept = "" if cache is None else f" (prepared records are kept in {cache.path}; {KEY}={NONE} keeps none)"
    return f"reading {data.name}{kept}"
