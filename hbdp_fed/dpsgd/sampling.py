"""Poisson sampling: which records or patients enter a step, and how many of a hospital's are expected to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.types import PatientCount

BATCH_PER: Mapping[str, Callable[[float, float], float]] = {
    "hospital": lambda batch, share: batch,
    "federation": lambda batch, share: batch * share,
}
"""From the expected batch and a hospital's share of all records (or patients) to its own. Under ``federation`` all
hospitals sample at the same rate, as one that holds everything would."""


@dataclass(frozen=True)
class UnitBatch:
    """What one step draws.

    Attributes:
        members: int64 (b,), which records; those of one unit stand one after the other.
        counts: int64 (u,), how many records each of the drawn patients gives, ascending; None where each record is a
            unit by itself.
    """

    members: Tensor
    counts: Tensor | None = None


def poisson_batches(
    *, num_records: int, sample_rate: float, steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Draw one Poisson batch a step: every record enters independently with probability ``sample_rate``.

    The batches' sizes vary and a batch can be empty; an empty one still costs a step, and the step still adds noise.

    Args:
        num_records: N, at least 1.
        sample_rate: q in (0, 1].
        steps: How many batches to draw.
        generator: A CPU generator; the same state gives the same batches on every device.

    Yields:
        Ascending int64 indices in [0, N), of shape (b,) with b from 0 to N.
    """
    for _ in range(steps):
        yield (torch.rand(num_records, generator=generator) < sample_rate).nonzero().flatten()


def patient_batches(
    *, groups: Tensor, records_per_patient: int, sample_rate: float, steps: int, generator: torch.Generator
) -> Iterator[UnitBatch]:
    """Draw one Poisson batch of patients a step: every patient enters independently with all of its records.

    A patient with more than ``records_per_patient`` records gives as many of them, drawn without replacement and anew
    each time. Who else is drawn, and with which records, does not depend on whether a patient is in the data: so the
    subsampled Gaussian mechanism's guarantee holds for patients as it does for records.

    Args:
        groups: int64 (N,), equal for records of one patient; N is at least 1.
        records_per_patient: m, at least 1.
        sample_rate: q in (0, 1], of a patient.
        steps: How many batches to draw.
        generator: A CPU generator; the same state gives the same batches on every device.

    Yields:
        Batches whose patients come by their number of records, and among these in the order of their group; each one's
        records are ascending.
    """
    if records_per_patient < 1:
        raise ValueError(f"records_per_patient must be at least 1, got {records_per_patient}")
    names, patient = groups.unique(return_inverse=True)
    for _ in range(steps):
        drawn = torch.rand(len(names), generator=generator) < sample_rate
        kept, counts = at_most_each(drawn[patient].nonzero().flatten(), patient, records_per_patient, generator)
        # Those who give equally many stand beside each other, and are computed at once.
        order = counts.repeat_interleave(counts).argsort(stable=True)
        yield UnitBatch(kept[order], counts.sort().values)


def at_most_each(records: Tensor, patient: Tensor, most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw at most so many records of each patient, without replacement.

    Args:
        records: int64 (b,), what there is to draw from, ascending indices of ``patient``.
        patient: int64 (N,), of each record the number of its patient.
        most: m, at least 1.
        generator: A CPU generator.

    Returns:
        The drawn records, int64, by their patient's number and ascending within; and how many each patient has there,
        of those that have any.
    """
    # Lots order each patient's records anew. In float64 two of them are practically never the same.
    lots = torch.rand(len(records), generator=generator, dtype=torch.float64)
    shuffled = records[lots.argsort()]
    shuffled = shuffled[patient[shuffled].argsort(stable=True)]
    _, having = patient[shuffled].unique_consecutive(return_counts=True)
    first = (having.cumsum(0) - having).repeat_interleave(having)
    kept = shuffled[torch.arange(len(shuffled)) - first < most].sort().values
    return kept[patient[kept].argsort(stable=True)], having.clamp(max=most)


def count_patients(groups: Tensor, records_per_patient: int) -> PatientCount:
    """How many patients there are, and how many records a step holds that draws all of them.

    Args:
        groups: int64 (N,), equal for records of one patient; N is at least 1.
        records_per_patient: m, at least 1.
    """
    having = groups.unique(return_counts=True)[1]
    return PatientCount(len(having), int(having.clamp(max=records_per_patient).sum()))


def num_units(num_records: int, groups: Tensor | None, records_per_patient: int | None) -> int:
    """How many units of privacy there are: patients where ``records_per_patient`` is given, else records.

    The arguments are those of :func:`unit_batches`.
    """
    if records_per_patient is None:
        return num_records
    return len(_checked(groups, num_records).unique())


def _checked(groups: Tensor | None, num_records: int) -> Tensor:
    if groups is None or len(groups) != num_records:
        raise ValueError(f"the unit of privacy is a patient, but not each of the {num_records} records has one")
    return groups


def unit_batches(
    *,
    num_records: int,
    groups: Tensor | None,
    records_per_patient: int | None,
    sample_rate: float,
    steps: int,
    generator: torch.Generator,
) -> Iterator[UnitBatch]:
    """The batches of either unit of privacy: of patients where ``records_per_patient`` is given, else of records.

    Args:
        num_records: N, at least 1.
        groups: int64 (N,), equal for records of one patient; unused where records are the units.
        records_per_patient: The most records of one patient in a step; None where each record is a unit.
        sample_rate: q in (0, 1], of a unit.
        steps: How many batches to draw.
        generator: A CPU generator; the same state gives the same batches on every device.

    Raises:
        ValueError: if nobody says which records are of one patient.
    """
    if records_per_patient is None:
        for members in poisson_batches(
            num_records=num_records, sample_rate=sample_rate, steps=steps, generator=generator
        ):
            yield UnitBatch(members)
        return
    yield from patient_batches(
        groups=_checked(groups, num_records),
        records_per_patient=records_per_patient,
        sample_rate=sample_rate,
        steps=steps,
        generator=generator,
    )
