"""Patients who are known to two hospitals: their training records are held by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.data.partition import Partition
from hbdp_fed.data.splits import first_and_member
from hbdp_fed.errors import SettingError


@dataclass(frozen=True)
class Acquaintance:
    """Who of a federation's patients (groups; records where there are none) is known to which hospitals.

    Attributes:
        patients: How many there are in the training split of all hospitals together.
        known_to: By the hospitals (their places, ascending, two or more) that know them, how many patients.
        records: How many records are held by two hospitals or more.
    """

    patients: int
    known_to: dict[tuple[int, ...], int]
    records: int

    @property
    def shared(self) -> int:
        """How many patients are known to two hospitals or more."""
        return sum(self.known_to.values())


def let_two_know(
    part: Partition, groups: Tensor | None, *, overlap: float, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Let a share of the patients be known to a second hospital, which then holds all of their records, too.

    The second one is drawn in proportion to how many patients the others have. Patients whom a natural partition has
    made known to several hospitals already are left as they are, and do not count.

    Args:
        part: Whose each training record is.
        groups: int64 (N,), equal for records of one patient; None where every record stands for itself.
        overlap: The share of all patients, in [0, 1).
        generator: A CPU generator.

    Returns:
        By hospital the records that it holds, int64 (n_i,), ascending.

    Raises:
        SettingError: if there is no second hospital, or the share is of no whole patient.
    """
    if overlap == 0:
        return part.indices
    if len(part.indices) < 2:
        raise SettingError("partition.overlap", f"{overlap:g} of the patients need a second hospital: set clients=2")
    owners = part.owners()
    first, member = (torch.arange(len(owners)),) * 2 if groups is None else first_and_member(groups)
    knows = torch.zeros(len(first), len(part.indices), dtype=torch.float64)
    knows[member, owners] = 1
    alone = (knows.sum(dim=1) == 1).nonzero().flatten()
    wanted = min(round(overlap * len(first)), len(alone))
    if wanted == 0:
        raise SettingError(
            "partition.overlap", f"{overlap:g} of {len(first)} patients is nobody; take a larger share, or 0"
        )
    chosen = alone[torch.randperm(len(alone), generator=generator)[:wanted]]
    others = knows.sum(dim=0) * (1 - knows[chosen])
    second = torch.full((len(first),), -1)
    second[chosen] = torch.multinomial(others, 1, generator=generator)[:, 0]
    guest = second[member]
    return tuple(
        torch.cat([own, (guest == hospital).nonzero().flatten()]).sort().values
        for hospital, own in enumerate(part.indices)
    )


def acquaintance(held: Sequence[Tensor], groups: Tensor | None) -> Acquaintance:
    """Count who is known to whom: by overlap, and by a natural partition that has patients at several hospitals.

    Args:
        held: By hospital the records that it holds, int64 (n_i,).
        groups: As of :func:`let_two_know`, of the whole training split.
    """
    everything = torch.cat(list(held))
    hospital = torch.cat([torch.full((len(own),), place) for place, own in enumerate(held)])
    patient = everything if groups is None else groups[everything]
    pairs = torch.unique(torch.stack([patient, hospital]), dim=1)
    known_to: dict[tuple[int, ...], int] = {}
    starts = torch.unique_consecutive(pairs[0], return_counts=True)[1].tolist()
    for places in pairs[1].split(starts):
        if len(places) > 1:
            key = tuple(places.tolist())
            known_to[key] = known_to.get(key, 0) + 1
    copies = torch.unique(everything, return_counts=True)[1]
    return Acquaintance(patients=len(starts), known_to=known_to, records=int((copies > 1).sum()))
