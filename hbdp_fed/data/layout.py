"""How a federation lies over a data set: its hospitals' names, and whose each record of each split is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hbdp_fed.data.contract import ImageDataset, Records
from hbdp_fed.data.overlap import let_two_know
from hbdp_fed.data.partition import (
    NATURAL,
    Partition,
    PartitionSettings,
    assign,
    by_owner,
    draw_proportions,
    hospital_names,
)
from hbdp_fed.data.splits import first_and_member
from hbdp_fed.errors import SettingError, unknown_choice
from hbdp_fed.seeding import generator


@dataclass(frozen=True)
class Layout:
    """Hospitals over a data set.

    Attributes:
        names: The hospitals in their fixed order.
        parts: For ``train``, ``val`` and ``test``, which records are whose.
        held: By hospital the training records that it holds, int64 (n_i,), ascending: its own, and those of patients
            whom another one knows as well.
    """

    names: tuple[str, ...]
    parts: Mapping[str, Partition]
    held: tuple[Tensor, ...]


def lay_out(
    dataset: ImageDataset, settings: PartitionSettings, *, clients: int, seed: int, min_records: int = 1
) -> Layout:
    """Decide who holds what.

    Under ``natural`` the hospitals are the values of a column, in alphabetical order, and a patient whose records come
    from two of them is known to both. Everywhere else a patient, or whatever ``dataset.group`` is, is dealt as a whole.
    ``settings.overlap`` then lets some be known to a second hospital.

    Args:
        dataset: What is dealt.
        settings: The scheme.
        clients: The number of hospitals.
        seed: The run's seed.
        min_records: The fewest training records (or patients) of a hospital.

    Raises:
        SettingError: if the settings cannot be used with this data set.
    """
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    if settings.scheme == NATURAL:
        names, parts = _natural(splits, settings.column, clients, min_records)
    else:
        names = hospital_names(clients)
        parts = _drawn(splits, settings, dataset.task, clients=clients, seed=seed, min_records=min_records)
    # Whom two hospitals know matters to training alone: everybody is judged once.
    held = let_two_know(
        parts["train"],
        dataset.train.groups,
        overlap=settings.overlap,
        generator=generator(seed, "partition", "overlap"),
    )
    return Layout(names=names, parts=parts, held=held)


def _drawn(
    splits: Mapping[str, Records],
    settings: PartitionSettings,
    task: str,
    *,
    clients: int,
    seed: int,
    min_records: int,
) -> dict[str, Partition]:
    """Whose each record is, by a draw."""
    strata = _strata(splits, task)
    proportions = draw_proportions(
        settings,
        clients=clients,
        class_sizes=_class_sizes(splits["train"], strata["train"], _count(strata)),
        generator=generator(seed, "partition", "proportions"),
        min_records=min_records,
    )
    return {
        split: assign(strata[split], proportions, generator(seed, "partition", split), groups=records.groups)
        for split, records in splits.items()
    }


def _natural(
    splits: Mapping[str, Records], column: str | None, clients: int, min_records: int
) -> tuple[tuple[str, ...], dict[str, Partition]]:
    """The hospitals that a column names, and whose each record is."""
    train = splits["train"]
    if not train.attributes:
        raise SettingError("partition.scheme", "this data set has no column that names a hospital; take another scheme")
    if column is None or column not in train.attributes:
        if column is None:
            known = ", ".join(sorted(train.attributes))
            raise SettingError("partition.column", f"natural needs the column that names the hospital, one of: {known}")
        raise unknown_choice("partition.column", column, train.attributes)
    sources = sorted(set(train.attributes[column].tolist()))
    if len(sources) != clients:
        raise SettingError(
            "clients",
            f"the column '{column}' names {len(sources)} hospitals ({', '.join(sources[:10])}"
            f"{', ...' if len(sources) > 10 else ''}): set clients={len(sources)}",
        )
    names = tuple(_file_name(source) for source in sources)
    if len({name.casefold() for name in names}) < len(names):
        raise SettingError(
            "partition.column", f"'{column}' has values that differ in punctuation or case alone: {sources}"
        )
    parts = {}
    for split, records in splits.items():
        words = records.attributes[column]
        strangers = sorted(set(words.tolist()) - set(sources))
        if strangers:
            raise SettingError(
                "partition.column", f"{', '.join(strangers)} of '{column}' has no training record, but is in {split}"
            )
        parts[split] = by_owner(torch.from_numpy(np.searchsorted(np.asarray(sources), words)).long(), clients)
    for source, size in zip(sources, parts["train"].sizes, strict=True):
        if size < min_records:
            raise SettingError(
                "partition.column", f"'{source}' of '{column}' has {size} training records, fewer than {min_records}"
            )
    return names, parts


def _file_name(source: str) -> str:
    """A hospital's name from a column's value: every hospital has a folder, and ``..`` must not be its name."""
    return re.sub(r"[^\w.-]+", "_", source).strip(".") or "unnamed"


def _strata(splits: Mapping[str, Records], task: str) -> dict[str, Tensor]:
    """What is spread evenly or skewed, int64 (N,) a split: classes; of several findings, which go together."""
    if task == "segmentation":
        # Every volume has every class: there is nothing to skew but how many a hospital has.
        return {split: torch.zeros(len(records), dtype=torch.int64) for split, records in splits.items()}
    if task == "multilabel":
        joined = torch.cat([records.labels for records in splits.values()])
        numbers = torch.unique(joined, dim=0, return_inverse=True)[1]
        sizes = [len(records) for records in splits.values()]
        return dict(zip(splits, numbers.split(sizes), strict=True))
    return {split: records.labels for split, records in splits.items()}


def _count(strata: Mapping[str, Tensor]) -> int:
    return 1 + max(int(numbers.max()) for numbers in strata.values() if len(numbers))


def _class_sizes(records: Records, strata: Tensor, count: int) -> Tensor:
    """How many records of each class are to be dealt, or patients by their first record's class: int64 (count,)."""
    if records.groups is not None:
        strata = strata[first_and_member(records.groups)[0]]
    return torch.bincount(strata, minlength=count)
