"""Two discretisations of a history's privacy loss that enclose it: one never below the truth, one never above it.

**Above.** A cell [a, b] of one step's loss is replaced by masses at a and b that keep both P(cell) and Q(cell). Seen as
functions of t, the hockey-stick divergences H_t(P || Q) are convex, and this replaces them by their chords between the
grid's points: nowhere smaller (the connect-the-dots construction of Doroshenko et al. 2022, arXiv 2207.04380). P's mass
above the grid becomes an infinite loss, and mass below it is lifted to its lowest point. Domination survives
composition (Zhu, Dong and Wang 2022, theorem 10). A step's mean loss grows by at most h^2/8 for narrow cells, not h/2.

**Below.** Telling the adversary only in which cell each step's loss lies is post-processing, so the pair of cell
probabilities is dominated by the true one. Its losses, log P(cell)/Q(cell), are not on the grid: each is moved to its
cell's middle, and the sum of the moves, independent and bounded, stays above its mean minus t except with the
probability that Bernstein's inequality gives for t. That probability is taken off delta and t off epsilon. P's mass
outside the cells is dropped.

What the FFT's grid cuts off is bounded by Chernoff's inequality from the masses themselves and charged to both sides.
Rounding in float64 is the one thing not bounded rigorously: :data:`ROUNDING` is charged for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from hbdp_fed.privacy.convolution import (
    SPILL,
    Cumulants,
    Law,
    Window,
    convolve,
    tilt_for_level,
    tilt_for_loss,
    tilt_for_tail,
)
from hbdp_fed.privacy.history import History
from hbdp_fed.privacy.steps import LossCells, Pair, loss_cells, loss_range, resolved_range

Array = npt.NDArray[np.float64]

ROUNDING = 1e-8
"""The relative error charged to every probability for float64 arithmetic."""

_BERNSTEIN_SHARE = 1e-6
"""The part of a probability asked about that is spent on Bernstein's inequality."""


_FIRST_SIZE, _LAST_SIZE, _TAIL_SIZE = 2**14, 2**20, 2**18
_MOST_CELLS = 2**21
_SMALLEST_LOG_SCALE, _ALMOST_ONE = -680.0, 1 - 1e-16

Bounds = tuple[float, float]
"""A lower and an upper bound."""


def epsilon_bounds(history: History, pair: Pair, *, delta: float, tolerance: float, enough: float = 0.0) -> Bounds:
    """A lower and an upper bound of the epsilon at which H_(e^epsilon)(P || Q) is ``delta``, at least 0.

    Args:
        history: With positive noise.
        pair: The two worlds.
        delta: in (0, 1).
        tolerance: Refine until the bounds differ by at most this, relatively, or the grid has a million points.
        enough: An upper bound below this needs no refinement.
    """
    cumulants = Cumulants.of(history, pair)
    theta = tilt_for_tail(cumulants, math.log(delta))

    def bounds(size: int) -> Bounds:
        grid = _Grid.around(history, pair, cumulants=cumulants, theta=theta, scale=delta, size=size)
        strict = delta * (1 - ROUNDING) - grid.mass_above()
        upper = _Divergence(grid.law_above(), sign=1).loss_at(strict) if strict > 0 else math.inf
        exception = delta * _BERNSTEIN_SHARE
        lower = _Divergence(grid.law_below(), sign=-1).loss_at(delta * (1 + ROUNDING) + exception)
        # At the window's lower end the divergence may be smaller still: nothing is known below it.
        lower = 0.0 if lower <= grid.window.low + grid.h else lower - grid.move_down(exception)
        return max(0.0, float(lower)), max(0.0, float(upper))

    return _refined(bounds, tolerance, enough)


def delta_bounds(history: History, pair: Pair, *, epsilon: float, tolerance: float, enough: float = 0.0) -> Bounds:
    """A lower and an upper bound of H_(e^epsilon)(P || Q).

    Args:
        history: With positive noise.
        pair: The two worlds.
        epsilon: At least 0, finite.
        tolerance: Refine until the bounds differ by at most this, relatively, or the grid has a million points.
        enough: An upper bound below this needs no refinement.
    """
    cumulants = Cumulants.of(history, pair)
    theta = tilt_for_loss(cumulants, epsilon)
    value, _ = cumulants.value_and_slope(theta)
    scale = math.exp(max(min(value - theta * epsilon, 0.0), _SMALLEST_LOG_SCALE))

    def bounds(size: int) -> Bounds:
        grid = _Grid.around(history, pair, cumulants=cumulants, theta=theta, scale=scale, size=size)
        upper = _Divergence(grid.law_above(), sign=1).at(epsilon) + grid.mass_above()
        upper = 1.0 if epsilon < grid.window.low else upper
        exception = scale * _BERNSTEIN_SHARE
        lower = _Divergence(grid.law_below(), sign=-1).at(epsilon + grid.move_down(exception)) - exception
        return max(0.0, lower * (1 - ROUNDING)), min(1.0, upper * (1 + ROUNDING))

    return _refined(bounds, tolerance, enough)


