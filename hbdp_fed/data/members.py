"""Who of a federation trains: every site, some of them, or one place that holds the records of all.

What joining is worth to a hospital shows beside two others: itself alone, and all records in one place. All three are
dealt alike, so that each site's test records stay the same and every model can be judged at every site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from hbdp_fed.data.contract import ImageDataset, concatenate
from hbdp_fed.data.federated import FederatedDataset, Hospital
from hbdp_fed.data.sites import Scanner
from hbdp_fed.errors import SettingError, unknown_choice

POOLED = "pooled"
"""The name of the one place that holds the records of all sites."""


def restricted(federated: FederatedDataset, members: Sequence[str]) -> FederatedDataset:
    """The same federation with some of its hospitals alone.

    Whoever does not take part gives no validation records either, and is judged all the same.

    Args:
        federated: With a hospital a site.
        members: The names of those that stay, in any order.

    Raises:
        SettingError: if there is no such hospital, or those that stay have no validation record, which the choice of
            round and threshold needs.
    """
    for name in members:
        if name not in federated.sites:
            raise unknown_choice("federation.members", name, federated.sites)
    staying = torch.tensor([place for place, name in enumerate(federated.sites) if name in members])
    kept = torch.isin(federated.val_site, staying).nonzero().flatten()
    if len(kept) == 0:
        raise SettingError(
            "federation.members", f"{', '.join(members)}: no validation record, which the choice of round needs"
        )
    return replace(
        federated,
        hospitals=tuple(hospital for hospital in federated.hospitals if hospital.name in members),
        val=federated.val.select(kept),
        val_site=federated.val_site[kept],
    )


def held_elsewhere(dataset: ImageDataset, sizes: Mapping[str, int]) -> FederatedDataset:
    """A federation whose hospitals keep their training records on machines of their own.

    What is here is the data set's validation and test split, which belong to no hospital: by them the model is judged.

    Args:
        dataset: Of the kind that the hospitals hold. Its training split is not looked at.
        sizes: By hospital, how many records it has agreed to train on.

    Raises:
        SettingError: if one holds none.
    """
    for name, size in sizes.items():
        if size < 1:
            raise SettingError("federation.elsewhere", f"{name} must hold at least 1 record, got {size}")
    none = torch.empty(0, dtype=torch.int64)
    nobodys = [torch.full((len(split),), -1) for split in (dataset.val, dataset.test)]
    return FederatedDataset(
        name=dataset.name,
        task=dataset.task,
        class_names=dataset.class_names,
        sites=tuple(sizes),
        site_sizes=tuple(sizes.values()),
        scanners=(Scanner(),) * len(sizes),
        hospitals=tuple(
            Hospital(name=name, records=dataset.train.select(none), indices=none, sites=(place,), elsewhere=size)
            for place, (name, size) in enumerate(sizes.items())
        ),
        val=dataset.val,
        val_site=nobodys[0],
        test=dataset.test,
        test_site=nobodys[1],
    )


def pooled(federated: FederatedDataset) -> FederatedDataset:
    """The same records in one place, each as its own site's scanner shows it; one that two hold, as the first one's."""
    hospitals = federated.hospitals
    indices = torch.cat([hospital.indices for hospital in hospitals])
    records = concatenate([hospital.records for hospital in hospitals])
    kept = torch.from_numpy(np.sort(np.unique(indices.numpy(), return_index=True)[1]))
    if len(kept) < len(indices):
        indices, records = indices[kept], records.select(kept)
    place = Hospital(
        name=POOLED,
        records=records,
        indices=indices,
        sites=tuple(site for hospital in hospitals for site in hospital.sites),
    )
    return replace(federated, hospitals=(place,))
