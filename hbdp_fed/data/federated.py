"""Lays a federation over a data set: deals its records to hospitals and renders each by its hospital's scanner."""

from __future__ import annotations

import hashlib
import logging
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
    rendering = _Rendering(scanners=tuple(scanners), seed=seed)
    hospitals = tuple(
        _hospital(name, site, dataset.train, own, rendering, keep)
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
        val=_rendered(dataset.val, parts["val"], rendering, "val", keep),
        val_site=parts["val"].owners(),
        test=_rendered(dataset.test, parts["test"], rendering, "test", keep),
        test_site=parts["test"].owners(),
    )


@dataclass(frozen=True)
class _Rendering:
    """What all sites' scanners make of images.

    Attributes:
        scanners: One a site.
        seed: Of the grain's streams.
    """

    scanners: tuple[Scanner, ...]
    seed: int

    @property
    def changes(self) -> bool:
        """Whether any image is changed. If one is, all become float32."""
        return any(scanner != Scanner() for scanner in self.scanners)

    def seen(self, images: Tensor, site: int, split: str) -> Tensor:
        """Images of one split of a site as its scanner shows them."""
        if not self.changes:
            return images
        if len(images) == 0:
            return as_floats(images)
        return apply_scanner(as_floats(images), self.scanners[site], generator(self.seed, "scanner", site, split))

    def facts(self) -> dict[str, Any]:
        """What rendered images follow from, as plain JSON values."""
        if not self.changes:
            return {"scanners": None}
        return {"scanners": [asdict(scanner) for scanner in self.scanners], "seed": self.seed}


def _hospital(name: str, site: int, records: Records, own: Tensor, rendering: _Rendering, keep: Keep) -> Hospital:
    """A site with its records as its own scanner shows them."""

    def make() -> Records:
        mine = records.select(own)
        return replace(mine, images=rendering.seen(mine.images, site, "train"))

    facts = rendering.facts()
    if rendering.changes:
        facts |= {"scanners": facts["scanners"][site], "site": site}
    kept = keep({"split": "train", "records": [_digest(own)], **facts}, make)
    whole = replace(kept.records, **records.whose(own))
    return Hospital(name=name, records=whole, indices=own, sites=(site,), shard=kept.file)


def _rendered(records: Records, part: Partition, rendering: _Rendering, split: str, keep: Keep) -> Records:
    """The split in its own order, each record as its site's scanner shows it."""
    if not rendering.changes:
        return records

    def make() -> Records:
        images = torch.empty(records.images.shape)
        for site, own in enumerate(part.indices):
            images[own] = rendering.seen(records.images[own], site, split)
        return replace(records, images=images)

    digests = [_digest(own) for own in part.indices]
    kept = keep({"split": split, "records": digests, **rendering.facts()}, make)
    return replace(records, images=kept.records.images)


def _digest(indices: Tensor) -> str:
    return hashlib.sha256(indices.numpy().tobytes()).hexdigest()