@dataclass(frozen=True)
class PowerBounds:
    """Bounds of a test's power, and where it rejects.

    Attributes:
        lower: Never above the truth.
        upper: Never below it: e^threshold level + H_(e^threshold)(P || Q) for some pair that dominates the true one.
        threshold: The privacy loss above which the test behind ``upper`` rejects; ``-inf`` where it is not known.
    """

    lower: float
    upper: float
    threshold: float


def power_bounds(history: History, pair: Pair, *, level: float, tolerance: float) -> PowerBounds:
    """Bounds of the power of the most powerful test of Q against P at a level.

    Neyman and Pearson: reject where the privacy loss exceeds a threshold, and with the right probability where it
    equals it. The upper bound is the power for the dominating pair; the lower one that of a test which looks at the
    cells alone, under its own two distributions.

    Args:
        history: With positive noise.
        pair: The two worlds.
        level: The probability of rejecting under Q, in (0, 1).
        tolerance: Refine until the bounds differ by at most this, relatively, or the grid has a million points.
    """
    cumulants = Cumulants.of(history, pair)
    theta = tilt_for_level(cumulants, math.log(level))
    if _log_missed(cumulants, theta, math.log(level)) < math.log(SPILL):
        return PowerBounds(1 - SPILL, 1.0, -math.inf)
    thresholds: dict[float, float] = {}

    def bounds(size: int) -> Bounds:
        grid = _Grid.around(history, pair, cumulants=cumulants, theta=theta, scale=level, size=size)
        above = grid.law_above()
        # Under the dominating pair Q's masses are P's times e^-loss: the same law, tilted by one more.
        upper, threshold = _power(above, above.as_null(), level * (1 + ROUNDING), mass_above=grid.mass_above(), sign=1)
        strict = level * (1 - ROUNDING) - grid.null_mass_above()
        lower, _ = _power(grid.law_below(), grid.null_law_below(), strict, mass_above=grid.mass_above(), sign=-1)
        upper = min(1.0, max(level, upper * (1 + ROUNDING)))
        thresholds[upper] = threshold
        return max(level, lower * (1 - ROUNDING)), upper

    lower, upper = _refined(bounds, tolerance, 0.0)
    return PowerBounds(lower, upper, thresholds[upper])


def _log_missed(cumulants: Cumulants, theta: float, log_level: float) -> float:
    """Chernoff's bound on the logarithm of P(L <= x), where his bound on Q(L > x) is the level."""
    if theta >= 0:
        return 0.0
    value, _ = cumulants.value_and_slope(theta)
    return (value + theta * log_level) / (theta + 1)


def tail_bound(history: History, pair: Pair, *, loss: float) -> float:
    """An upper bound of P(L > loss): every step's loss is lifted to its cell's upper edge.

    Args:
        history: With positive noise.
        pair: Whose loss; MIRRORED has no other question to be asked.
        loss: Any finite number.
    """
    cumulants = Cumulants.of(history, pair)
    theta = tilt_for_loss(cumulants, loss)
    value, _ = cumulants.value_and_slope(theta)
    scale = math.exp(max(min(value - theta * loss, 0.0), _SMALLEST_LOG_SCALE))
    grid = _Grid.around(history, pair, cumulants=cumulants, theta=theta, scale=scale, size=_TAIL_SIZE)
    if loss <= grid.window.low:
        return 1.0
    law = grid.law_of_edges()
    beyond = int(np.searchsorted(law.loss, loss, side="right"))
    spilt = float(law.spilt()[min(beyond, len(law.loss) - 1)])
    return min(1.0, float(law.masses()[beyond:].sum() + spilt + grid.mass_above()) * (1 + ROUNDING))


def _refined(bounds: Callable[[int], Bounds], tolerance: float, enough: float) -> Bounds:
    """The best bounds over grids of growing size."""
    size = _FIRST_SIZE
    lower, upper = bounds(size)
    while size < _LAST_SIZE and upper > enough and not upper - lower <= tolerance * upper < math.inf:
        size *= 4
        finer = bounds(size)
        lower, upper = max(lower, finer[0]), min(upper, finer[1])
    return lower, upper


