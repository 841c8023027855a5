"""What would be left if one hospital left: records, time, noise, and whose records were then protected least."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hbdp_fed.planning.consortium import Consortium
from hbdp_fed.planning.cost import Speed, cost
from hbdp_fed.planning.model_size import ModelSize
from hbdp_fed.planning.protecting import HospitalBudget, Table, protections_of_one_budget, weakest_of


@dataclass(frozen=True)
class Leaving:
    """The consortium without one hospital.

    Attributes:
        name: Who leaves.
        records_lost_share: Of all records.
        round_s: A round that all the others take part in, in seconds.
        waits_for: Whom that round waits for.
        hours: All rounds, outages taken into account.
        noise_factor: The noise in the mean of the updates, over that of the whole consortium, at ``at_eps``; above 1 is
            noisier. None where no budget has noise.
        at_eps: The budget that ``noise_factor`` and ``weakest`` are for: the smallest that all hospitals can have.
        weakest: Who is then protected least; None where all are alike.
    """

    name: str
    records_lost_share: float
    round_s: float
    waits_for: str
    hours: float
    noise_factor: float | None
    at_eps: float | None
    weakest: str | None


def leaving(consortium: Consortium, size: ModelSize, speeds: Mapping[str, Speed], table: Table) -> tuple[Leaving, ...]:
    """An entry a hospital: what its leaving would do to the rest.

    The rest keep rounds, steps and budgets. Where the expected batch is one hospital's, their noise stays as it is;
    where it is all hospitals' together, they take over the leaver's part of it, sample at a higher rate, and need more
    noise.
    """
    eps = reference_budget(table)
    whole = None if eps is None else {name: _at(rows, eps) for name, rows in table.items()}
    before = None if whole is None else mean_noise(consortium, whole)
    found = []
    for hospital in consortium.hospitals:
        rest = consortium.without(hospital.name)
        own = cost(rest, size, speeds)
        rows = None if eps is None or whole is None else _rows_of(rest, eps, consortium, whole)
        after = None if rows is None else mean_noise(rest, rows)
        found.append(
            Leaving(
                name=hospital.name,
                records_lost_share=hospital.records / consortium.records,
                round_s=own.round.seconds,
                waits_for=own.round.waits_for,
                hours=own.total.hours,
                noise_factor=after / before if before and after is not None else None,
                at_eps=eps,
                weakest=None if rows is None else weakest_of(rows),
            )
        )
    return tuple(found)


def _rows_of(
    rest: Consortium, eps: float, before: Consortium, whole: Mapping[str, HospitalBudget]
) -> Mapping[str, HospitalBudget]:
    """One budget at the hospitals that are left; where their batches stay, their figures do."""
    if all(rest.expected_batch(hospital) == before.expected_batch(hospital) for hospital in rest.hospitals):
        return {hospital.name: whole[hospital.name] for hospital in rest.hospitals}
    return protections_of_one_budget(rest, eps)


def reference_budget(table: Table) -> float | None:
    """The smallest finite budget that noise keeps at every hospital and no ceiling forbids; None where none is."""
    rows = zip(*table.values(), strict=True)
    usable = [at[0].eps for at in rows if math.isfinite(at[0].eps) and all(row.allowed for row in at)]
    return min(usable, default=None)


def mean_noise(consortium: Consortium, rows: Mapping[str, HospitalBudget]) -> float | None:
    """The noise's standard deviation in one step's mean gradient, in units of the clipping norm.

    Each hospital's noise is independent, of standard deviation sigma_i / batch_i in its own mean, and weighs share_i of
    the records: sqrt(sum_i (share_i sigma_i / batch_i)^2). None where a hospital has no such budget.
    """
    parts = []
    for hospital in consortium.hospitals:
        sigma = rows[hospital.name].noise_multiplier
        if sigma is None:
            return None
        parts.append(hospital.records / consortium.records * sigma / consortium.expected_batch(hospital))
    return math.hypot(*parts)


def _at(rows: tuple[HospitalBudget, ...], eps: float) -> HospitalBudget:
    return next(row for row in rows if row.eps == eps)
