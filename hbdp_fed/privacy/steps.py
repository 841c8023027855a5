"""One step as a pair of distributions, and the law of its privacy loss on a grid.

The adversary compares two worlds by what a step releases, projected on the direction of the record's clipped gradient
(clipping norm 1): without the record, Q = N(0, sigma^2); with it, P = (1-q) N(0, sigma^2) + q N(1, sigma^2). This pair
dominates every DP-SGD step of one record, and products of dominating pairs dominate the composition (Zhu, Dong and
Wang 2022, arXiv 2106.08567, theorem 10 and proposition 11). Every quantity of interest, delta, epsilon or the power of
the best test, is a function of the distribution under P of the privacy loss L = log dP/dQ alone, because
H_t(P || Q) = E_P[(1 - t e^-L)+].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from hbdp_fed.privacy.history import Segment

Array = npt.NDArray[np.float64]

_NODE_SPACING = 0.125
_NODE_REACH = 40.0


class Pair(Enum):
    """Which two worlds are compared, written (P, Q)."""

    REMOVE = "remove"
    """The record took part (P), or not (Q)."""
    ADD = "add"
    """The same two with the roles exchanged."""
    FOLDED = "folded"
    """As REMOVE, for an adversary who sees |y| alone: the sign of the record's direction is forgotten at every step."""
    MIRRORED = "mirrored"
    """No pair of its own: the loss of REMOVE at -y where y comes from P, what the record shows of its mirror image."""


@dataclass(frozen=True)
class Nodes:
    """A variable of one step, such as its privacy loss, at quadrature nodes.

    Attributes:
        value: float64 (M,).
        log_weight: float64 (M,), logarithms of weights that add up to 1 (to about 1e-15 for smooth integrands).
    """

    value: Array
    log_weight: Array


@dataclass(frozen=True)
class LossCells:
    """The law of one step's privacy loss under P, cell by cell: cell i begins at origin + (first + i) h.

    Attributes:
        origin: A grid point: where noise is small, the loss that steps without the record tend to, so that this atom
            is never smeared over a cell.
        first: Number of the first cell, counted from the origin.
        h: Width of a cell.
        mass: float64 (M,), P's mass of each cell.
        null_mass: float64 (M,), Q's mass of each cell.
        loss: float64 (M,), each cell's own privacy loss log P(cell)/Q(cell); it lies inside the cell. (For MIRRORED:
            some loss inside the cell.)
        below: P's mass of losses below the first cell.
        above: P's mass of losses above the last.
    """

    origin: float
    first: int
    h: float
    mass: Array
    null_mass: Array
    loss: Array
    below: float
    above: float

    @property
    def middles(self) -> Array:
        """float64 (M,), the losses in the cells' middles."""
        return np.asarray(self.origin + (self.first + 0.5 + np.arange(len(self.mass))) * self.h, dtype=np.float64)

    @property
    def top(self) -> float:
        """The last cell's upper edge."""
        return self.origin + (self.first + len(self.mass)) * self.h


def loss_range(segment: Segment, pair: Pair) -> tuple[float, float]:
    """Between which values one step's privacy loss lies: nothing proves that a rarely drawn record is absent."""
    least = -math.inf if segment.sample_rate == 1 else math.log1p(-segment.sample_rate)
    return (-math.inf, -least) if pair is Pair.ADD else (least, math.inf)


def loss_nodes(segment: Segment, pair: Pair) -> Nodes:
    """The privacy loss of one step at the nodes of a trapezoidal rule, in P's one or two Gaussian components."""
    sigma, q = segment.noise_multiplier, segment.sample_rate
    if pair is Pair.ADD:
        nodes = _nodes()
        return Nodes(-_loss(sigma * nodes.value, sigma, q, pair), nodes.log_weight)
    outputs = _output_nodes(sigma, q)
    seen = -outputs.value if pair is Pair.MIRRORED else outputs.value
    return Nodes(_loss(seen, sigma, q, pair), outputs.log_weight)


def _nodes() -> Nodes:
    """A standard normal variable at the nodes of a trapezoidal rule."""
    u = np.arange(-_NODE_REACH, _NODE_REACH + _NODE_SPACING / 2, _NODE_SPACING)
    return Nodes(u, -u * u / 2 + math.log(_NODE_SPACING / math.sqrt(2 * math.pi)))


