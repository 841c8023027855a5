"""Who of a federation trains: every site, some of them, or one place that holds the records of all.

What joining is worth to a hospital shows beside two others: itself alone, and all records in one place. All three are
dealt alike, so that each site's test records stay the same and every model can be judged at every site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from hbdp_fed.data.contract import concatenate
from hbdp_fed.data.federated import FederatedDataset, Hospital
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


def pooled(federated: FederatedDataset) -> FederatedDataset:
    """The same records in one place, each as its own site's scanner shows it."""
    hospitals = federated.hospitals
    place = Hospital(
        name=POOLED,
        records=concatenate([hospital.records for hospital in hospitals]),
        indices=torch.cat([hospital.indices for hospital in hospitals]),
        sites=tuple(site for hospital in hospitals for site in hospital.sites),
    )
    return replace(federated, hospitals=(place,))
