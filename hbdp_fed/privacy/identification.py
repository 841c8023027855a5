"""How often the best detector names the one of K candidates that was trained on, where the worst case bounds it.

The adversary holds K equally likely candidates of which exactly one was trained on, sees T steps of the
Poisson-subsampled Gaussian mechanism and names one candidate. Whatever the candidates are, ``worst_case`` at prior 1/K
(:mod:`hbdp_fed.privacy.reconstruction`) bounds the success. Here their clipped gradients are orthogonal and of full
clipping norm, as those of unrelated records in many dimensions nearly are. The outputs' projections on them are then
independent: the true candidate's likelihood ratio L follows P, its law with the record, and each of the others' follows
Q, its law without. The posterior is proportional to L, so no detector beats the one that names the largest:

    success = P(L_true > the largest of K-1 independent L under Q), ties broken at random.

Let beta(alpha) be the power of the best test of Q against P at level alpha (Neyman and Pearson), which is
``worst_case`` at prior alpha. To name the true candidate is to reject at the level alpha whose threshold is the largest
of the others' L. All of them stay below it with probability (1-alpha)^(K-1): this is uniform, alpha ~ Beta(1, K-1), and

    success = E[beta(alpha)] = integral over u in (0, 1) of beta(1 - u^(1/(K-1))) du.

E[alpha] = 1/K and beta is concave: by Jensen's inequality the success is at most beta(1/K), the worst case's bound.
This is why such candidates do not attain the bound: it holds the level at 1/K, where here chance draws it.

For q = 1 both laws are normal and success = integral of phi(x - sqrt(T)/sigma) Phi(x)^(K-1) dx, as for the coherent
detection of K orthogonal signals (Proakis and Salehi 2008, Digital Communications, section 4.4). It is what to expect,
not a bound: candidates that point away from each other are easier to tell apart, a simplex as if sigma were smaller by
sqrt(1 - 1/K) (the same section), which makes two opposite ones attain the bound.

The success tends to 1/K as noise grows, and to 1 - (1-q)^T (1 - 1/K) as it vanishes: where the record was never drawn,
all the likelihood ratios tie.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.integrate import quad
from scipy.special import log_ndtr, ndtri

from hbdp_fed.privacy.discretised import Bounds
from hbdp_fed.privacy.history import check_mechanism
from hbdp_fed.privacy.reconstruction import worst_case_interval

_CELLS, _LAST_EDGE, _CROWDING = 48, 10.0, 4
"""Cells of -log u, where all but the last one end, and how much they crowd towards 0, where beta bends most."""

_TAIL = 10.0
"""Standard deviations beyond which nothing is left of a normal law: 1e-23."""


def best_identification(*, candidates: int, noise_multiplier: float, sample_rate: float, steps: int) -> float:
    """The probability that the best detector names the right one of K orthogonal candidates.

    Args:
        candidates: K, at least 2.
        noise_multiplier: sigma, at least 0.
        sample_rate: q in (0, 1].
        steps: T, at least 1.

    Returns:
        A probability between 1/K and the worst case's bound, exact for q = 1. Otherwise a value inside
        :func:`best_identification_interval`, within about a relative 5e-4 of the truth.

    Raises:
        ValueError: naming the argument that is out of its range.
    """
    lower, upper = best_identification_interval(
        candidates=candidates, noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps
    )
    # Chords are too low by twice as much as tangents are too high, in the leading order (Simpson's rule).
    return lower + (upper - lower) * 2 / 3


@lru_cache(maxsize=1024)
def best_identification_interval(*, candidates: int, noise_multiplier: float, sample_rate: float, steps: int) -> Bounds:
    """A lower and an upper bound of the best detector's success: about a relative 1e-3 apart, or equal for q = 1.

    Args and errors are those of :func:`best_identification`.
    """
    if not 2 <= candidates < math.inf or candidates != int(candidates):
        raise ValueError(f"candidates must be a whole number of at least 2, got {candidates}")
    check_mechanism(noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps)
    if sample_rate == 1:
        mean = math.sqrt(steps) / noise_multiplier if noise_multiplier > 0 else math.inf
        found = (_among_normals(candidates, mean),) * 2
    else:
        found = _mean_power(candidates, noise_multiplier, sample_rate, steps)
    guess = 1 / candidates
    # Jensen's inequality holds for the truth; rounding and the power's own bounds may miss it.
    most = worst_case_interval(prior=guess, noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps)[1]
    return min(max(found[0], guess), most), min(max(found[1], guess), most)


def _among_normals(candidates: int, mean: float) -> float:
    """P(N(mean, 1) > the largest of K-1 independent N(0, 1))."""
    # Where the largest of the others lies, seen from the mean.
    rival = -float(ndtri(1 / candidates)) - mean
    ends = -_TAIL, max(rival, 0.0) + _TAIL

    def density(z: float) -> float:
        return math.exp(-z * z / 2 + (candidates - 1) * float(log_ndtr(z + mean))) / math.sqrt(2 * math.pi)

    middle = min(max(rival, ends[0] / 2), ends[1] - _TAIL / 2)
    return float(quad(density, *ends, points=[middle], epsabs=0.0, epsrel=1e-10)[0])


def _mean_power(candidates: int, noise_multiplier: float, sample_rate: float, steps: int) -> Bounds:
    """Bounds of E[beta(alpha)] for alpha ~ Beta(1, K-1), from beta's bounds at one level in each of a few cells.

    With the level at a cell's mean, the cell's weight times beta there is an upper bound of its share, by Jensen's
    inequality once more. A concave beta lies above the chords between these levels, 0 and 1: integrated exactly, they
    are a lower bound.
    """
    # P(alpha > a) = e^-s at a = 1 - e^(-s/(K-1)).
    s = np.append(_LAST_EDGE * np.linspace(0.0, 1.0, _CELLS) ** _CROWDING, math.inf)
    beyond, edges = np.exp(-s), -np.expm1(-s / (candidates - 1))
    weights = -np.diff(beyond)
    # The integral of P(alpha > a) over a is -(1-a)^K / K.
    levels = -np.diff(edges * beyond + np.exp(-s * (candidates / (candidates - 1))) / candidates) / weights
    lower, upper = np.array(
        [
            worst_case_interval(prior=level, noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps)
            for level in levels.tolist()
        ]
    ).T
    # E[g] is the integral of g'(a) P(alpha > a), for the chords g.
    chords = np.diff(np.concatenate([[0.0], lower, [1.0]])) / np.diff(np.concatenate([[0.0], levels, [1.0]]))
    shares = -np.diff(np.concatenate([[1.0], np.exp(candidates * np.log1p(-levels)), [0.0]])) / candidates
    return float(chords @ shares), float(weights @ upper)
