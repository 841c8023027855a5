"""Lays a federation over a data set: deals its records to hospitals and renders each by its hospital's scanner."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hbdp_fed.data.checks import check_integer
from hbdp_fed.data.contract import ImageDataset, Records, as_floats
from hbdp_fed.data.keeping import Keep, in_memory
from hbdp_fed.data.layout import lay_out
from hbdp_fed.data.partition import Partition, PartitionSettings
from hbdp_fed.data.sites import Scanner, apply_scanner, draw_scanner
from hbdp_fed.errors import SettingError
from hbdp_fed.seeding import generator

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hospital:
    """One site and what it holds.

    Attributes:
        name: Its name in every report.
        records: Its training records as its own scanner shows them.
        indices: int64 (n,), ascending: where they stand in the data set's training split.
        sites: Whose records it trains with, as places in :attr:`FederatedDataset.sites`: as a rule its own alone.
        elsewhere: How many records it holds on its own machine, where none are here; None where they are.
        shard: The file that ``records`` are mapped from (see :mod:`hbdp_fed.data.shards`); None where they are in
            memory.
    """

    name: str
    records: Records
    indices: Tensor
    sites: tuple[int, ...]
    elsewhere: int | None = None
    shard: Path | None = None

    @property
    def size(self) -> int:
        """How many records it trains on."""
        return len(self.records) if self.elsewhere is None else self.elsewhere


@dataclass(frozen=True)
class FederatedDataset:
    """A data set as a federation holds it.

    Attributes:
        name: The data set's name.
        task: The data set's task.
        class_names: One name a class.
        sites: The names of all sites, in the fixed order that every index of a site refers to.
        site_sizes: The training records of each.
        scanners: The scanner of each.
        hospitals: Who trains: a hospital a site, in the same order, unless :mod:`hbdp_fed.data.members` says otherwise.
        val: The validation split, in the data set's order, each record as its site's scanner shows it.
        val_site: int64 (N_val,), the site of each validation record.
        test: The test split, likewise.
        test_site: int64 (N_test,), the site of each test record.
    """

    name: str
    task: str
    class_names: tuple[str, ...]
    sites: tuple[str, ...]
    site_sizes: tuple[int, ...]
    scanners: tuple[Scanner, ...]
    hospitals: tuple[Hospital, ...]
    val: Records
    val_site: Tensor
    test: Records
    test_site: Tensor


def deal(
    dataset: ImageDataset,
    *,
    clients: int,
    partition: PartitionSettings,
    scanner_shift: float = 0.0,
    seed: int,
    min_records: int = 1,
    keep: Keep = in_memory,
) -> FederatedDataset:
    """Deal a data set to hospitals.

    Validation and test records are spread by the same proportions as training records, so that a hospital's figures are
    for its own mix of classes and its own scanner; a small hospital may have no test record.

    Args:
        dataset: What is dealt.
        clients: The number of hospitals.
        partition: How records are spread over them.
        scanner_shift: How much the sites' scanners differ, in [0, 1]; at 0 every image stays as it is, bit for bit.
        seed: The run's seed. Proportions, assignment and scanners have streams of their own.
        min_records: The fewest training records (or patients) of a hospital.
        keep: Where each hospital's records go, and the other splits as scanners show them. One hospital's are made at
            a time, so that what is kept in files is never in memory as a whole.

    Raises:
        SettingError: if ``clients``, the partition's settings or ``scanner_shift`` cannot be used with this data set.
    """
    check_integer("clients", clients, minimum=1)
    scanners = [draw_scanner(scanner_shift, generator(seed, "scanner", site)) for site in range(clients)]
    if scanner_shift > 0 and dataset.train.images.dim() != 4:
        raise SettingError("data.scanner_shift", "scanners are simulated for images, not for volumes: set it to 0")
    layout = lay_out(dataset, partition, clients=clients, seed=seed, min_records=min_records)
    parts = layout.parts
    hospitals = tuple(
        _hospital(name, dataset.train, own, scanners, site, seed, keep)
        for site, (name, own) in enumerate(zip(layout.names, parts["train"].indices, strict=True))
    )
    _LOGGER.info("dealt %d training records to %d hospitals: %s", len(dataset.train), clients, parts["train"].sizes)
    return FederatedDataset(
        name=dataset.name,
        task=dataset.task,
        class_names=dataset.class_names,
        sites=tuple(layout.names),
        site_sizes=parts["train"].sizes,
        scanners=tuple(scanners),
        hospitals=hospitals,
        val=_render(dataset.val, parts["val"], scanners, seed, "val", keep),
        val_site=parts["val"].owners(),
        test=_render(dataset.test, parts["test"], scanners, seed, "test", keep),
        test_site=parts["test"].owners(),
    )


def _hospital(
    name: str, records: Records, own: Tensor, scanners: Sequence[Scanner], site: int, seed: int, keep: Keep
) -> Hospital:
    """A site with its training records as its own scanner shows them."""
    facts: dict[str, Any] = {"split": "train", "records": [_digest(own)]}
    if not _change_nothing(scanners):
        facts |= {"scanners": [asdict(scanners[site])], "site": site, "seed": seed}
    kept = keep(facts, lambda: _seen(records, own, scanners, site, seed, "train"))
    whole = replace(kept.records, **records.whose(own))
    return Hospital(name=name, records=whole, indices=own, sites=(site,), shard=kept.file)


def _render(
    records: Records, part: Partition, scanners: Sequence[Scanner], seed: int, split: str, keep: Keep
) -> Records:
    """The split in its own order, each record as its site's scanner shows it."""
    if _change_nothing(scanners):
        return records

    def make() -> Records:
        images = torch.empty(records.images.shape)
        for site, own in enumerate(part.indices):
            images[own] = _seen(records, own, scanners, site, seed, split).images
        return replace(records, images=images)

    digests = [_digest(own) for own in part.indices]
    facts = {"split": split, "records": digests, "scanners": [asdict(scanner) for scanner in scanners], "seed": seed}
    return replace(records, images=keep(facts, make).records.images)


def _seen(records: Records, own: Tensor, scanners: Sequence[Scanner], site: int, seed: int, split: str) -> Records:
    """Some records as a site's scanner shows them. Where any site's scanner makes floats of bytes, so do all."""
    chosen = records.select(own)
    if _change_nothing(scanners):
        return chosen
    images = as_floats(chosen.images)
    if len(own):
        images = apply_scanner(images, scanners[site], generator(seed, "scanner", site, split))
    return replace(chosen, images=images)


def _change_nothing(scanners: Sequence[Scanner]) -> bool:
    return all(scanner == Scanner() for scanner in scanners)


def _digest(indices: Tensor) -> str:
    return hashlib.sha256(indices.numpy().tobytes()).hexdigest()
