"""Reference images for a hospital's check of the models that it receives."""

from __future__ import annotations

from collections.abc import Sequence

from hbdp_fed.data.shards import write_shard
from hbdp_fed.federation.site_folder import SiteFolder
from simulations.compose import compose_run, typed
from simulations.prepare import prepare
from simulations.screening import references_of


def write_references(site: SiteFolder, settings: Sequence[str]) -> int:
    """Write a few validation images of a data set, in the form that a run of these settings would give them.

    Args:
        site: The hospital's folder.
        settings: As for ``simulations.run``; the data set's alone matter.

    Returns:
        How many.

    Raises:
        UserError: if a setting or the data set cannot be used.
    """
    records = references_of(prepare(typed(compose_run(list(settings)))))
    write_shard(site.references_file, records)
    return len(records)
