"""How often a record counts in what is released: one step shows it or not, several steps of momentum add up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_MOST_VALUES = 512
_LATTICE = 32
"""Where there are more values than that, weights are rounded to multiples of this part of their mean, or finer."""
_EQUAL = 1e-6
"""Values that differ by less than this share of the largest one are merged."""


def participation_law(weights: Sequence[float], sample_rate: float) -> tuple[Tensor, Tensor]:
    """The law of sum over steps of c_t b_t with independent b_t ~ Bernoulli(q): how strongly a record counts.

    Exact while there are few different values. Beyond some hundreds the weights are rounded to a lattice, on which the
    law is computed exactly, and neighbours are merged into their mean.

    Args:
        weights: c_t, positive.
        sample_rate: q in (0, 1].

    Returns:
        Values and probabilities, float64 of equal length, ascending.
    """
    total = sum(weights)
    values, probabilities = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for weight in weights:
        values = torch.cat([values, values + weight])
        probabilities = torch.cat([(1 - sample_rate) * probabilities, sample_rate * probabilities])
        values, probabilities = _merged(values, probabilities, torch.round(values / (_EQUAL * total)).long())
        if len(values) > _MOST_VALUES:
            return _on_lattice(weights, sample_rate)
    kept = probabilities > 0
    return values[kept], probabilities[kept]


def _on_lattice(weights: Sequence[float], sample_rate: float) -> tuple[Tensor, Tensor]:
    unit = sum(weights) / max(_LATTICE * len(weights), 16 * _MOST_VALUES)
    steps = [max(1, round(weight / unit)) for weight in weights]
    law = torch.zeros(sum(steps) + 1, dtype=torch.float64)
    law[0] = 1.0
    for step in steps:
        moved = sample_rate * law
        law = (1 - sample_rate) * law
        law[step:] += moved[: len(law) - step]
    places = torch.nonzero(law > 0).flatten()
    probabilities = law[places]
    # Rounding moved the mean; scaling puts it back.
    values = places.double() * (sum(weights) / sum(steps))
    # Nothing at all is a value of its own: no record is not a little of a record.
    cells = torch.where(places == 0, -1, (places - places[0]) * _MOST_VALUES // (int(places[-1] - places[0]) + 1))
    return _merged(values, probabilities, cells)


def _merged(values: Tensor, probabilities: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """One value for each cell: the mean of what lies in it."""
    unique, place = torch.unique(cells, return_inverse=True)

    def added_up(terms: Tensor) -> Tensor:
        return torch.zeros(len(unique), dtype=torch.float64).index_add_(0, place, terms)

    total = added_up(probabilities)
    # At q = 1 some values have no probability; they keep a place until the end.
    mean = torch.where(total > 0, added_up(probabilities * values) / total, added_up(values) / added_up(values * 0 + 1))
    return mean, total