@dataclass(frozen=True)
class _Grid:
    """A history's steps on a grid, ready to be composed.

    Attributes:
        edged: Every segment's steps and cells, with the losses' bound between two cells: discretised from above.
        centred: The same with the bound in the middle of a cell: discretised from below.
        window: What is resolved of the total loss.
        h: The cells' width.
        theta: The tilt.
        size: Grid points.
    """

    edged: tuple[tuple[int, LossCells], ...]
    centred: tuple[tuple[int, LossCells], ...]
    window: Window
    h: float
    theta: float
    size: int

    @classmethod
    def around(
        cls, history: History, pair: Pair, *, cumulants: Cumulants, theta: float, scale: float, size: int
    ) -> _Grid:
        """The grid for a tilt; P's mass beyond a 1e-10th of ``scale`` is not resolved."""
        window = Window.around(cumulants, theta)
        tail = math.sqrt(-2 * math.log(scale * ROUNDING / 10 / sum(segment.steps for segment in history)))
        ranges = [loss_range(segment, pair) for segment in history]
        least, most = (
            sum(segment.steps * ends[side] for segment, ends in zip(history, ranges, strict=True)) for side in (0, 1)
        )
        # A loss beyond these carries the sum out of the window by itself, whatever the other steps' losses are.
        resolved = [
            {
                "tail": tail,
                "bottom": window.low - (most - own_most) if math.isfinite(most) else -math.inf,
                "top": window.high - (least - own_least) if math.isfinite(least) else math.inf,
            }
            for own_least, own_most in ranges
        ]
        h = (window.high - window.low) / size
        for segment, limits in zip(history, resolved, strict=True):
            low, high = resolved_range(segment, pair, **limits)
            h = max(h, (high - low) / _MOST_CELLS)
        edged, centred = [], []
        for segment, limits in zip(history, resolved, strict=True):
            edged.append((segment.steps, loss_cells(segment, pair, h=h, centred=False, **limits)))
            centred.append((segment.steps, loss_cells(segment, pair, h=h, centred=True, **limits)))
        return cls(tuple(edged), tuple(centred), window, h, theta, size)

    def law_above(self) -> Law:
        """The discretisation that is never below the truth; :meth:`mass_above` is infinite loss beside it."""
        parts = [(steps, cells, _kept_masses(cells)) for steps, cells in self.edged]
        return convolve(parts, place=0.0, theta=self.theta, window=self.window, size=self.size)

    def law_of_edges(self) -> Law:
        """P's law with every loss lifted to its cell's upper edge, and the mass below to the lowest of those."""
        parts = [(steps, cells, cells.mass + _at_first(cells.below, len(cells.mass))) for steps, cells in self.edged]
        return convolve(parts, place=1.0, theta=self.theta, window=self.window, size=self.size)

    def law_below(self) -> Law:
        """P's law of the sum of the cells' middles."""
        parts = [(steps, cells, cells.mass) for steps, cells in self.centred]
        return convolve(parts, place=0.5, theta=self.theta, window=self.window, size=self.size)

    def null_law_below(self) -> Law:
        """Q's law of the same sum, tilted by one more, which brings it to the same place."""
        parts = [(steps, cells, cells.null_mass) for steps, cells in self.centred]
        return convolve(parts, place=0.5, theta=self.theta + 1, window=self.window, size=self.size)

    def mass_above(self) -> float:
        """P's probability that some step's loss lies above its cells."""
        return -math.expm1(sum(steps * math.log1p(-min(cells.above, _ALMOST_ONE)) for steps, cells in self.edged))

    def null_mass_above(self) -> float:
        """Q's probability of the same, at most: there dP/dQ is at least e^loss."""
        return sum(steps * cells.above * math.exp(-max(cells.top, 0.0)) for steps, cells in self.centred)

    def move_down(self, exception: float) -> float:
        """How far the sum of the cells' middles may lie above the sum of the cells' losses, but for ``exception``."""
        mean = variance = largest = 0.0
        for steps, cells in self.centred:
            total = cells.mass.sum()
            moves = cells.loss - cells.middles
            own_mean = float(cells.mass @ moves) / total
            mean += steps * own_mean
            variance += steps * float(cells.mass @ (moves - own_mean) ** 2) / total
            largest = max(largest, float((own_mean - moves).max()))
        cost = -math.log(exception)
        # Bernstein: P(sum of centred moves <= -t) <= exp(-t^2 / (2 (variance + largest t / 3))).
        t = largest * cost / 3 + math.sqrt((largest * cost / 3) ** 2 + 2 * variance * cost)
        return t - mean


