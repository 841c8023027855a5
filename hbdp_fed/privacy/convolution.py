"""The privacy loss of many steps: an exponentially tilted convolution by FFT that accounts for all that it cuts off.

A convolution by FFT is exact to about 1e-16 of the *largest* value, and wraps around at the ends of its grid. Both
spoil a tail of 1e-7 in the middle of a distribution that spans 1e15. So the law is first tilted: masses are multiplied
by e^(theta loss) with the theta that moves the bulk to the tail asked for (the saddle point; Alghamdi et al. 2022,
arXiv 2208.09595, use it for the same end), the grid covers only the spread of the *tilted* sum, and the weights are
divided out again. Tilting commutes with convolution, so nothing is approximated by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.optimize import brentq
from scipy.special import logsumexp

from hbdp_fed.privacy.history import History
from hbdp_fed.privacy.steps import LossCells, Nodes, Pair, loss_nodes

Array = npt.NDArray[np.float64]
Part = tuple[int, LossCells, Array]
"""A segment's steps, its cells, and masses of the cells' grid points (there may be one more of these than cells)."""

SPILL = 1e-17
"""The tilted mass that may lie outside the grid on either side when it is chosen; what really does is measured."""

_NARROWEST = 1e-7
"""A window is at least this wide, relative to the losses it lies among: below, cells would not be told apart."""
_SMALLEST_TILT, _LARGEST_TILT = 1e-40, 1e12
_CLOSEST = 1e-12
_LARGEST_LOG = 600.0


@dataclass(frozen=True)
class Cumulants:
    """log E[e^(theta L)] of a history's whole privacy loss under P, at quadrature nodes.

    It chooses the tilt and the window. Whether they were chosen well shows in the result, which does not rest on them.
    """

    parts: tuple[tuple[int, Nodes], ...]

    @classmethod
    def of(cls, history: History, pair: Pair) -> Cumulants:
        """Of a history with positive noise."""
        return cls(tuple((segment.steps, loss_nodes(segment, pair)) for segment in history))

    def value_and_slope(self, theta: float) -> tuple[float, float]:
        """The cumulant generating function and its derivative, the mean of the tilted loss."""
        value = slope = 0.0
        for steps, nodes in self.parts:
            exponent = nodes.log_weight + theta * nodes.value
            largest = float(exponent.max())
            weight = np.exp(exponent - largest)
            total = float(weight.sum())
            value += steps * (largest + math.log(total))
            slope += steps * float(weight @ nodes.value) / total
        return value, slope

    def reach(self, theta: float, side: int) -> tuple[float, float]:
        """Where the tilted loss's tail ends: above (1) or below (-1) it lies at most SPILL, by Chernoff's bound.

        Returns:
            That end, and the further tilt t > 0 for which the bound says so.
        """
        start, _ = self.value_and_slope(theta)
        cost = -math.log(SPILL)

        def end(log_t: float) -> float:
            t = math.exp(log_t)
            return (self.value_and_slope(theta + side * t)[0] - start + cost) / t

        # The bound is quasi-convex in t; the best t is about sqrt(2 cost) over the standard deviation.
        log_t = _minimise(end, 0.5 * math.log(2 * cost / max(self._variance(theta), 1e-300)))
        return side * end(log_t), math.exp(log_t)

    def _variance(self, theta: float) -> float:
        total = 0.0
        for steps, nodes in self.parts:
            exponent = nodes.log_weight + theta * nodes.value
            weight = np.exp(exponent - exponent.max())
            weight /= weight.sum()
            mean = float(weight @ nodes.value)
            total += steps * float(weight @ (nodes.value - mean) ** 2)
        return total


def tilt_for_tail(cumulants: Cumulants, log_probability: float) -> float:
    """The theta > 0 at which Chernoff's bound on P(L > x) is least for the x where it equals a given probability."""

    def excess(log_theta: float) -> float:
        theta = math.exp(log_theta)
        value, slope = cumulants.value_and_slope(theta)
        return theta * slope - value + log_probability

    return math.exp(_root(excess))


def tilt_for_loss(cumulants: Cumulants, loss: float) -> float:
    """The theta >= 0 whose tilted loss has the given mean; 0 where the mean lies above it already."""
    if cumulants.value_and_slope(0.0)[1] >= loss:
        return 0.0
    return math.exp(_root(lambda log_theta: cumulants.value_and_slope(math.exp(log_theta))[1] - loss))


def tilt_for_level(cumulants: Cumulants, log_level: float) -> float:
    """The theta > -1 at which Chernoff's bound on Q(L > x) is least for the x where it equals a given level."""

    def excess(theta: float, s: float) -> float:
        value, slope = cumulants.value_and_slope(theta)
        return s * slope - value + log_level

    if excess(0.0, 1.0) < 0:
        return math.exp(_root(lambda log_theta: excess(math.exp(log_theta), 1 + math.exp(log_theta))))
    # Between -1 and 0, with theta resolved near 0 (two worlds far apart) and theta + 1 near -1 (a high level).
    odds = math.exp(_root(lambda log_odds: excess(-1 / (1 + math.exp(log_odds)), 1 / (1 + math.exp(-log_odds)))))
    return max(-1 / (1 + odds), -1 + _CLOSEST)


@dataclass(frozen=True)
class Window:
    """The stretch of the total loss that a grid resolves, with the further tilts that bound what lies outside."""

    low: float
    high: float
    tilt_below: float
    tilt_above: float

    @classmethod
    def around(cls, cumulants: Cumulants, theta: float) -> Window:
        """Where all but SPILL of the tilted loss lies."""
        (low, tilt_below), (high, tilt_above) = cumulants.reach(theta, -1), cumulants.reach(theta, 1)
        least = _NARROWEST * max(abs(low), abs(high), 1e-12)
        slack = max(0.05 * (high - low), (least - (high - low)) / 2)
        return cls(low - slack, high + slack, tilt_below, tilt_above)