def _output_nodes(sigma: float, q: float) -> Nodes:
    """A step's output where the record may have taken part."""
    nodes = _nodes()
    included = 1 + sigma * nodes.value, nodes.log_weight + math.log(q)
    if q == 1:
        return Nodes(*included)
    excluded = sigma * nodes.value, nodes.log_weight + math.log1p(-q)
    return Nodes(*(np.concatenate(both) for both in zip(included, excluded, strict=True)))


def resolved_range(
    segment: Segment, pair: Pair, *, tail: float, bottom: float = -math.inf, top: float = math.inf
) -> tuple[float, float]:
    """The losses that :func:`loss_cells` resolves, for the same arguments."""
    sigma, q = segment.noise_multiplier, segment.sample_rate
    low, high = (float(end) for end in _loss(np.array(_resolved_outputs(sigma, q, pair, tail)), sigma, q, pair))
    if pair is Pair.ADD:
        low, high = -high, -low
    least, most = loss_range(segment, pair)
    return max(low, bottom, least), min(high, top, most)


def loss_cells(
    segment: Segment,
    pair: Pair,
    *,
    h: float,
    centred: bool,
    tail: float,
    bottom: float = -math.inf,
    top: float = math.inf,
) -> LossCells:
    """The law of one step's privacy loss on a grid.

    Args:
        segment: Its noise multiplier (positive) and sample rate; its steps do not matter.
        pair: The two worlds.
        h: Width of a cell, positive.
        tail: How many standard deviations of each Gaussian component are resolved; P's mass beyond is ``below`` or
            ``above``.
        bottom: Losses below this need not be resolved either; their mass is ``below``.
        top: Losses above this need not be resolved either; their mass is ``above``.
        centred: Whether the origin lies in the middle of a cell instead of between two.
    """
    sigma, q = segment.noise_multiplier, segment.sample_rate
    least, most = loss_range(segment, pair)
    ends = resolved_range(segment, pair, tail=tail, bottom=bottom, top=top)
    # With much noise the losses lie close together and far from that bound: counted from 0 they keep their digits.
    bound = least if math.isfinite(least) else most
    near = min(abs(end - bound) for end in ends) <= ends[1] - ends[0]
    origin = bound if near else 0.0
    origin -= h / 2 if centred else 0.0
    first, last = math.floor((ends[0] - origin) / h), math.ceil((ends[1] - origin) / h)
    if last <= first:
        first, last = (last - 1, last) if pair is Pair.ADD else (first, first + 1)
    edges = np.asarray(origin + np.arange(first, last + 1) * h, dtype=np.float64)
    # Far to the left the loss of a sampled step tends to its bound, and no formula finds the way back from there.
    leftmost = 0.0 if pair is Pair.FOLDED else -math.inf
    at_bound = (edges <= least) if pair is not Pair.ADD else (edges >= most)
    if pair is Pair.ADD:
        outputs = np.where(at_bound, leftmost, _output_of(-edges, sigma, q, pair))[::-1]
        included, excluded = _log_masses(outputs, sigma, pair)
        log_p, log_q = excluded[::-1], _log_mixture(included, excluded, q)[::-1]
        below, above = np.exp(log_ndtr(-outputs[-1] / sigma)), np.exp(log_ndtr(outputs[0] / sigma))
    else:
        outputs = np.where(at_bound, leftmost, _output_of(edges, sigma, q, pair))
        included, excluded = _log_masses(outputs, sigma, pair)
        log_p, log_q = _log_mixture(included, excluded, q), excluded
        below, above = (_mixture_tail(end, side, sigma, q, pair) for end, side in ((outputs[0], -1), (outputs[-1], 1)))
    with np.errstate(invalid="ignore"):
        own = log_p - log_q
    # Rounding, or an empty cell, may put the difference outside the cell that it provably lies in.
    loss = np.clip(np.where(np.isfinite(own), own, edges[1:]), edges[:-1], edges[1:])
    return LossCells(
        origin=origin,
        first=first,
        h=h,
        mass=np.exp(log_p),
        null_mass=np.exp(log_q),
        loss=loss,
        below=float(below),
        above=float(above),
    )


