"""Bounds on reconstruction against simulations of the two worlds, closed forms, and what must hold for any of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from hbdp_fed.privacy import calibrate, reconstruction
from hbdp_fed.privacy.discretised import power_bounds, tail_bound
from hbdp_fed.privacy.history import Segment
from hbdp_fed.privacy.reconstruction import (
    relaxed_coherent,
    relaxed_coherent_interval,
    relaxed_paper,
    worst_case,
    worst_case_interval,
)
from hbdp_fed.privacy.steps import Pair

Array = npt.NDArray[np.float64]
Mechanism = tuple[float, int, float]
"""Sample rate, steps, noise multiplier."""
Worlds = tuple[Array, Array]
"""A statistic without the record and with it, one value a trial."""

RISKS = (worst_case, relaxed_paper, relaxed_coherent)
LARGEST_ERROR = 5e-4

UNSAMPLED: list[Mechanism] = [(1, 1, 0.5), (1, 10, 3), (1, 100, 3), (1, 300, 5)]
STRONG: list[Mechanism] = [(0.05, 2000, 1), (0.068, 301, 0.7), (0.25, 30, 0.7), (0.05, 2000, 0.7)]
WEAK: list[Mechanism] = [(0.5, 20, 1.5), (0.25, 30, 2), (0.068, 301, 1), (0.001, 2200, 0.3), (0.001, 2200, 0.15)]
SETTINGS = [
    (mechanism, prior)
    for mechanism in UNSAMPLED + STRONG + WEAK
    for prior in (0.01, 0.1)
    # Here the risk is too close to 1 to tell a wrong bound from a right one.
    if (mechanism, prior) != (STRONG[-1], 0.1)
]


class Simulation:
    """Privacy losses of the three adversaries, from the steps' outputs themselves.

    Attributes:
        towards: The loss of the adversary who knows the record's direction.
        away: The loss of one who takes the opposite direction for the record's.
        coherent: The loss of one who knows that the direction is the same in all steps, but not which.
        folded: The loss of one who forgets the direction at every step.
    """

    def __init__(self, mechanism: Mechanism, *, trials: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        worlds = [_losses(rng, mechanism, trials=trials, with_record=with_record) for with_record in (False, True)]
        self.towards, self.away, self.folded = ((worlds[0][i], worlds[1][i]) for i in range(3))
        self.coherent = tuple(np.logaddexp(*pair) - math.log(2) for pair in zip(self.towards, self.away, strict=True))


def _losses(rng: np.random.Generator, mechanism: Mechanism, *, trials: int, with_record: bool) -> Array:
    """Of shape (3, trials): towards, away, folded."""
    q, steps, sigma = mechanism
    found = []
    rows = max(1, 200_000 // steps)
    for start in range(0, trials, rows):
        shape = (min(rows, trials - start), steps)
        y = sigma * rng.standard_normal(shape)
        if with_record:
            y += 1.0 if q == 1 else rng.random(shape) < q
        towards = np.exp((y - 0.5) / sigma**2)
        away = math.exp(-1 / sigma**2) / towards
        factors = (1 - q + q * towards, 1 - q + q * away, 1 - q + q / 2 * (towards + away))
        found.append(np.stack([_sum_of_logs(each) for each in factors]))
    return np.concatenate(found, axis=1)


def _sum_of_logs(factors: Array) -> Array:
    """Over the steps; a logarithm for eight factors at a time is quicker, and eight do not overflow."""
    products = np.multiply.reduceat(factors, np.arange(0, factors.shape[1], 8), axis=1)
    return np.asarray(np.log(products).sum(axis=1))


@lru_cache(maxsize=32)
def simulated(mechanism: Mechanism) -> Simulation:
    steps = mechanism[1]
    trials = 100_000 if steps <= 30 else 20_000 if steps <= 301 else 10_000
    return Simulation(mechanism, trials=trials, seed=1000 + steps)


def simulated_power(worlds: Worlds, level: float) -> tuple[float, float]:
    """The power at a level and its standard error, from both the power's trials and the threshold's."""
    null, alternative = worlds

    def power(level: float) -> float:
        return float((alternative > np.quantile(null, 1 - level)).mean())

    value = power(level)
    slope = (power(1.2 * level) - power(0.8 * level)) / (0.4 * level)
    variance = value * (1 - value) / len(alternative) + slope**2 * level * (1 - level) / len(null)
    return value, math.sqrt(variance)


def arguments(mechanism: Mechanism, prior: float) -> dict[str, float]:
    q, steps, sigma = mechanism
    return {"prior": prior, "noise_multiplier": sigma, "sample_rate": q, "steps": steps}


def power_of_sum(mechanism: Mechanism, prior: float) -> float:
    """Of the test that rejects for a large |sum|, from the binomial number of participations."""
    q, steps, sigma = mechanism
    threshold = -ndtri(prior / 2)
    power = 0.0
    for k in range(steps + 1):
        log_weight = math.lgamma(steps + 1) - math.lgamma(k + 1) - math.lgamma(steps - k + 1)
        log_weight += k * math.log(q) + (steps - k) * math.log1p(-q)
        shift = k / (sigma * math.sqrt(steps))
        power += math.exp(log_weight) * float(ndtr(shift - threshold) + ndtr(-shift - threshold))
    return power


def two_sided_power(sigma: float, q: float, prior: float) -> float:
    """Of the test that rejects for a large |y| after one step."""
    threshold = -ndtri(prior / 2)
    return float((1 - q) * prior + q * (ndtr(1 / sigma - threshold) + ndtr(-1 / sigma - threshold)))


@pytest.mark.parametrize(("mechanism", "prior"), SETTINGS)
def test_worst_case_is_the_power_of_the_best_test_in_a_simulation(mechanism: Mechanism, prior: float) -> None:
    bound = worst_case(**arguments(mechanism, prior))
    power, error = simulated_power(simulated(mechanism).towards, prior)
    assert prior < bound < 0.99
    assert abs(bound - power) <= 3 * error


@pytest.mark.parametrize(("mechanism", "prior"), SETTINGS)
def test_relaxed_paper_is_the_power_of_the_best_test_that_forgets_signs(mechanism: Mechanism, prior: float) -> None:
    formula = relaxed_paper(**arguments(mechanism, prior))
    power, error = simulated_power(simulated(mechanism).folded, prior)
    assert prior < formula < 0.99
    assert abs(formula - power) <= 3 * error


@pytest.mark.parametrize(
    ("mechanism", "prior"),
    [(mechanism, prior) for mechanism in UNSAMPLED for prior in (0.01, 0.1)]
    + [(mechanism, 0.01) for mechanism in STRONG],
)
def test_relaxed_coherent_is_the_best_tests_power_without_sampling_and_where_steps_stand_out(
    mechanism: Mechanism, prior: float
) -> None:
    bound = relaxed_coherent(**arguments(mechanism, prior))
    power, error = simulated_power(simulated(mechanism).coherent, prior)
    assert prior < bound < 0.99
    assert abs(bound - power) <= 3 * error


@pytest.mark.parametrize(("mechanism", "prior"), SETTINGS)
def test_relaxed_coherent_encloses_the_best_tests_power_and_never_exceeds_the_worst_case(
    mechanism: Mechanism, prior: float
) -> None:
    lower, upper = relaxed_coherent_interval(**arguments(mechanism, prior))
    power, error = simulated_power(simulated(mechanism).coherent, prior)
    assert lower - 3 * error <= power <= upper + 3 * error
    assert prior <= lower <= upper <= worst_case(**arguments(mechanism, prior))


def test_the_sum_alone_is_no_bound_for_a_record_that_is_rarely_drawn() -> None:
    mechanism, prior = (0.001, 2200, 0.15), 0.01
    power, error = simulated_power(simulated(mechanism).coherent, prior)
    assert power > power_of_sum(mechanism, prior) + 0.5
    assert relaxed_coherent(**arguments(mechanism, prior)) >= power - 3 * error


def test_keeping_the_direction_over_all_steps_beats_the_formula_that_forgets_it() -> None:
    mechanism = arguments((1.0, 100, 3.0), 0.01)
    assert relaxed_paper(**mechanism) == pytest.approx(0.064, abs=5e-4)
    assert relaxed_coherent(**mechanism) == pytest.approx(0.776, abs=5e-4)
    assert worst_case(**mechanism) == pytest.approx(0.843, abs=5e-4)


@pytest.mark.parametrize("eps", [10.0**exponent for exponent in range(6, 16)])
@pytest.mark.parametrize("sample_rate", [1e-3, 0.05, 1.0])
@pytest.mark.parametrize("risk", RISKS)
def test_every_high_budget_has_a_probability_within_half_a_second(
    risk: Callable[..., float], sample_rate: float, eps: float
) -> None:
    sigma = calibrate(eps=eps, delta=1e-5, sample_rate=0.05, steps=2000)
    reconstruction._power.cache_clear()
    relaxed_coherent_interval.cache_clear()
    started = time.process_time()
    found = risk(prior=0.01, noise_multiplier=sigma, sample_rate=sample_rate, steps=2000)
    seconds = time.process_time() - started
    assert 0.01 <= found <= 1
    assert seconds < 0.5


@pytest.mark.parametrize("noise_multiplier", [1e-9, 1e-8, 1e-5, 0.0])
@pytest.mark.parametrize(("sample_rate", "steps"), [(0.001, 2200), (0.05, 30), (0.25, 1), (1.0, 1), (1.0, 500)])
@pytest.mark.parametrize("prior", [0.01, 0.5])
@pytest.mark.parametrize("risk", RISKS)
def test_without_noise_only_a_record_that_was_never_drawn_is_hidden(
    risk: Callable[..., float], prior: float, sample_rate: float, steps: int, noise_multiplier: float
) -> None:
    found = risk(prior=prior, noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps)
    assert found == pytest.approx(1 - (1 - sample_rate) ** steps * (1 - prior), abs=1e-6)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("noise_multiplier", [10.0, 1e3, 1e4, 1e6])
@pytest.mark.parametrize(("sample_rate", "steps"), [(0.001, 2200), (0.05, 30), (0.25, 1), (1.0, 1), (1.0, 500)])
@pytest.mark.parametrize("prior", [0.01, 0.5])
@pytest.mark.parametrize("risk", RISKS)
def test_much_noise_leaves_little_more_than_the_prior(
    risk: Callable[..., float], prior: float, sample_rate: float, steps: int, noise_multiplier: float
) -> None:
    found = risk(prior=prior, noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps)
    # Cauchy and Schwarz: the power exceeds the level by at most sqrt(level (1 - level) chi^2(P || Q)).
    of_one_gaussian = math.expm1(1 / noise_multiplier**2)
    if risk is relaxed_paper:
        of_one_gaussian = 2 * math.sinh(1 / (2 * noise_multiplier**2)) ** 2
    divergence = math.expm1(steps * math.log1p(sample_rate**2 * of_one_gaussian))
    assert prior <= found <= (prior + math.sqrt(prior * (1 - prior) * divergence)) * (1 + LARGEST_ERROR)
    if noise_multiplier == 1e6:
        assert found == pytest.approx(prior, rel=1e-3)


MECHANISMS = {
    "log_sigma": st.floats(min_value=-3, max_value=3),
    "log_q": st.floats(min_value=-6, max_value=0),
    "steps": st.integers(min_value=1, max_value=3000),
    "prior": st.floats(min_value=1e-3, max_value=0.9),
    "factor": st.floats(min_value=1.001, max_value=3),
}


@pytest.mark.parametrize("risk", RISKS)
@settings(max_examples=12)
@given(**MECHANISMS)
@example(
    log_sigma=math.log(7.18983175710013),
    log_q=math.log(0.1357354396802068),
    steps=1285,
    prior=7.75554728071026e-4,
    factor=7.214849993304836 / 7.18983175710013,
)
def test_risk_falls_with_noise_and_grows_with_steps_and_prior(
    risk: Callable[..., float], log_sigma: float, log_q: float, steps: int, prior: float, factor: float
) -> None:
    base = arguments((math.exp(log_q), steps, math.exp(log_sigma)), prior)
    # The bound for an unknown direction is looser in some places than in others: only the truth is monotone.
    lowest = (lambda **some: relaxed_coherent_interval(**some)[0]) if risk is relaxed_coherent else risk
    here = risk(**base)
    assert lowest(**base | {"noise_multiplier": base["noise_multiplier"] * factor}) <= here * (1 + LARGEST_ERROR)
    least = lowest(**base)
    assert risk(**base | {"steps": math.ceil(steps * factor)}) >= least * (1 - LARGEST_ERROR)
    assert risk(**base | {"prior": min(0.95, prior * factor)}) >= least * (1 - LARGEST_ERROR)


@pytest.mark.parametrize("risk", RISKS)
@settings(max_examples=12)
@given(**MECHANISMS)
@example(log_sigma=math.log(7), log_q=math.log(0.82), steps=2, prior=0.073, factor=2.0)
@example(
    log_sigma=math.log(7.214849993304836),
    log_q=math.log(0.1357354396802068),
    steps=1285,
    prior=7.75554728071026e-4,
    factor=0.1362077541106405 / 0.1357354396802068,
)
def test_risk_grows_with_the_sample_rate(
    risk: Callable[..., float], log_sigma: float, log_q: float, steps: int, prior: float, factor: float
) -> None:
    base = arguments((math.exp(log_q), steps, math.exp(log_sigma)), prior)
    more = min(1.0, base["sample_rate"] * factor)
    # The bound for an unknown direction is looser at some sample rates than at others: only the truth is monotone.
    here = relaxed_coherent_interval(**base)[0] if risk is relaxed_coherent else risk(**base)
    assert risk(**base | {"sample_rate": more}) >= here * (1 - LARGEST_ERROR)


@settings(max_examples=15)
@given(**{name: strategy for name, strategy in MECHANISMS.items() if name != "factor"})
def test_who_knows_less_succeeds_less(log_sigma: float, log_q: float, steps: int, prior: float) -> None:
    known = arguments((math.exp(log_q), steps, math.exp(log_sigma)), prior)
    assert relaxed_paper(**known) <= worst_case(**known) * (1 + LARGEST_ERROR)
    assert relaxed_coherent(**known) <= worst_case(**known)
    lower, upper = worst_case_interval(**known)
    assert prior <= lower <= upper <= lower * (1 + 2 * LARGEST_ERROR)


@pytest.mark.parametrize("prior", [0.001, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_one_step_makes_the_relaxed_adversaries_equal(sigma: float, prior: float) -> None:
    whole = arguments((1.0, 1, sigma), prior)
    assert relaxed_paper(**whole) == pytest.approx(relaxed_coherent(**whole), rel=LARGEST_ERROR)
    assert relaxed_coherent(**whole) == pytest.approx(two_sided_power(sigma, 1.0, prior), rel=1e-12)
    sampled = arguments((0.2, 1, sigma), prior)
    exact = two_sided_power(sigma, 0.2, prior)
    assert relaxed_paper(**sampled) == pytest.approx(exact, rel=LARGEST_ERROR)
    lower, upper = relaxed_coherent_interval(**sampled)
    assert lower <= exact * (1 + 1e-9)
    assert upper >= exact * (1 - 1e-9)


@pytest.mark.parametrize("risk", [*RISKS, worst_case_interval, relaxed_coherent_interval])
@pytest.mark.parametrize(
    ("argument", "value"),
    [("prior", 0.0), ("prior", 1.0), ("prior", math.nan), ("noise_multiplier", -1.0), ("noise_multiplier", math.inf),
     ("noise_multiplier", math.nan), ("sample_rate", 0.0), ("sample_rate", 1.1), ("steps", 0), ("steps", 1.5)],
)  # fmt: skip
def test_an_argument_out_of_range_is_named(risk: Callable[..., object], argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=argument):
        risk(**arguments((0.1, 10, 1.0), 0.01) | {argument: value})


@pytest.mark.parametrize("level", [0.001, 0.01, 0.1, 0.5])
@pytest.mark.parametrize(("sigma", "steps"), [(0.3, 1), (1.0, 1), (2.0, 10), (5.0, 300), (30.0, 2000)])
def test_the_powers_bounds_enclose_the_normal_test_without_sampling(sigma: float, steps: int, level: float) -> None:
    found = power_bounds((Segment(sigma, 1.0, steps),), Pair.REMOVE, level=level, tolerance=1e-4)
    exact = float(ndtr(math.sqrt(steps) / sigma + ndtri(level)))
    assert found.lower <= exact <= found.upper
    assert found.upper - found.lower <= 1e-4 * found.upper


@pytest.mark.parametrize("level", [0.001, 0.1])
def test_the_powers_bounds_enclose_the_normal_test_of_segments_that_differ(level: float) -> None:
    history = (Segment(4.0, 1.0, 20), Segment(2.0, 1.0, 5), Segment(1.5, 1.0, 1))
    found = power_bounds(history, Pair.REMOVE, level=level, tolerance=1e-4)
    mu = math.sqrt(sum(segment.steps / segment.noise_multiplier**2 for segment in history))
    assert found.lower <= ndtr(mu + ndtri(level)) <= found.upper
    assert found.upper - found.lower <= 1e-4 * found.upper


@pytest.mark.parametrize("level", [0.001, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("q", [0.01, 0.3, 1.0])
def test_the_powers_bounds_enclose_the_closed_forms_of_one_step(q: float, sigma: float, level: float) -> None:
    history = (Segment(sigma, q, 1),)
    known = power_bounds(history, Pair.REMOVE, level=level, tolerance=1e-4)
    folded = power_bounds(history, Pair.FOLDED, level=level, tolerance=1e-4)
    assert known.lower <= (1 - q) * level + q * ndtr(1 / sigma + ndtri(level)) <= known.upper
    assert folded.lower <= two_sided_power(sigma, q, level) <= folded.upper
    assert max(known.upper - known.lower, folded.upper - folded.lower) <= 1e-4


@pytest.mark.parametrize("mechanism", [(0.25, 30, 0.7), (0.068, 301, 1.0), (1.0, 10, 3.0)])
@pytest.mark.parametrize(("pair", "name"), [(Pair.MIRRORED, "away"), (Pair.REMOVE, "towards"), (Pair.FOLDED, "folded")])
def test_the_tails_bound_lies_on_or_just_above_a_simulated_tail(mechanism: Mechanism, pair: Pair, name: str) -> None:
    q, steps, sigma = mechanism
    losses = getattr(simulated(mechanism), name)[1]
    for share in (0.1, 0.5, 0.9, 0.99):
        loss = float(np.quantile(losses, share))
        error = math.sqrt(share * (1 - share) / len(losses))
        bound = tail_bound((Segment(sigma, q, steps),), pair, loss=loss)
        assert 1 - share - 3 * error <= bound <= (1 - share) * 1.02 + 3 * error
