"""Which records each row of a noisy sum holds, when a row holds a record either wholly or not at all.

The planted layer's gradient is A S plus noise: A (n, m) says which rows a record activates, and row b of S (m, D) is
the record's r * (u, 1). Everything below happens in the rows' inner products, (n, n), however many pixels there are.
The noise's share of a row's product with itself is taken out of them beforehand, so that products of averages of rows
are right in expectation, too.

Records are found one after the other, the one that explains most first. Between records, the rows that are explained
completely ("clean") fix what each record is, and all rows are described anew by the records found so far.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROUNDING = 1e-9
"""Inner products below this share of the rows' own energy are rounding errors of float32."""

_CLEAN = 3.0
"""A row is clean if what is left of its energy is within this many standard deviations of the noise."""

_IDENTIFIED = 1e-6
"""How far a record may be from being identified by the clean rows alone."""


@dataclass(frozen=True)
class Doubt:
    """How much noise there is in the inner products; all 0 without noise.

    Attributes:
        spread: Standard deviation of the noise in the product of two rows of noise.
        floor: A row with less energy than this is taken for noise.
        penalty: By how much a record has to lower a row's energy to be taken for one of the row's records.
    """

    spread: float
    floor: float
    penalty: float


@dataclass(frozen=True)
class Mixture:
    """What the rows hold.

    Attributes:
        active: float64 (n, m), 1 where a row holds a record, else 0.
        clean: bool (n,), whether the records explain all of a row.
    """

    active: Tensor
    clean: Tensor

    def with_record(self, holding: Tensor, *, fixed_by: Tensor) -> Mixture:
        """One record more, in the rows ``holding``; the rows ``fixed_by`` hold nothing else unknown (int64 both)."""
        record, clean = torch.zeros(len(self.clean), 1, dtype=torch.float64), self.clean.clone()
        record[holding] = 1.0
        clean[fixed_by] = True
        return Mixture(torch.cat([self.active, record], dim=1), clean)

    def weights(self) -> Tensor:
        """float64 (m, n): how to add up the rows to get the records, by least squares.

        From the clean rows alone where they suffice. Others hold something unknown, which would get into the records.
        """
        found = _least_squares(self.active * self.clean[:, None])
        told = found @ self.active - torch.eye(len(found), dtype=found.dtype)
        vague = (told.abs() > _IDENTIFIED).any(dim=1, keepdim=True)
        return torch.where(vague, _least_squares(self.active), found) if bool(vague.any()) else found


def unmix(gram: Tensor, doubt: Doubt, *, most: int) -> Mixture:
    """Find the records.

    Args:
        gram: float64 (n, n), the rows' inner products in a metric in which records are nearly orthogonal, less the
            noise's share of the diagonal.
        doubt: The noise in it.
        most: How many records to look for at most.
    """
    n, own = len(gram), gram.diagonal()
    floor = max(doubt.floor, _ROUNDING * float(own.max()))
    tolerance = _CLEAN * doubt.spread + _ROUNDING * own
    mixture = Mixture(torch.zeros(n, 0, dtype=torch.float64), torch.zeros(n, dtype=torch.bool))
    tried = torch.zeros(n, dtype=torch.bool)
    while mixture.active.shape[1] < most:
        found = _Found(gram, mixture.weights())
        unexplained = torch.nonzero(found.energy_left(mixture.active) > floor).flatten()
        if bool(tried[unexplained].all()):
            break
        rest = found.rest(mixture.active, unexplained)
        place, holding = _grow(rest, ~tried[unexplained], doubt.penalty)
        tried[unexplained[place]] = True
        alike = holding & (_distances(rest, place) < (tolerance[unexplained] + _ROUNDING * own[unexplained[place]]))
        grown = mixture.with_record(unexplained[holding], fixed_by=unexplained[alike])
        found = _Found(gram, grown.weights())
        active = found.describe(doubt.penalty)
        if bool(active[:, -1].any()):
            # Whether rows are clean is judged by the records as they were when the rows were described.
            clean = (found.energy_left(active) < tolerance) & active.any(dim=1)
            mixture = Mixture(active[:, active.any(dim=0)], clean)
    return mixture


class _Found:
    """The records found so far, each a weighted sum of rows, by their inner products.

    Args:
        gram: The rows' inner products, (n, n).
        weights: (m, n), how the rows add up to records.
    """

    def __init__(self, gram: Tensor, weights: Tensor) -> None:
        self._gram = gram
        self._with_rows = weights @ gram  # (m, n)
        self._overlap = self._with_rows @ weights.T  # (m, m)

    def energy_left(self, active: Tensor) -> Tensor:
        """What the records leave of each row's energy when the rows hold them as ``active`` (n, m) says, (n,)."""
        explained = (active * self._with_rows.T).sum(dim=1)
        return self._gram.diagonal() - 2 * explained + ((active @ self._overlap) * active).sum(dim=1)

    def rest(self, active: Tensor, rows: Tensor) -> Tensor:
        """The inner products of what is left of some rows (int64 (k,)), (k, k)."""
        explained = active[rows] @ self._with_rows[:, rows]
        both = active[rows] @ self._overlap @ active[rows].T
        return self._gram[rows[:, None], rows] - explained - explained.T + both

    def describe(self, penalty: float) -> Tensor:
        """Which records each row holds, float64 (n, m): each time the one change that lowers the row's energy most.

        From nothing on, so that a record that others resemble is not held against a row that has found its own.
        """
        products, sizes, own = self._with_rows.T.clone(), self._overlap.diagonal(), self._gram.diagonal()
        active = torch.zeros_like(products)
        for _ in range(4 * len(sizes) + 4):
            gains = torch.where(active > 0, sizes + penalty - 2 * (products + sizes), 2 * products - sizes - penalty)
            gain, record = gains.max(dim=1)
            rows = torch.nonzero(gain > _ROUNDING * own.clamp(min=0.0)).flatten()
            if not len(rows):
                break
            record = record[rows]
            change = 1 - 2 * active[rows, record]
            active[rows, record] += change
            products[rows] -= change[:, None] * self._overlap[record]
        return active


def _grow(rest: Tensor, seeds: Tensor, penalty: float) -> tuple[int, Tensor]:
    """The row that would explain most if it were a record, and the rows that hold this record, bool (k,).

    A row that holds two records explains less than either alone would: all clipped records have the same energy over
    all of their rows, and the sum of two only fits the few rows that hold both.

    Args:
        rest: Inner products (k, k).
        seeds: bool (k,), the rows to choose from.
        penalty: As in :class:`Doubt`.
    """
    # With record s, row e has |e - s|^2 instead of |e|^2: it gains 2 <e, s> - |s|^2.
    gains = 2 * rest - (rest.diagonal() + penalty)[:, None]
    explained = gains.clamp(min=0.0).sum(dim=1)
    seed = int(torch.where(seeds, explained, -torch.inf).argmax())
    holding = gains[seed] > 0
    holding[seed] = True
    return seed, holding


def _distances(gram: Tensor, row: int) -> Tensor:
    """Squared distances of all rows from one, (k,)."""
    return gram.diagonal() + gram[row, row] - 2 * gram[row]


def _least_squares(active: Tensor) -> Tensor:
    """The pseudo-inverse (m, n) of ``active`` (n, m), by way of the small (m, m) matrix."""
    inverse: Tensor = torch.linalg.pinv(active.T @ active, rtol=1e-9, hermitian=True)
    return inverse @ active.T
