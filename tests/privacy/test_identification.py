"""The best detector's success against simulations of it, closed forms, and what must hold for any mechanism."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import norm

from hbdp_fed.privacy import best_identification, best_identification_interval, worst_case

Mechanism = tuple[float, int, float]
"""Sample rate, steps, noise multiplier."""

RELATIVE_WIDTH = 1.5e-3

SAMPLED: list[tuple[int, Mechanism]] = [
    (2, (0.25, 30, 2.0)),
    (4, (0.5, 20, 1.5)),
    (10, (0.05, 100, 0.6)),
    (25, (0.02, 50, 0.3)),
]
OTHERS: list[tuple[int, Mechanism]] = [
    (100, (0.05, 2000, 10.0)),
    (10_000, (0.068, 301, 0.7)),
    (100, (0.001, 2200, 0.15)),
    (10**9, (0.25, 30, 2.0)),
    (3, (1.0, 30, 4.0)),
    (1000, (1.0, 1, 0.3)),
]


def arguments(candidates: int, mechanism: Mechanism) -> dict[str, float]:
    q, steps, sigma = mechanism
    return {"candidates": candidates, "noise_multiplier": sigma, "sample_rate": q, "steps": steps}


def bound(candidates: int, mechanism: Mechanism) -> float:
    q, steps, sigma = mechanism
    return worst_case(prior=1 / candidates, noise_multiplier=sigma, sample_rate=q, steps=steps)


def score(rng: np.random.Generator, mechanism: Mechanism, *, trials: int, with_record: bool) -> np.ndarray:
    """The log-likelihood ratio of one candidate, from T steps' outputs along its direction."""
    q, steps, sigma = mechanism
    y = sigma * rng.standard_normal((trials, steps))
    if with_record:
        y += rng.random(y.shape) < q
    return np.log(1 - q + q * np.exp((y - 0.5) / sigma**2)).sum(axis=1)


def of_one_step(candidates: int, q: float, sigma: float) -> float:
    """One output's likelihood ratio grows with it: the largest output wins, and a record that was not drawn by luck."""
    drawn, _ = quad(lambda x: norm.pdf(x - 1 / sigma) * ndtr(x) ** (candidates - 1), -9, 1 / sigma + 9, limit=200)
    return q * drawn + (1 - q) / candidates


@pytest.mark.parametrize("candidates", [2, 7, 100])
@pytest.mark.parametrize(("steps", "sigma"), [(1, 0.5), (1, 2.0), (100, 6.0)])
def test_without_sampling_it_is_how_often_the_largest_of_normal_scores_is_the_right_one(
    candidates: int, steps: int, sigma: float
) -> None:
    rng = np.random.default_rng(candidates + steps)
    scores = rng.standard_normal((40_000, candidates))
    scores[:, 0] += math.sqrt(steps) / sigma
    rate = float((scores.argmax(axis=1) == 0).mean())
    value = best_identification(**arguments(candidates, (1.0, steps, sigma)))
    assert abs(value - rate) <= 4 * math.sqrt(value * (1 - value) / len(scores))


@pytest.mark.parametrize(("steps", "sigma"), [(1, 0.1), (1, 1.0), (1, 30.0), (300, 5.0), (2000, 1e4)])
def test_without_sampling_two_candidates_have_a_closed_form(steps: int, sigma: float) -> None:
    exact = float(ndtr(math.sqrt(steps) / (sigma * math.sqrt(2))))
    value = best_identification(**arguments(2, (1.0, steps, sigma)))
    assert value == pytest.approx(exact, rel=1e-9)
    assert best_identification_interval(**arguments(2, (1.0, steps, sigma))) == (value, value)


@pytest.mark.parametrize(("candidates", "q", "sigma"), [(2, 0.01, 0.5), (20, 0.3, 4.0), (1000, 0.3, 1.5)])
def test_one_sampled_step_has_a_closed_form_inside_the_interval(candidates: int, q: float, sigma: float) -> None:
    exact = of_one_step(candidates, q, sigma)
    lower, upper = best_identification_interval(**arguments(candidates, (q, 1, sigma)))
    assert lower <= exact * (1 + 1e-7)
    assert upper >= exact * (1 - 1e-7)
    assert best_identification(**arguments(candidates, (q, 1, sigma))) == pytest.approx(exact, rel=5e-4)


