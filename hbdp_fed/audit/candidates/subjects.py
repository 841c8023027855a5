"""Whom a game is about: records, or patients with all of their records, as the unit of privacy is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.data.contract import Records
from hbdp_fed.dpsgd import at_most_each


@dataclass(frozen=True)
class Subjects:
    """Targets or decoys, each a unit of privacy.

    Attributes:
        records: Of all of them; those of one subject stand one after the other.
        counts: int64 (U,), how many each has; None where each subject is a record.
        most: How many records of one subject a step takes at most; None where each is a record.
    """

    records: Records
    counts: Tensor | None = None
    most: int | None = None

    @classmethod
    def of(cls, records: Records, records_per_patient: int | None) -> Subjects:
        """The records, or their patients in the order of their groups.

        Raises:
            ValueError: if patients are asked for and nobody says which records are of one.
        """
        if records_per_patient is None:
            return cls(records)
        if records.groups is None:
            raise ValueError("games about patients need records that say whose they are")
        order = records.groups.argsort(stable=True)
        counts = records.groups.unique(return_counts=True)[1]
        return cls(records.select(order), counts, records_per_patient)

    def __len__(self) -> int:
        return len(self.records) if self.counts is None else len(self.counts)

    def select(self, subjects: Tensor) -> Subjects:
        """Those at these places (int64), in that order."""
        if self.counts is None:
            return Subjects(self.records.select(subjects))
        starts, counts = (self.counts.cumsum(0) - self.counts)[subjects], self.counts[subjects]
        return Subjects(self.records.select(spans(starts, counts)), counts, self.most)

    def as_a_step_takes_them(self, stream: torch.Generator) -> Subjects:
        """A guess of which of its records a step took of each: those that it has, or as many of them as a step takes.

        Args:
            stream: For the choice, where there is one. The adversary knows a patient's records and not the draw.
        """
        if self.counts is None or self.most is None:
            return self
        places = torch.arange(len(self)).repeat_interleave(self.counts)
        kept, counts = at_most_each(torch.arange(len(self.records)), places, self.most, stream)
        return Subjects(self.records.select(kept), counts, self.most)


def spans(starts: Tensor, lengths: Tensor) -> Tensor:
    """Whole numbers from each start on, as many as its length says, one span after the other; int64."""
    before = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) + (starts - before).repeat_interleave(lengths)
