"""Whoever is known to several hospitals: closed forms, Opacus' accountant, and the worst combination of all."""

from __future__ import annotations

import itertools
import math

import pytest
from opacus.accountants import RDPAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from hbdp_fed.privacy import (
    Segment,
    calibrate,
    history_epsilon,
    history_epsilon_interval,
    history_worst_case,
    shared_guarantee,
    shared_patient_epsilon,
    worst_case,
)

DELTA, PRIOR = 1e-5, 0.01


def gaussian_epsilon(mu: float) -> float:
    """Balle and Wang 2018, theorem 8: epsilon of N(0, 1) against N(mu, 1) at DELTA."""

    def excess(eps: float) -> float:
        return float(norm.cdf(mu / 2 - eps / mu) - math.exp(eps) * norm.cdf(-mu / 2 - eps / mu)) - DELTA

    return float(brentq(excess, 0, 200, xtol=1e-12))


def test_two_gaussian_mechanisms_are_one_whose_inverse_variances_add_up() -> None:
    first, second = Segment(20.0, 1.0, 30), Segment(35.0, 1.0, 80)
    mu = math.sqrt(30 / 20**2 + 80 / 35**2)
    found = shared_guarantee([[first], [second]], [(0, 1)], delta=DELTA, prior=PRIOR)
    assert found.hospitals == (0, 1)
    assert found.exact
    assert found.eps_tight == pytest.approx(gaussian_epsilon(mu), rel=1e-6)
    assert found.worst_case == pytest.approx(float(norm.cdf(mu + norm.ppf(PRIOR))), rel=1e-9)
    # As one mechanism of one step would have it, too.
    alone = history_worst_case([Segment(1 / mu, 1.0, 1)], prior=PRIOR)
    assert found.worst_case == pytest.approx(alone, rel=1e-9)
    assert shared_guarantee([[Segment(1 / mu, 1.0, 1)]] * 2, [(0,)], delta=DELTA, prior=PRIOR).eps_rdp == pytest.approx(
        found.eps_rdp, rel=1e-9
    )


@pytest.mark.parametrize("eps", [2.0, 1e3, 1e9])
def test_epsilon_by_rdp_is_opacus_own_of_a_history_in_two_parts(eps: float) -> None:
    segments = [
        Segment(calibrate(eps=eps, delta=DELTA, sample_rate=q, steps=steps), q, steps)
        for q, steps in ((0.02, 300), (0.1, 200))
    ]
    theirs = RDPAccountant()
    theirs.history = [(s.noise_multiplier, s.sample_rate, s.steps) for s in segments]
    found = shared_guarantee([[s] for s in segments], [(1, 0)], delta=DELTA, prior=PRIOR)
    assert found.eps_rdp == pytest.approx(theirs.get_epsilon(DELTA), rel=1e-9)
    assert found.eps_rdp == pytest.approx(shared_patient_epsilon([[s] for s in segments], delta=DELTA), rel=1e-9)
    assert found.eps_tight <= found.eps_rdp


def test_equal_hospitals_are_one_with_the_steps_of_both() -> None:
    own = Segment(0.9, 0.05, 100)
    found = shared_guarantee([[own]] * 3, [(0, 1), (1, 2)], delta=DELTA, prior=PRIOR)
    assert found.worst_case == worst_case(prior=PRIOR, noise_multiplier=0.9, sample_rate=0.05, steps=200)
    assert found.eps_tight == history_epsilon_interval([Segment(0.9, 0.05, 200)], delta=DELTA)[1]
    assert found.worst_case > worst_case(prior=PRIOR, noise_multiplier=0.9, sample_rate=0.05, steps=100)


def test_only_hospitals_that_share_somebody_count() -> None:
    weak, strong = Segment(0.7, 0.1, 50), Segment(3.0, 0.1, 50)
    histories = [[weak], [strong], [weak], [strong]]
    apart = shared_guarantee(histories, [(0, 1), (1, 3)], delta=DELTA, prior=PRIOR)
    together = shared_guarantee(histories, [(0, 1), (2, 0), (1, 3)], delta=DELTA, prior=PRIOR)
    assert apart.hospitals == (0, 1)
    assert together.hospitals == (0, 2)
    assert apart.eps_rdp < together.eps_rdp
    assert apart.eps_tight < together.eps_tight
    assert apart.worst_case < together.worst_case
    assert apart.eps_rdp == pytest.approx(history_epsilon([weak, strong], delta=DELTA), rel=1e-12)


def test_of_many_combinations_no_figure_is_below_any_of_theirs_nor_far_above_the_largest() -> None:
    segments = [Segment(2.0 * (1 + 0.002 * place), 0.05 * (1 - 0.003 * place), 60) for place in range(5)]
    pairs = list(itertools.combinations(range(5), 2))
    found = shared_guarantee([[s] for s in segments], pairs, delta=DELTA, prior=PRIOR)
    assert not found.exact
    tight = max(history_epsilon_interval([segments[a], segments[b]], delta=DELTA)[1] for a, b in pairs)
    bound = max(history_worst_case([segments[a], segments[b]], prior=PRIOR) for a, b in pairs)
    assert tight <= found.eps_tight <= 1.05 * tight
    assert bound <= found.worst_case <= 1.05 * bound
    largest = max(history_epsilon([segments[a], segments[b]], delta=DELTA) for a, b in pairs)
    assert found.eps_rdp == pytest.approx(largest, rel=1e-9)


@pytest.mark.parametrize(("second", "bound"), [(Segment(0.0, 0.5, 2), 0.75), (Segment(0.0, 1.0, 1), 1.0)])
def test_a_hospital_without_noise_shows_whomever_it_draws(second: Segment, bound: float) -> None:
    hidden = Segment(1e9, 0.1, 1)
    found = shared_guarantee([[hidden], [second]], [(0, 1)], delta=DELTA, prior=PRIOR)
    assert found.eps_rdp == found.eps_tight == math.inf
    assert found.worst_case == pytest.approx(bound + (1 - bound) * PRIOR, rel=1e-3)
    many = [Segment(0.0, 0.1 * (1 + place), 1) for place in range(8)]
    pairs = [(0, place) for place in range(1, 8)]
    assert shared_guarantee([[s] for s in many], pairs, delta=DELTA, prior=PRIOR).eps_tight == math.inf


def test_what_cannot_be_composed_is_refused() -> None:
    with pytest.raises(ValueError, match="known_to"):
        shared_guarantee([[Segment(1.0, 0.1, 1)]], [], delta=DELTA, prior=PRIOR)
    with pytest.raises(ValueError, match="delta"):
        shared_guarantee([[Segment(1.0, 0.1, 1)]], [(0,)], delta=1.0, prior=PRIOR)
    with pytest.raises(ValueError, match="prior"):
        history_worst_case([Segment(1.0, 0.1, 1)], prior=0.0)