@pytest.mark.parametrize(("candidates", "mechanism"), SAMPLED)
def test_with_sampling_it_is_the_success_of_the_largest_likelihood_in_a_simulation(
    candidates: int, mechanism: Mechanism
) -> None:
    trials = 10_000
    rng = np.random.default_rng(candidates)
    right = score(rng, mechanism, trials=trials, with_record=True)
    others = [score(rng, mechanism, trials=trials, with_record=False) for _ in range(candidates - 1)]
    rate = float((right > np.max(others, axis=0)).mean())
    error = math.sqrt(rate * (1 - rate) / trials)
    lower, upper = best_identification_interval(**arguments(candidates, mechanism))
    assert lower - 4 * error <= rate <= upper + 4 * error
    # The simulation can tell it from the bound, and from chance.
    assert 1 / candidates + 4 * error < rate < bound(candidates, mechanism) - 4 * error


@pytest.mark.parametrize(("candidates", "mechanism"), SAMPLED + OTHERS)
def test_it_lies_between_chance_and_the_worst_case_and_inside_a_narrow_interval(
    candidates: int, mechanism: Mechanism
) -> None:
    lower, upper = best_identification_interval(**arguments(candidates, mechanism))
    value = best_identification(**arguments(candidates, mechanism))
    assert 1 / candidates <= lower <= value <= upper <= bound(candidates, mechanism)
    assert upper - lower <= RELATIVE_WIDTH * upper


@pytest.mark.parametrize("steps", [1, 50])
def test_two_opposite_candidates_are_as_if_orthogonal_with_less_noise_and_attain_the_worst_case(steps: int) -> None:
    opposite = best_identification(**arguments(2, (1.0, steps, 3.0 * math.sqrt(1 - 1 / 2))))
    assert opposite == pytest.approx(bound(2, (1.0, steps, 3.0)), rel=1e-9)


@pytest.mark.parametrize("candidates", [2, 100])
@pytest.mark.parametrize(("sample_rate", "steps"), [(0.001, 2200), (0.05, 30), (1.0, 500)])
def test_much_noise_leaves_chance_and_no_noise_all_but_a_record_never_drawn(
    candidates: int, sample_rate: float, steps: int
) -> None:
    assert best_identification(**arguments(candidates, (sample_rate, steps, 1e8))) == pytest.approx(
        1 / candidates, rel=1e-3
    )
    never = (1 - sample_rate) ** steps
    for sigma in (0.0, 1e-3):
        found = best_identification(**arguments(candidates, (sample_rate, steps, sigma)))
        assert found == pytest.approx(1 - never + never / candidates, abs=1e-5)


@pytest.mark.parametrize(("candidates", "sample_rate", "steps"), [(2, 0.25, 30), (100, 0.05, 300), (20, 1.0, 30)])
def test_success_falls_with_noise(candidates: int, sample_rate: float, steps: int) -> None:
    found = [
        best_identification(**arguments(candidates, (sample_rate, steps, sigma))) for sigma in (0.01, 0.6, 0.61, 1e3)
    ]
    assert all(later <= earlier * (1 + 5e-4) for earlier, later in itertools.pairwise(found))
    assert found[0] > 1.5 * found[-1]


@pytest.mark.parametrize("identification", [best_identification, best_identification_interval])
@pytest.mark.parametrize(
    ("argument", "value"),
    [("candidates", 1), ("candidates", 2.5), ("candidates", math.inf), ("candidates", math.nan),
     ("noise_multiplier", -1.0), ("noise_multiplier", math.nan), ("sample_rate", 0.0), ("sample_rate", 1.1),
     ("steps", 0), ("steps", 1.5)],
)  # fmt: skip
def test_an_argument_out_of_range_is_named(identification: Callable[..., object], argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=argument):
        identification(**arguments(10, (0.1, 10, 1.0)) | {argument: value})