def _kept_masses(cells: LossCells) -> Array:
    """Masses at the cells' edges that keep both P(cell) and Q(cell), and lift the mass below to the lowest edge."""
    right = cells.mass * np.expm1(-(cells.loss - cells.middles + cells.h / 2)) / math.expm1(-cells.h)
    right = np.clip(right, 0.0, cells.mass)
    masses = np.zeros(len(right) + 1)
    masses[1:] += right
    masses[:-1] += cells.mass - right
    masses[0] += cells.below
    return masses


def _at_first(mass: float, length: int) -> Array:
    masses = np.zeros(length)
    masses[0] = mass
    return masses


class _Divergence:
    """H_(e^x)(P || Q) as a function of x, from a law of the privacy loss.

    Args:
        law: P's law of the loss.
        sign: 1 to add what the grid wrapped around, at most, or -1 to take it off.
    """

    def __init__(self, law: Law, *, sign: int) -> None:
        self._law = law
        h = law.loss[1] - law.loss[0]
        decay = math.exp(-h)
        after = law.masses()[:0:-1]
        # At grid point k: sums over the points after it of the masses, and of the masses times e^-(loss - loss[k + 1]).
        self._mass = np.append(np.cumsum(after)[::-1], 0.0)
        self._null = np.append(lfilter([1.0], [1.0, -decay], after)[::-1], 0.0)
        self._mass += sign * law.spilt()
        self._falling = _falling(self._mass - decay * self._null)

    def at(self, loss: float) -> float:
        """The divergence at any loss; below the window, that at its lower end, and 0 above it."""
        law = self._law
        k = min(max(int(np.searchsorted(law.loss, loss, side="right")) - 1, 0), len(law.loss) - 2)
        value = self._mass[k] - math.exp(min(0.0, max(loss, law.loss[0]) - law.loss[k + 1])) * self._null[k]
        return 0.0 if loss >= law.loss[-1] else max(0.0, float(value))

    def loss_at(self, value: float) -> float:
        """The loss at which the divergence is ``value``; the window's lower end where it is smaller all along."""
        law = self._law
        k = int(np.searchsorted(-self._falling, -value, side="right")) - 1
        if k < 0 or k == len(law.loss) - 1:
            return float(law.loss[max(k, 0)])
        beyond = (self._mass[k] - value) / self._null[k] if self._null[k] > 0 else 1.0
        return float(np.clip(law.loss[k + 1] + math.log(max(beyond, 1e-300)), law.loss[k], law.loss[k + 1]))


def _power(law: Law, null: Law, level: float, *, mass_above: float, sign: int) -> tuple[float, float]:
    """The power at a level of the test that rejects for large losses, randomised where the loss is at the threshold.

    Args:
        law: P's law of the loss.
        null: Q's law of it, on the same grid.
        level: What Q's probability of rejecting may be, beside what lies above the grid.
        mass_above: P's mass above the grid, for which the test rejects.
        sign: 1 to count what the grid wrapped around as power, or -1 not to, and to charge it to the level too.

    Returns:
        The power, and the loss from which the test rejects.
    """
    if level <= 0:
        return 0.0, math.inf
    masses, null_masses = law.masses(), null.masses()
    rejected = _falling(np.cumsum(null_masses[::-1])[::-1] - sign * null.spilt())
    # From point k on everything is rejected; the point before it in part, as far as the level goes.
    k = int(np.searchsorted(-rejected, -level, side="left"))
    if k == 0:
        # The threshold lies below the window: nothing is known of what lies between.
        return (1.0 if sign > 0 else float(masses.sum())), -math.inf
    left = level - (max(rejected[k], 0.0) if k < len(rejected) else 0.0)
    part = min(left / null_masses[k - 1], 1.0) if null_masses[k - 1] > 0 else 1.0
    at_threshold, spilt = part * masses[k - 1], sign * law.spilt()[k - 1]
    if law.theta >= 0:
        # The tilt leans to the large losses: their masses are the precise ones.
        power = float(masses[k:].sum() + at_threshold + spilt) + mass_above
    else:
        power = 1.0 - max(0.0, float(masses[:k].sum() - at_threshold - spilt))
    return power, float(law.loss[k - 1])


def _falling(bounds: Array) -> Array:
    """Bounds on a falling function at ascending points, each replaced by the largest to its right.

    That keeps upper bounds upper and lower bounds lower, and drops what magnified noise did far to the left.
    """
    return np.maximum.accumulate(bounds[::-1])[::-1]
