"""How close the unprocessed linear probe comes to a record's image: the laws of its MSE, PSNR and NCC.

The linear probe is a one-layer model whose gradient for one record is the record's image x, clipped to the clipping
norm. With N pixels in [0, 1], l2 norm ||x|| and noise multiplier sigma, every step that includes the record shows
x + e, with e ~ N(0, (sigma ||x||)^2) in each pixel (Ziller et al. 2024, arXiv 2402.12861). The adversary is granted the
knowledge of which steps those are and averages them: over T steps of Poisson sampling at rate q there are
K ~ Binomial(T, q), and the noise that is left has the standard deviation sigma ||x|| / sqrt(K). Given K >= 1,

* MSE ~ Gamma(shape N / 2, scale 2 (sigma ||x||)^2 / (N K)), and PSNR = -10 log10(MSE) dB, as the peak is 1;
* NCC = (a + Z) / sqrt((a + Z)^2 + W^2) with Z ~ N(0, 1), W ~ chi with M - 1 degrees of freedom, and
  a = r sqrt(K) / sigma. The uncentred <x, xhat> / (||x|| ||xhat||) has M = N and r = 1, the zero-mean form (Pearson's
  correlation) M = N - 1 and r = ||x - mean(x)|| / ||x||.

A record that no step included (K = 0) is not reconstructed at all: its error is infinite and reaches no threshold.

All this is the law of the *unprocessed* probe and not a bound on what an adversary can do. Clipping the estimate to
[0, 1] about halves the error (it halves that of black and white pixels under little noise, and does more under much),
and shrinking it towards a public mean image cuts it further.

Probabilities are exact to about 1e-12, absolute; those below 1e-40 may be taken for 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import gammainc, gammainccinv, gammaincinv, ndtr
from scipy.stats import binom

Array = npt.NDArray[np.float64]

DECIBEL = 10 / math.log(10)
"""PSNR in dB is -DECIBEL * ln(MSE)."""

_TAIL_EXPONENT = 40.0
"""Counts of inclusions of less than about exp(-this) in mass are left out on either side."""

_NEGLIGIBLE_EXPONENT = 100.0
"""A gamma tail of less than exp(-this) is taken for 0."""

_NODES = 64
"""Gauss-Legendre nodes over the 18 standard deviations of a normal variable, or over as much of a chi variable."""

_REACH = 9.0
"""How far from its centre such a variable is followed: the rest has a mass below 1e-17."""

_LARGEST_FISHER_Z = 20.0
"""artanh(NCC) of an NCC that is 1 in double precision."""

_LARGEST_SIGNAL = 1e100
"""Where the ratio of image to noise is cut off, so that its square stays finite."""

_ALMOST_ONE = 1 - 2.0**-53


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """The linear probe against one record; its methods are the laws that the module's docstring states.

    Each probability and quantile is over the noise and the sampling, K = 0 included.

    Raises:
        ValueError: naming the argument that is out of its range.
    """

    noise_multiplier: float
    """sigma, finite and at least 0. Without noise the reconstruction is exact whenever K >= 1."""
    sample_rate: float
    """q in (0, 1]."""
    steps: int
    """T, at least 1."""
    pixels: int
    """N, all channels counted: at least 2, or 3 if ``centred_norm`` is given."""
    norm: float
    """||x||, positive: the l2 norm of the pixel values in [0, 1]."""
    centred_norm: float | None = None
    """||x - mean(x)|| in (0, norm], which makes NCC the zero-mean form. None for the uncentred one."""

    def __post_init__(self) -> None:
        if not (self.noise_multiplier >= 0 and math.isfinite(self.noise_multiplier)):
            raise ValueError(f"noise_multiplier must be finite and not negative, got {self.noise_multiplier}")
        if not 0 < self.sample_rate <= 1:
            raise ValueError(f"sample_rate must lie in (0, 1], got {self.sample_rate}")
        if not self.steps >= 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if not (self.norm > 0 and math.isfinite(self.norm)):
            raise ValueError(f"norm must be finite and positive, got {self.norm}")
        if self.centred_norm is not None and not 0 < self.centred_norm <= self.norm:
            raise ValueError(f"centred_norm must lie in (0, norm = {self.norm}], got {self.centred_norm}")
        fewest = 2 if self.centred_norm is None else 3
        if not self.pixels >= fewest:
            raise ValueError(f"pixels must be at least {fewest}, got {self.pixels}")

    @property
    def probability_included(self) -> float:
        """1 - (1 - q)^T, in (0, 1]: the probability that at least one step includes the record."""
        return self._inclusions.total

    def probability_mse_at_most(self, eta: float) -> float:
        """P(MSE <= eta), for ``eta`` >= 0 (``inf`` allowed); at most :attr:`probability_included`.

        Raises:
            ValueError: if ``eta`` is negative or not a number.
        """
        if not eta >= 0:
            raise ValueError(f"eta must not be negative, got {eta}")
        return self._probability_log_mse(math.log(eta) if eta > 0 else -math.inf)

    def mse_quantile(self, probability: float) -> float:
        """The smallest eta >= 0 with P(MSE <= eta) >= ``probability``; ``inf`` where no finite one has it.

        Args:
            probability: in [0, 1].

        Raises:
            ValueError: if ``probability`` is out of its range.
        """
        return _exp(self._log_mse_quantile(probability))

    def probability_psnr_at_least(self, db: float) -> float:
        """P(PSNR >= db), for any ``db`` (infinities allowed).

        Raises:
            ValueError: if ``db`` is not a number.
        """
        if math.isnan(db):
            raise ValueError(f"db must be a number, got {db}")
        return self._probability_log_mse(-db / DECIBEL)

    def psnr_quantile(self, probability: float) -> float:
        """The PSNR in dB that is reached or exceeded with ``probability``; ``-inf`` where none is.

        Args:
            probability: in [0, 1].

        Raises:
            ValueError: if ``probability`` is out of its range.
        """
        return -DECIBEL * self._log_mse_quantile(probability)

    def probability_ncc_at_least(self, c: float) -> float:
        """P(NCC >= c), for ``c`` in [-1, 1]: a mixture of tails of the noncentral t distribution.

        Raises:
            ValueError: if ``c`` is out of its range.
        """
        if not -1 <= c <= 1:
            raise ValueError(f"c must lie in [-1, 1], got {c}")
        if c == -1 or self.noise_multiplier == 0:
            return self.probability_included
        return 0.0 if c == 1 else self._probability_cotangent(_cotangent(c))

    def ncc_quantile(self, probability: float) -> float:
        """The NCC in [-1, 1] that is reached or exceeded with ``probability``; ``-inf`` where none is.

        An NCC within 1e-16 of 1 is returned as 1.

        Args:
            probability: in [0, 1].

        Raises:
            ValueError: if ``probability`` is out of its range.
        """
        _check_probability(probability)
        if probability > self.probability_included:
            return -math.inf
        if self.noise_multiplier == 0 or probability == 0:
            return 1.0
        # A record that is included more often has the higher NCC: the mixture lies between its extreme components.
        conditional = probability / self.probability_included
        signals = self._signals
        low, high = (_fisher_z_quantile(signals[[end]], self._chi_freedom, conditional) for end in (0, -1))
        fisher_z = _root(
            lambda value: probability - self._probability_cotangent(math.sinh(value)),
            max(low - 1e-6, -_LARGEST_FISHER_Z),
            min(high + 1e-6, _LARGEST_FISHER_Z),
        )
        return math.tanh(fisher_z)

    def expected_best_psnr(self, records: int) -> float:
        """The expected PSNR in dB of the best-reconstructed of ``records`` independent records of this norm.

        It is conditional on at least one of them having been included, as the best is ``-inf`` otherwise: the
        expectation of the maximum of independent draws, of those that exist. It falls by 20 dB for ten times the noise,
        and is ``inf`` without any.

        With L = ln(MSE) of the best and G its distribution function, E[L] = high - integral of G from low to high,
        by the trapezoidal rule, which converges exponentially for a G this smooth.

        Args:
            records: n, at least 1.

        Raises:
            ValueError: if ``records`` is below 1.
        """
        if not records >= 1:
            raise ValueError(f"records must be at least 1, got {records}")
        if self.noise_multiplier == 0:
            return math.inf
        counts = self._inclusions.counts
        tail = math.exp(-_TAIL_EXPONENT)
        low = self._log_gamma_to_log_mse(float(gammaincinv(self.pixels / 2, tail / records)), float(counts[-1]))
        high = self._log_gamma_to_log_mse(float(gammainccinv(self.pixels / 2, tail)), float(counts[0]))
        coarse = np.linspace(low, high, 257)
        reached = self._best_log_mse_distribution(coarse, records)
        first, last = np.searchsorted(reached, [tail, 1 - 1e-15])
        low, high = float(coarse[max(0, first - 1)]), float(coarse[min(len(coarse) - 1, last)])
        # The narrowest feature of G: ln of a gamma variable spreads by sqrt(2 / N), the least of n by less.
        width = math.sqrt(2 / self.pixels) / math.sqrt(1 + 2 * math.log(records))
        grid, step = np.linspace(low, high, 2 + math.ceil((high - low) / (0.3 * width)), retstep=True)
        reached = self._best_log_mse_distribution(grid, records)
        area = float(step) * float(reached.sum() - 0.5 * (reached[0] + reached[-1]))
        return -DECIBEL * (high - area)

    @property
    def _inclusions(self) -> _Inclusions:
        return _inclusions(sample_rate=self.sample_rate, steps=self.steps, pixels=self.pixels)

    @property
    def _log_noise(self) -> float:
        """The log of the noise's standard deviation in one step: ln(sigma ||x||)."""
        return math.log(self.noise_multiplier) + math.log(self.norm)

    @property
    def _chi_freedom(self) -> int:
        """M - 1, at least 1."""
        return self.pixels - (1 if self.centred_norm is None else 2)

    @property
    def _signals(self) -> Array:
        """The a of every count of inclusions, ascending."""
        ratio = 1.0 if self.centred_norm is None else self.centred_norm / self.norm
        signal = ratio / max(self.noise_multiplier, 1 / _LARGEST_SIGNAL)
        return np.sqrt(self._inclusions.counts) * signal

    def _probability_cotangent(self, cotangent: float) -> float:
        """P(NCC >= c) for c = cotangent / sqrt(1 + cotangent^2)."""
        tails = _cotangent_tail(self._signals, cotangent, self._chi_freedom)
        return self._inclusions.mix(tails)

    def _probability_log_mse(self, log_eta: float) -> float:
        if self.noise_multiplier == 0 or log_eta == math.inf:
            return self.probability_included
        if log_eta == -math.inf:
            return 0.0
        return float(self._log_mse_distribution(np.array([log_eta]))[0])

    def _log_mse_distribution(self, log_eta: Array) -> Array:
        """P(ln MSE <= each of ``log_eta``), finite ones, for positive noise. Shape [points] -> [points]."""
        shape = self.pixels / 2
        inclusions = self._inclusions
        # The log of the gamma variable at eta, over its mean N / 2: shape [points, counts].
        excess = (log_eta - 2 * self._log_noise)[:, None] + np.log(inclusions.counts)
        excess = np.clip(excess, -600.0, 600.0)
        below = (excess > 0).astype(np.float64)
        # Chernoff: either tail is at most exp(-shape (e^v - 1 - v)), so that only the band in between needs computing.
        band = shape * (np.expm1(excess) - excess) < _NEGLIGIBLE_EXPONENT
        below[band] = gammainc(shape, shape * np.exp(excess[band]))
        mixed: Array = np.minimum(below @ inclusions.weights, inclusions.total)
        return mixed

    def _log_mse_quantile(self, probability: float) -> float:
        _check_probability(probability)
        noiseless = self.noise_multiplier == 0
        if probability > self.probability_included or (probability == self.probability_included and not noiseless):
            return math.inf
        if noiseless or probability == 0:
            return -math.inf
        # A record that is included more often has the lower MSE: the mixture lies between its extreme components.
        conditional = min(probability / self.probability_included, _ALMOST_ONE)
        gamma_quantile = float(gammaincinv(self.pixels / 2, conditional))
        counts = self._inclusions.counts
        return _root(
            lambda log_eta: self._probability_log_mse(log_eta) - probability,
            self._log_gamma_to_log_mse(gamma_quantile, float(counts[-1])) - 1e-9,
            self._log_gamma_to_log_mse(gamma_quantile, float(counts[0])) + 1e-9,
        )

    def _log_gamma_to_log_mse(self, value: float, count: float) -> float:
        """ln(MSE) at which the standard gamma variable has ``value``, for ``count`` inclusions."""
        value = max(value, 1e-300)
        return math.log(value / (self.pixels / 2)) + 2 * self._log_noise - math.log(count)

    def _best_log_mse_distribution(self, log_eta: Array, records: int) -> Array:
        """G: of the least of ``records`` values of ln MSE, given that one is finite. Shape [points] -> [points]."""
        block = max(1, 500_000 // len(self._inclusions.counts))
        blocks = [self._log_mse_distribution(log_eta[start : start + block]) for start in range(0, len(log_eta), block)]
        single = np.minimum(np.concatenate(blocks), _ALMOST_ONE)
        at_least_one = math.expm1(records * math.log1p(-min(self.probability_included, _ALMOST_ONE)))
        best: Array = np.minimum(np.expm1(records * np.log1p(-single)) / at_least_one, 1.0)
        return best


def noise_for_mse(*, eta: float, probability: float, sample_rate: float, steps: int, pixels: int, norm: float) -> float:
    """The smallest noise multiplier for which P(MSE <= eta) <= ``probability`` (to within one part in 1e9).

    Args:
        eta: finite and positive.
        probability: in (0, 1]. From 1 - (1 - q)^T on, the result is 0: no noise is needed.
        sample_rate: q in (0, 1].
        steps: T, at least 1.
        pixels: N, at least 2.
        norm: ||x||, positive.

    Returns:
        sigma, never on the side that breaks the promise.

    Raises:
        ValueError: naming the argument that is out of its range.
    """
    if not (eta > 0 and math.isfinite(eta)):
        raise ValueError(f"eta must be finite and positive, got {eta}")
    unit = LinearProbe(noise_multiplier=1.0, sample_rate=sample_rate, steps=steps, pixels=pixels, norm=norm)
    return _noise_for_log_mse(unit, math.log(eta), probability)


def noise_for_psnr(*, db: float, probability: float, sample_rate: float, steps: int, pixels: int, norm: float) -> float:
    """The smallest noise multiplier for which P(PSNR >= db) <= ``probability``; see :func:`noise_for_mse`.

    Args:
        db: finite.
        probability: in (0, 1]. From 1 - (1 - q)^T on, the result is 0: no noise is needed.
        sample_rate: q in (0, 1].
        steps: T, at least 1.
        pixels: N, at least 2.
        norm: ||x||, positive.

    Returns:
        sigma, never on the side that breaks the promise.

    Raises:
        ValueError: naming the argument that is out of its range.
    """
    if not math.isfinite(db):
        raise ValueError(f"db must be finite, got {db}")
    unit = LinearProbe(noise_multiplier=1.0, sample_rate=sample_rate, steps=steps, pixels=pixels, norm=norm)
    return _noise_for_log_mse(unit, -db / DECIBEL, probability)


def noise_for_ncc(
    *,
    c: float,
    probability: float,
    sample_rate: float,
    steps: int,
    pixels: int,
    norm: float,
    centred_norm: float | None = None,
) -> float:
    """The smallest noise multiplier for which P(NCC >= c) <= ``probability`` (to within one part in 1e9).

    Pure noise has an NCC too: where it reaches ``c`` more often than ``probability`` allows, no noise multiplier is
    large enough, and the result is ``inf``.

    Args:
        c: strictly between -1 and 1.
        probability: in (0, 1]. From 1 - (1 - q)^T on, the result is 0: no noise is needed.
        sample_rate: q in (0, 1].
        steps: T, at least 1.
        pixels: N, at least 2, or 3 if ``centred_norm`` is given.
        norm: ||x||, positive. The uncentred NCC does not depend on it.
        centred_norm: ||x - mean(x)|| in (0, norm] for the zero-mean NCC, None for the uncentred one.

    Returns:
        sigma, never on the side that breaks the promise.

    Raises:
        ValueError: naming the argument that is out of its range.
    """
    if not -1 < c < 1:
        raise ValueError(f"c must lie strictly between -1 and 1, got {c}")

    def probe(sigma: float) -> LinearProbe:
        return LinearProbe(
            noise_multiplier=sigma,
            sample_rate=sample_rate,
            steps=steps,
            pixels=pixels,
            norm=norm,
            centred_norm=centred_norm,
        )

    unit = probe(1.0)
    _check_target(probability)
    if probability >= unit.probability_included:
        return 0.0
    counts, signals = unit._inclusions.counts, unit._signals
    cotangent, freedom = _cotangent(c), unit._chi_freedom
    if float(_cotangent_tail(np.zeros(1), cotangent, freedom)[0]) * unit.probability_included > probability:
        return math.inf

    def excess(sigma: float) -> float:
        return probe(sigma).probability_ncc_at_least(c) - probability

    # At this noise the image and the noise that is left are as large as they must be for an NCC of about c.
    typical = math.sqrt(float(counts.mean()))
    ratio = float(signals[0]) / math.sqrt(float(counts[0]))
    low = high = math.log(ratio * typical / max(abs(cotangent) * math.sqrt(freedom), 1.0))
    while excess(math.exp(low)) < 0:
        low -= 1.0
    while excess(math.exp(high)) > 0:
        high += 1.0
        if high > 600:
            return math.inf
    return _step_to_promise(math.exp(_root(lambda value: -excess(math.exp(value)), low, high)), excess)


@dataclass(frozen=True)
class _Inclusions:
    """The positive counts K of inclusions that matter, ascending, and their probabilities. Shapes [counts]."""

    counts: Array
    weights: Array
    total: float
    """P(K >= 1), which the weights sum to."""

    def mix(self, conditional: Array) -> float:
        """The probability over K of an event with the given probabilities, [counts], conditional on K."""
        return min(float(conditional @ self.weights), self.total)


@lru_cache(maxsize=256)
def _inclusions(*, sample_rate: float, steps: int, pixels: int) -> _Inclusions:
    """K ~ Binomial(steps, sample_rate) without 0 and without negligible tails.

    As functions of ln K the laws of MSE and NCC vary no faster than a normal distribution function of the standard
    deviation sqrt(2 / pixels). Where that spans several counts, every few counts are enough: the sum is a trapezoidal
    rule for a smooth integrand, and converges exponentially.
    """
    total = 1.0 if sample_rate == 1 else -math.expm1(steps * math.log1p(-sample_rate))
    mean, variance = steps * sample_rate, steps * sample_rate * (1 - sample_rate)
    # Bernstein's inequality.
    reach = _TAIL_EXPONENT / 3 + math.sqrt((_TAIL_EXPONENT / 3) ** 2 + 2 * _TAIL_EXPONENT * variance)
    low, high = max(1, math.floor(mean - reach)), min(steps, math.ceil(mean + reach))
    stride = 1
    if low > 1 and high < steps:
        stride = max(1, int(min(math.sqrt(variance), mean * math.sqrt(2 / pixels)) / 1.5))
    counts = np.arange(low, high + 1, stride, dtype=np.float64)
    weights = np.asarray(binom.pmf(counts, steps, sample_rate), dtype=np.float64)
    weights *= total / weights.sum()
    kept = weights > total * math.exp(-_TAIL_EXPONENT - 10)
    counts, weights = counts[kept], weights[kept]
    counts.flags.writeable = weights.flags.writeable = False
    return _Inclusions(counts=counts, weights=weights, total=total)


@lru_cache(maxsize=1)
def _legendre() -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights on [0, 2]: shapes [nodes]."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return nodes + 1.0, weights


@lru_cache(maxsize=64)
def _chi_rule(freedom: int) -> tuple[Array, Array]:
    """Nodes and weights, [nodes], for expectations over a chi variable with ``freedom`` degrees of freedom, >= 1."""
    centre = math.sqrt(freedom)
    low = max(0.0, centre - _REACH)
    nodes, weights = _legendre()
    half = (centre + _REACH - low) / 2
    values = low + half * nodes
    # The log density about the centre, where its large terms cancel; the constant goes by normalising.
    offset = values - centre
    log_density = (freedom - 1) * np.log1p(offset / centre) - offset * centre - offset**2 / 2
    masses = weights * np.exp(log_density)
    return values, masses / masses.sum()


def _cotangent(c: float) -> float:
    return c / math.sqrt((1 - c) * (1 + c))


def _cotangent_tail(signals: Array, cotangent: float, freedom: int) -> Array:
    """P(a + Z >= cotangent * W) for every a in ``signals`` (not negative, [counts]), W chi with ``freedom`` degrees.

    This is the tail of a noncentral t variable. The integral runs over the variable that the integrand follows the
    more smoothly: over W up to a cotangent of 1, over Z beyond.
    """
    if abs(cotangent) <= 1:
        values, masses = _chi_rule(freedom)
        tail: Array = ndtr(signals[:, None] - cotangent * values) @ masses
        return tail
    if cotangent > 0:
        return _normal_above_chi(signals, cotangent, freedom)
    return 1.0 - _normal_above_chi(-signals, -cotangent, freedom)


def _normal_above_chi(means: Array, slope: float, freedom: int) -> Array:
    """P(mean + Z >= slope * W) for ``slope`` > 0, by conditioning on Z. Shape [counts] -> [counts]."""
    nodes, weights = _legendre()
    low = np.clip(-means, -_REACH, _REACH)
    half = (_REACH - low) / 2
    normal = low[:, None] + half[:, None] * nodes
    chi = (means[:, None] + normal) / slope
    # As for the gamma: outside a band about the centre the chi distribution function is 0 or 1.
    below = (chi > math.sqrt(freedom)).astype(np.float64)
    band = (np.abs(chi - math.sqrt(freedom)) < _REACH) & (chi > 0)
    below[band] = gammainc(freedom / 2, chi[band] ** 2 / 2)
    density = np.exp(-(normal**2) / 2) / math.sqrt(2 * math.pi)
    return half * ((density * below) @ weights)


def _fisher_z_quantile(signal: Array, freedom: int, probability: float) -> float:
    """artanh of the NCC that is reached with ``probability`` at one ``signal``, [1]."""
    return _root(
        lambda value: probability - float(_cotangent_tail(signal, math.sinh(value), freedom)[0]),
        -_LARGEST_FISHER_Z,
        _LARGEST_FISHER_Z,
        tolerance=1e-7,
    )


def _noise_for_log_mse(unit: LinearProbe, log_eta: float, probability: float) -> float:
    """From the probe at sigma = 1: the MSE is proportional to sigma^2, so that its quantile there is the answer."""
    _check_target(probability)
    if probability >= unit.probability_included:
        return 0.0

    def excess(sigma: float) -> float:
        probe = LinearProbe(
            noise_multiplier=sigma,
            sample_rate=unit.sample_rate,
            steps=unit.steps,
            pixels=unit.pixels,
            norm=unit.norm,
        )
        return probe._probability_log_mse(log_eta) - probability

    return _step_to_promise(_exp((log_eta - unit._log_mse_quantile(probability)) / 2), excess)


def _step_to_promise(sigma: float, excess: Callable[[float], float]) -> float:
    """``sigma`` or the next one above it, in steps that double from 1e-13 on, that has no excess."""
    step = 1e-13
    while math.isfinite(sigma) and excess(sigma) > 0:
        sigma *= 1 + step
        step *= 2
    return sigma


def _root(rising: Callable[[float], float], low: float, high: float, tolerance: float = 1e-14) -> float:
    """Where ``rising`` crosses 0 between ``low`` and ``high``, or the end that it crosses 0 beyond."""
    if rising(low) >= 0:
        return low
    if rising(high) <= 0:
        return high
    return float(brentq(rising, low, high, xtol=tolerance))


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf


def _check_probability(probability: float) -> None:
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must lie in [0, 1], got {probability}")


def _check_target(probability: float) -> None:
    if not 0 < probability <= 1:
        raise ValueError(f"probability must lie in (0, 1], got {probability}")
