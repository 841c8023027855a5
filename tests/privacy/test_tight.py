"""The tight accountant's bounds against references that share no code with it.

For steps without sampling the analytic Gaussian mechanism at sixty digits, for the rest another library's privacy loss
distributions, which bound the truth from both sides themselves, and simulated privacy losses.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from hbdp_fed.privacy import (
    Segment,
    delta_for,
    epsilon,
    epsilon_interval,
    history_delta,
    history_epsilon,
    history_epsilon_interval,
)
from hbdp_fed.privacy.discretised import delta_bounds, epsilon_bounds
from hbdp_fed.privacy.gaussian import gaussian_epsilon, sampled_epsilon
from hbdp_fed.privacy.history import History, merged
from hbdp_fed.privacy.steps import Pair
from hbdp_fed.privacy.tight import delta_interval

TOLERANCE = 3e-4
ROUNDING = 1e-9


def analytic_epsilon(history: Sequence[Segment], delta: float) -> float:
    """Of steps that take every record: together one Gaussian mechanism (Balle and Wang 2018, theorem 8)."""
    with mpmath.workdps(60):
        mu = mpmath.sqrt(sum(part.steps / mpmath.mpf(part.noise_multiplier) ** 2 for part in history))
        low, high = mpmath.mpf(0), mu**2 / 2 + 60 * mu
        for _ in range(120):
            middle = (low + high) / 2
            found = mpmath.ncdf(mu / 2 - middle / mu) - mpmath.exp(middle) * mpmath.ncdf(-mu / 2 - middle / mu)
            low, high = (middle, high) if found > delta else (low, middle)
        return float(low)


@pytest.mark.parametrize(
    "history",
    [
        [Segment(sigma, 1.0, steps)]
        for sigma, steps in [(200.0, 2200), (10.0, 30), (1.0, 1), (0.1, 53000), (1e-3, 30), (2.3e-8, 1), (1e-5, 53000)]
    ]
    + [
        [Segment(1.0, 1.0, 3), Segment(4.0, 1.0, 100)],
        [Segment(0.01, 1.0, 5), Segment(30.0, 1.0, 1), Segment(1e-4, 1.0, 7), Segment(0.01, 1.0, 2)],
    ],
    ids=str,
)
@pytest.mark.parametrize("delta", [1e-5, 8e-7])
def test_without_sampling_the_bounds_are_the_analytic_gaussian_mechanism(history: list[Segment], delta: float) -> None:
    expected = analytic_epsilon(history, delta)
    lower, upper = history_epsilon_interval(history, delta=delta)
    assert lower <= expected * (1 + ROUNDING)
    assert upper >= expected * (1 - ROUNDING)
    assert upper == pytest.approx(expected, rel=1e-9)
    if len(history) == 1:
        (part,) = history
        same = {"noise_multiplier": part.noise_multiplier, "sample_rate": 1.0, "steps": part.steps, "delta": delta}
        assert epsilon_interval(**same) == (lower, upper)
        assert epsilon(accountant="tight", **same) == upper


# Another accountant's bounds


def reference_bounds(history: Sequence[Segment], *, delta: float, interval: float) -> tuple[tuple[float, float], ...]:
    """Bounds of epsilon at delta, and of delta at half of that epsilon, by dp-accounting."""
    # It says in many warnings that its optimistic estimates use another algorithm.
    logging.getLogger("absl").setLevel(logging.ERROR)
    composed = []
    for pessimistic in (False, True):
        whole = None
        for part in history:
            own = privacy_loss_distribution.from_gaussian_mechanism(
                part.noise_multiplier,
                sampling_prob=part.sample_rate,
                value_discretization_interval=interval,
                pessimistic_estimate=pessimistic,
            ).self_compose(part.steps)
            whole = own if whole is None else whole.compose(own)
        composed.append(whole)
    epsilons = tuple(float(one.get_epsilon_for_delta(delta)) for one in composed)
    half = epsilons[1] / 2
    return epsilons, tuple(float(one.get_delta_for_epsilon(half)) for one in composed), (half, half)


COARSE = [
    ([Segment(1.0, 0.01, 1000)], 1e-5, 1e-3),
    ([Segment(2.0, 0.05, 2200)], 1e-5, 1e-3),
    ([Segment(0.7, 1e-3, 2200)], 8e-7, 1e-3),
    ([Segment(0.5, 0.05, 300)], 1e-5, 1e-2),
    ([Segment(0.2, 0.05, 100)], 1e-5, 1e-2),
    ([Segment(0.1, 0.05, 100)], 8e-7, 1e-1),
    ([Segment(1.0, 0.02, 200), Segment(0.6, 0.1, 40)], 1e-5, 1e-3),
    ([Segment(3.0, 1.0, 4), Segment(1.0, 0.1, 100)], 1e-5, 1e-3),
]
FINE = [
    ([Segment(10.0, 0.1, 1)], 1e-5, 1e-5),
    ([Segment(5.0, 0.5, 2)], 1e-5, 1e-4),
    ([Segment(2.0, 0.9, 2)], 1e-3, 1e-4),
    ([Segment(0.7, 0.25, 30)], 1e-5, 1e-3),
    ([Segment(1.0, 0.5, 50)], 1e-5, 1e-3),
    ([Segment(1.0, 0.5, 10), Segment(0.7, 0.3, 10)], 1e-5, 5e-4),
]


@pytest.mark.parametrize(("history", "delta", "interval"), COARSE + FINE, ids=str)
def test_the_bounds_never_contradict_another_accountants(history: list[Segment], delta: float, interval: float) -> None:
    epsilons, deltas, (half, _) = reference_bounds(history, delta=delta, interval=interval)
    lower, upper = history_epsilon_interval(history, delta=delta)
    assert lower <= epsilons[1]
    assert upper >= epsilons[0]
    lower_delta, upper_delta = delta_interval(merged(history), epsilon=half)
    assert lower_delta <= deltas[1] + 1e-13
    assert upper_delta >= deltas[0] - 1e-13
    assert history_delta(history, epsilon=half, accountant="tight") == upper_delta


@pytest.mark.parametrize(("history", "delta", "interval"), FINE, ids=str)
def test_the_bounds_are_within_a_percent_of_another_accountant_where_that_one_is_sure(
    history: list[Segment], delta: float, interval: float
) -> None:
    (optimistic, pessimistic), *_ = reference_bounds(history, delta=delta, interval=interval)
    assert pessimistic <= optimistic * (1 + 1e-3)
    for bound in history_epsilon_interval(history, delta=delta):
        assert bound == pytest.approx(pessimistic, rel=0.01)


# Simulated privacy losses


def simulated_losses(
    history: Sequence[Segment], pair: Pair, *, seed: int, size: int = 60_000
) -> npt.NDArray[np.float64]:
    """Total privacy losses of records, step by step."""
    generator = np.random.default_rng(seed)
    total = np.zeros(size)
    for part in history:
        sigma, q = part.noise_multiplier, part.sample_rate
        for _ in range(part.steps):
            output = sigma * generator.standard_normal(size)
            if pair is Pair.REMOVE:
                output += generator.random(size) < q
            signal = math.log(q) + (output - 0.5) / sigma**2
            loss = signal if q == 1 else np.logaddexp(math.log1p(-q), signal)
            total += loss if pair is Pair.REMOVE else -loss
    return total


def estimated_delta(losses: npt.NDArray[np.float64], epsilon: float) -> tuple[float, float]:
    """The mean of (1 - e^(epsilon - L))+ and its standard error."""
    values = -np.expm1(np.minimum(epsilon - losses, 0.0))
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


SIMULATED = [
    [Segment(0.02, 0.1, 20)],
    [Segment(0.1, 0.05, 30)],
    [Segment(0.2, 0.25, 10)],
    [Segment(0.3, 0.05, 40)],
    [Segment(0.5, 0.25, 30)],
    [Segment(1.0, 0.5, 20)],
    [Segment(1.0, 0.9, 2)],
    [Segment(0.5, 0.1, 10), Segment(1.0, 0.3, 10)],
    [Segment(0.05, 0.1, 4), Segment(0.5, 0.1, 20), Segment(2.0, 1.0, 3)],
]


@pytest.mark.parametrize(("pair", "target"), [(Pair.REMOVE, 0.02), (Pair.ADD, 0.2)])
@pytest.mark.parametrize("history", SIMULATED, ids=str)
def test_delta_is_what_simulated_losses_show(history: list[Segment], pair: Pair, target: float) -> None:
    # The epsilon is chosen on one sample and judged on others, where it is a given number.
    pilot = simulated_losses(history, pair, seed=1, size=20_000)
    at = max(0.0, float(brentq(lambda x: estimated_delta(pilot, x)[0] - target, -1.0, float(pilot.max()))))
    mean, error = estimated_delta(simulated_losses(history, pair, seed=2), at)
    lower, upper = delta_bounds(merged(history), pair, epsilon=at, tolerance=TOLERANCE)
    assert lower <= mean + 4 * error
    assert upper >= mean - 4 * error
    assert upper - lower <= 0.01 * upper
    # The worse direction counts.
    other = Pair.ADD if pair is Pair.REMOVE else Pair.REMOVE
    mean_of_other, error_of_other = estimated_delta(simulated_losses(history, other, seed=3), at)
    found = history_delta(history, epsilon=at, accountant="tight")
    assert found >= max(mean - 4 * error, mean_of_other - 4 * error_of_other)
    assert found <= max(mean + 4 * error, mean_of_other + 4 * error_of_other) * 1.01
    if len(history) == 1:
        (part,) = history
        assert found == delta_for(
            epsilon=at,
            noise_multiplier=part.noise_multiplier,
            sample_rate=part.sample_rate,
            steps=part.steps,
            accountant="tight",
        )


# Figures that are known


def test_the_figures_of_a_hospital_with_1400_records() -> None:
    mechanism = {"sample_rate": 64 / 1400, "steps": 2200, "delta": 8e-7, "accountant": "tight"}
    assert epsilon(noise_multiplier=0.1, **mechanism) == pytest.approx(7044.3, rel=0.01)
    assert epsilon(noise_multiplier=3.4794e-5, **mechanism) <= 6.25e10


# Limits in which the general machinery must find the closed forms


@pytest.mark.parametrize("sigma", [0.02, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("q", [0.01, 0.3, 0.95])
@pytest.mark.parametrize("delta", [1e-3, 8e-7])
def test_the_grids_enclose_one_sampled_step(sigma: float, q: float, delta: float) -> None:
    expected = sampled_epsilon(delta, noise_multiplier=sigma, sample_rate=q)
    both = [
        epsilon_bounds((Segment(sigma, q, 1),), pair, delta=delta, tolerance=TOLERANCE)
        for pair in (Pair.REMOVE, Pair.ADD)
    ]
    assert max(lower for lower, _ in both) <= expected * (1 + ROUNDING)
    assert max(upper for _, upper in both) >= expected * (1 - ROUNDING)
    assert max(upper for _, upper in both) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("pair", [Pair.REMOVE, Pair.ADD])
@pytest.mark.parametrize(
    "history", [(Segment(1.0, 1.0, 1),), (Segment(0.05, 1.0, 40),), (Segment(9.0, 1.0, 3), Segment(2.0, 1.0, 30))]
)
def test_the_grids_enclose_the_gaussian_mechanism(history: History, pair: Pair) -> None:
    mu = math.sqrt(sum(part.steps / part.noise_multiplier**2 for part in history))
    for delta in (1e-2, 1e-5, 8e-7):
        expected = gaussian_epsilon(delta, mu)
        lower, upper = epsilon_bounds(history, pair, delta=delta, tolerance=TOLERANCE)
        assert lower <= expected * (1 + ROUNDING)
        assert upper >= expected * (1 - ROUNDING)
        assert upper - lower <= 0.005 * upper


@pytest.mark.parametrize("sigma", [1e-4, 0.02, 0.5, 2.0, 20.0])
@pytest.mark.parametrize("steps", [1, 30])
def test_nearly_every_record_is_nearly_the_same_as_every_record(sigma: float, steps: int) -> None:
    lower, upper = epsilon_interval(noise_multiplier=sigma, sample_rate=1 - 1e-9, steps=steps, delta=1e-5)
    expected, _ = epsilon_interval(noise_multiplier=sigma, sample_rate=1.0, steps=steps, delta=1e-5)
    assert lower <= expected * (1 + 1e-6)
    assert upper >= expected * (1 - 1e-6)
    assert upper == pytest.approx(expected, rel=1e-3)


# Properties

sigmas = st.floats(math.log(0.05), math.log(20.0)).map(math.exp)
rates = st.one_of(st.floats(math.log(0.01), 0.0).map(math.exp), st.just(1.0))
deltas = st.floats(math.log(1e-8), math.log(1e-2)).map(math.exp)
parts = st.builds(Segment, sigmas, rates, st.integers(1, 200))


@settings(max_examples=30)
@given(data=st.data(), part=parts, delta=deltas)
def test_an_easier_epsilon_is_never_provably_larger(data: st.DataObject, part: Segment, delta: float) -> None:
    change = data.draw(st.sampled_from(["noise_multiplier", "sample_rate", "steps", "delta"]))
    factor = data.draw(st.floats(1.0, 2.0))
    easier = {"noise_multiplier": part.noise_multiplier, "sample_rate": part.sample_rate, "steps": part.steps}
    easier["delta"] = delta
    harder = dict(easier)
    if change == "noise_multiplier":
        harder[change] /= factor
    elif change == "sample_rate":
        harder[change] = min(1.0, harder[change] * factor)
    elif change == "steps":
        harder[change] += data.draw(st.integers(1, 50))
    else:
        harder[change] /= factor
    (lower, upper), (_, harder_upper) = epsilon_interval(**easier), epsilon_interval(**harder)
    assert lower <= upper
    assert lower <= harder_upper * (1 + ROUNDING)
    assert upper <= harder_upper * (1 + ROUNDING) + (upper - lower)


@settings(max_examples=25)
@given(data=st.data(), part=parts, at=st.floats(0.0, 30.0))
def test_an_easier_delta_is_never_provably_larger(data: st.DataObject, part: Segment, at: float) -> None:
    factor = data.draw(st.floats(1.0, 2.0))
    sigma, q, steps = part.noise_multiplier, part.sample_rate, part.steps
    harder, harder_at = data.draw(
        st.sampled_from(
            [
                (Segment(sigma / factor, q, steps), at),
                (Segment(sigma, min(1.0, q * factor), steps), at),
                (Segment(sigma, q, steps + 7), at),
                (part, at / factor),
            ]
        )
    )
    lower, upper = delta_interval((part,), epsilon=at)
    _, harder_upper = delta_interval((harder,), epsilon=harder_at)
    assert 0 <= lower <= upper <= 1
    assert lower <= harder_upper * (1 + ROUNDING) + 1e-15


@settings(max_examples=10)
@given(parts=st.lists(parts, min_size=1, max_size=2), more=parts, delta=deltas)
def test_another_segment_never_lowers_epsilon_or_delta(parts: list[Segment], more: Segment, delta: float) -> None:
    lower, upper = history_epsilon_interval(parts, delta=delta)
    _, with_more = history_epsilon_interval([*parts, more], delta=delta)
    assert lower <= with_more * (1 + ROUNDING)
    at = upper / 2
    assert (
        delta_interval(merged(parts), epsilon=at)[0]
        <= delta_interval(merged([*parts, more]), epsilon=at)[1] * (1 + ROUNDING) + 1e-15
    )


@settings(max_examples=25)
@given(part=parts, delta=deltas)
def test_the_tight_epsilon_is_never_above_the_one_by_renyi_divergence(part: Segment, delta: float) -> None:
    tight = history_epsilon([part], delta=delta, accountant="tight")
    assert tight <= history_epsilon([part], delta=delta, accountant="rdp") * (1 + 1e-6)


@settings(max_examples=12)
@given(parts=st.lists(parts, min_size=1, max_size=2), delta=deltas)
def test_epsilon_and_delta_are_inverse_to_each_other(parts: list[Segment], delta: float) -> None:
    lower, upper = history_epsilon_interval(parts, delta=delta)
    assert delta_interval(merged(parts), epsilon=upper)[0] <= delta * (1 + 1e-6)
    if lower > 0:
        assert delta_interval(merged(parts), epsilon=lower)[1] >= delta * (1 - 1e-6)