def _loss(y: Array, sigma: float, q: float, pair: Pair) -> Array:
    """log dP/dQ at a step's output ``y`` (for ADD too: the caller changes its sign)."""
    if pair is Pair.FOLDED:
        z = np.abs(y) / sigma**2
        signal = z + np.log1p(np.exp(-2 * z)) - math.log(2) - 1 / (2 * sigma**2)
    else:
        signal = (y - 0.5) / sigma**2
    if q == 1:
        return signal
    # log(1 - q + q e^signal), without overflow and without losing small signals to the 1.
    moderate = np.minimum(signal, 30.0)
    return np.where(
        signal < 30.0,
        np.log1p(q * np.expm1(moderate)),
        signal + math.log(q) + np.log1p((1 - q) / q * np.exp(-np.maximum(signal, 30.0))),
    )


def _output_of(loss: Array, sigma: float, q: float, pair: Pair) -> Array:
    """The inverse of :func:`_loss` (for FOLDED the output's magnitude); ends of the range map to its ends."""
    moderate = np.minimum(loss, 30.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        small = np.log1p(np.maximum(np.expm1(moderate) / q, -1.0))
        large = loss - math.log(q) + np.log1p(-(1 - q) * np.exp(-np.maximum(loss, 30.0)))
        signal = loss if q == 1 else np.where(loss < 30.0, small, large)
        if pair is not Pair.FOLDED:
            return np.asarray(0.5 + sigma**2 * signal)
        # arccosh(e^s) for s >= 0, without overflow.
        s = np.maximum(signal + 1 / (2 * sigma**2), 0.0)
        return np.asarray(sigma**2 * (s + np.log1p(np.sqrt(-np.expm1(-2 * s)))))


def _resolved_outputs(sigma: float, q: float, pair: Pair, tail: float) -> tuple[float, float]:
    reach = sigma * tail
    if pair is Pair.FOLDED:
        return 0.0, 1 + reach
    if pair is Pair.ADD:
        return -reach, reach
    if pair is Pair.MIRRORED:
        return -1 - reach, (-1 if q == 1 else 0) + reach
    return (1 - reach if q == 1 else -reach), 1 + reach


def _log_masses(outputs: Array, sigma: float, pair: Pair) -> tuple[Array, Array]:
    """Logarithms of the masses between neighbouring outputs: of the included and of the excluded component."""
    ends = outputs / sigma
    if pair is Pair.FOLDED:
        both = np.logaddexp(_log_between(ends - 1 / sigma), _log_between(-(ends + 1 / sigma)[::-1])[::-1])
        return both, _log_between(ends) + math.log(2)
    towards = -1 if pair is Pair.MIRRORED else 1
    return _log_between(ends - towards / sigma), _log_between(ends)


def _log_between(ends: Array) -> Array:
    """log(Phi(b) - Phi(a)) of neighbours a < b, each on the side where the tail is the smaller one."""
    low, high = ends[:-1], ends[1:]
    upper_side = low > 0
    near = np.where(upper_side, log_ndtr(-low), log_ndtr(high))
    far = np.where(upper_side, log_ndtr(-high), log_ndtr(low))
    with np.errstate(divide="ignore", invalid="ignore"):
        result = near + np.log(-np.expm1(np.minimum(far - near, 0.0)))
    return np.where(np.isnan(result), -np.inf, result)


def _log_mixture(included: Array, excluded: Array, q: float) -> Array:
    return included if q == 1 else np.logaddexp(math.log(q) + included, math.log1p(-q) + excluded)


def _mixture_tail(output: float, side: int, sigma: float, q: float, pair: Pair) -> float:
    """P's mass beyond an output, to the left (-1) or to the right (1)."""
    centre = side * output / sigma
    shift = (-side if pair is Pair.MIRRORED else side) / sigma
    if pair is Pair.FOLDED:
        if side < 0:
            return 0.0
        included = np.exp(log_ndtr(-centre + shift)) + np.exp(log_ndtr(-centre - shift))
        return float(q * included + (1 - q) * 2 * np.exp(log_ndtr(-centre)))
    return float(q * np.exp(log_ndtr(-centre + shift)) + (1 - q) * np.exp(log_ndtr(-centre)))