@dataclass(frozen=True)
class Law:
    """The law of a sum of discretised losses, on a grid, tilted.

    Attributes:
        loss: float64 (n,), ascending, evenly spaced.
        tilted: float64 (n,), adds up to 1; the mass is ``tilted exp(log_scale - theta (loss - centre))``.
        theta: The tilt.
        centre: The loss in the grid's middle.
        log_scale: See ``tilted``.
        spill: A bound on the tilted mass that lies outside the grid and was wrapped around onto it.
    """

    loss: Array
    tilted: Array
    theta: float
    centre: float
    log_scale: float
    spill: float

    def masses(self) -> Array:
        """float64 (n,), the masses. Precise where theta leads and onward; on the other side noise may be magnified."""
        return np.exp(np.minimum(_log(self.tilted) + self._log_weights(), 0.0))

    def spilt(self) -> Array:
        """float64 (n,), at most this was wrapped onto the part of the grid beyond each point, in theta's direction."""
        return self.spill * np.exp(np.minimum(self._log_weights(), _LARGEST_LOG))

    def as_null(self) -> Law:
        """Q's law where P's masses are Q's times e^loss: P's law tilted by one more."""
        return replace(self, theta=self.theta + 1, log_scale=self.log_scale - self.centre)

    def _log_weights(self) -> Array:
        return np.asarray(self.log_scale - self.theta * (self.loss - self.centre))


def convolve(parts: Sequence[Part], *, place: float, theta: float, window: Window, size: int) -> Law:
    """The law of the sum of independent discretised losses.

    Args:
        parts: One for every segment, with the same ``h``.
        place: Where in its cell a loss is put, from 0 (the lower edge) to 1.
        theta: The tilt.
        window: What to resolve; ``size`` times the cells' width.
        size: Grid points.
    """
    h = parts[0][1].h
    transform: npt.NDArray[np.complex128] | None = None
    base = 0
    offset = log_scale = 0.0
    for steps, cells, mass in parts:
        grid = cells.first + np.arange(len(mass))
        exponent = _log(mass) + theta * h * grid
        normaliser = float(logsumexp(exponent))
        tilted = np.exp(exponent - normaliser)
        # The sum's index is counted from the tilted mean of every step, so that it stays small.
        middle = round(float(tilted @ grid))
        folded = np.bincount((grid - middle) % size, weights=tilted, minlength=size)
        spectrum = _power(fft.rfft(folded, overwrite_x=True), steps)
        transform = spectrum if transform is None else transform * spectrum
        base += steps * middle
        offset += steps * (cells.origin + place * h)
        log_scale += steps * normaliser
    assert transform is not None
    tilted = np.maximum(fft.irfft(transform, n=size, overwrite_x=True), 0.0)
    start = math.floor((window.low - offset) / h)
    tilted = np.roll(tilted, -((start - base) % size))
    # Counted before it is multiplied, so that the offset itself keeps its digits on a grid that spans 1e17.
    loss = np.asarray(offset + h * (start + np.arange(size)), dtype=np.float64)
    centre = float(loss[size // 2])
    return Law(
        loss=loss,
        tilted=tilted,
        theta=theta,
        centre=centre,
        log_scale=log_scale - theta * (centre - offset),
        spill=_spill(parts, theta, window, start * h, (start + size) * h),
    )


def _power(spectrum: npt.NDArray[np.complex128], steps: int) -> npt.NDArray[np.complex128]:
    """The spectrum of ``steps`` equal summands. Most of it is nil when there are many, and complex powers are slow."""
    kept = np.abs(spectrum) > math.exp(-60 / steps)
    result = np.zeros_like(spectrum)
    result[kept] = spectrum[kept] ** steps
    return result


def _spill(parts: Sequence[Part], theta: float, window: Window, low: float, high: float) -> float:
    """Chernoff's bound on the tilted mass outside the grid, from the very masses that were convolved.

    The ends are those of the sum without its offset.
    """
    exponents = [(steps, _log(mass), cells.h * (cells.first + np.arange(len(mass)))) for steps, cells, mass in parts]

    def log_moment(t: float) -> float:
        return sum(steps * float(logsumexp(log_mass + (theta + t) * loss)) for steps, log_mass, loss in exponents)

    still = log_moment(0.0)
    above = log_moment(window.tilt_above) - still - window.tilt_above * high
    below = log_moment(-window.tilt_below) - still + window.tilt_below * low
    return math.exp(min(above, 0.0)) + math.exp(min(below, 0.0))


def _log(mass: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(mass))


def _root(increasing: Callable[[float], float]) -> float:
    """The root of an increasing function of a logarithm, or the end of the range that it lies beyond."""
    low, high = -1.0, 1.0
    while increasing(low) > 0:
        low = 2 * low if low > -64 else low - 16
        if low < math.log(_SMALLEST_TILT):
            return math.log(_SMALLEST_TILT)
    while increasing(high) < 0:
        high *= 2
        if high > math.log(_LARGEST_TILT):
            return math.log(_LARGEST_TILT)
    return float(brentq(increasing, low, high, xtol=1e-3, rtol=1e-6))


def _minimise(function: Callable[[float], float], start: float) -> float:
    """A point near the minimum of a quasi-convex function: within a quarter in logarithm is near enough."""
    best, value, step = start, function(start), 2.0
    while step > 0.2:
        for candidate in (best - step, best + step):
            if (found := function(candidate)) < value:
                best, value = candidate, found
                break
        else:
            step /= 2
    return best
