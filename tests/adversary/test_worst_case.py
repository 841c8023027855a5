"""The worst case's likelihoods against densities written out, and the laws that they rest on against enumeration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import norm
from torch import Tensor

from hbdp_fed.adversary.threat_models import REALISTIC, RELAXED, WORST_CASE
from hbdp_fed.adversary.worst_case import (
    CandidateMatching,
    MembershipInference,
    log_likelihood_ratios,
    participation_law,
)
from hbdp_fed.dpsgd import step_weights
from hbdp_fed.seeding import generator
from hbdp_fed.types import CandidateObservation, ThreatModel

RATES = [0.3, 0.1, 0.25, 0.05, 0.4]


def falling(steps: int) -> list[float]:
    """Learning rates of half a period of a cosine, all different."""
    return [0.1 * (1.01 + math.cos(math.pi * step / steps)) for step in range(steps)]


def observed(
    projections: Tensor,
    squared_norms: Tensor,
    *,
    variance: Sequence[float] = (1.0,),
    participation: Sequence[tuple[Tensor, Tensor]] | None = None,
    threat_model: ThreatModel = WORST_CASE,
) -> CandidateObservation:
    return CandidateObservation(
        threat_model=threat_model,
        projections=projections.double(),
        squared_norms=squared_norms.double(),
        noise_variance=torch.tensor(variance, dtype=torch.float64),
        participation=[participation_law([1.0], 0.5)] if participation is None else participation,
    )


# How much a step counts.


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_step_weights_are_what_sgd_does_with_each_gradient(momentum: float) -> None:
    gradients = torch.randn(len(RATES), 7, generator=generator(0, "g"), dtype=torch.float64)
    weights = torch.zeros(7, dtype=torch.float64)
    optimizer = torch.optim.SGD([weights], lr=1.0, momentum=momentum)
    for rate, gradient in zip(RATES, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        weights.grad = gradient.clone()
        optimizer.step()
    expected = -(torch.tensor(step_weights(RATES, momentum=momentum), dtype=torch.float64) @ gradients)
    assert torch.allclose(weights, expected, atol=1e-12, rtol=1e-12)


def test_without_momentum_a_step_weighs_its_own_rate() -> None:
    assert step_weights(RATES, momentum=0.0) == pytest.approx(RATES, rel=1e-15)


# How often a record counts.


def enumerated(weights: Sequence[float], q: float) -> dict[float, float]:
    """Value to probability over all 2^E patterns, values rounded to 12 digits."""
    law: dict[float, float] = {}
    for pattern in itertools.product((0, 1), repeat=len(weights)):
        value = round(math.fsum(weight for weight, there in zip(weights, pattern, strict=True) if there), 12)
        law[value] = law.get(value, 0.0) + math.prod(q if there else 1 - q for there in pattern)
    return law


@pytest.mark.parametrize("q", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("steps", [1, 2, 5, 8])
def test_the_law_of_participation_is_that_of_all_patterns(steps: int, momentum: float, q: float) -> None:
    weights = step_weights([0.1] * steps, momentum=momentum)
    expected = enumerated(weights, q)
    values, probabilities = participation_law(weights, q)
    assert values.tolist() == pytest.approx(sorted(expected), rel=1e-5, abs=1e-12)
    assert probabilities.tolist() == pytest.approx([expected[value] for value in sorted(expected)], rel=1e-9)


@given(
    weights=st.lists(st.floats(min_value=0.01, max_value=10), min_size=1, max_size=10),
    q=st.floats(min_value=0.01, max_value=0.99),
)
def test_any_weights_give_the_distribution_of_all_patterns(weights: list[float], q: float) -> None:
    """As an expectation of smooth functions: neighbours may have been merged."""
    values, probabilities = (tensor.numpy() for tensor in participation_law(weights, q))
    law = enumerated(weights, q)
    scale = sum(weights)
    for rate in (0.5, 2.0, 5.0):
        expected = math.fsum(probability * math.exp(-rate * value / scale) for value, probability in law.items())
        assert float((probabilities * np.exp(-rate * values / scale)).sum()) == pytest.approx(expected, rel=1e-3)


LONG = {
    "equal": [0.1] * 200,
    "momentum": step_weights([0.1] * 200, momentum=0.9),
    "momentum_and_cosine": step_weights(falling(200), momentum=0.9),
    "rounds_of_momentum": step_weights([0.1] * 20, momentum=0.9) * 10,
    "many_rounds": step_weights([0.1] * 20, momentum=0.9) * 100,
    "many_steps": falling(2000),
}


@pytest.mark.parametrize("q", [0.005, 0.05, 0.5])
@pytest.mark.parametrize("weights", LONG.values(), ids=LONG.keys())
def test_merged_values_keep_mean_and_spread(weights: list[float], q: float) -> None:
    values, probabilities = participation_law(weights, q)
    mean = float((values * probabilities).sum())
    variance = float((values**2 * probabilities).sum()) - mean**2
    assert float(probabilities.sum()) == pytest.approx(1, rel=1e-9)
    assert mean == pytest.approx(q * sum(weights), rel=1e-9)
    assert variance == pytest.approx(q * (1 - q) * sum(weight**2 for weight in weights), rel=0.03)
    assert bool((values.diff() > 0).all())
    assert len(values) <= 1024


@pytest.mark.parametrize("weights", LONG.values(), ids=LONG.keys())
def test_never_taking_part_stays_apart_from_hardly_taking_part(weights: list[float]) -> None:
    values, probabilities = participation_law(weights, 0.005)
    assert values[0] == 0
    assert float(probabilities[0]) == pytest.approx(0.995 ** len(weights), rel=1e-6)


@pytest.mark.parametrize("weights", [RATES, *LONG.values()], ids=["few", *LONG.keys()])
def test_a_record_in_every_batch_counts_with_everything(weights: list[float]) -> None:
    values, probabilities = participation_law(weights, 1.0)
    assert values.tolist() == pytest.approx([sum(weights)], rel=1e-9)
    assert probabilities.tolist() == pytest.approx([1.0], rel=1e-12)


# Likelihoods.


def test_one_step_has_the_formula_of_the_subsampled_gaussian() -> None:
    q, variance = 0.2, 0.49
    g = generator(0, "v")
    projections, norms = torch.randn(6, 1, 4, generator=g), torch.rand(6, 1, 4, generator=g)
    found = log_likelihood_ratios(
        observed(projections, norms, variance=[variance], participation=[participation_law([1.0], q)])
    )
    expected = np.log(1 - q + q * np.exp((projections - norms / 2).double().numpy()[:, 0] / variance))
    assert found.numpy() == pytest.approx(expected, rel=1e-6)


def log_density_ratio(left: Tensor, gradient: Tensor, law: dict[float, float], std: float) -> float:
    """log of a mixture of normal densities around multiples of the gradient, over the one around nothing."""
    with_record = logsumexp(
        [math.log(p) + norm.logpdf(left.numpy(), loc=a * gradient.numpy(), scale=std).sum() for a, p in law.items()]
    )
    return float(with_record - norm.logpdf(left.numpy(), scale=std).sum())


@pytest.mark.parametrize(("weights", "q"), [([1.0], 0.3), ([1.0], 1.0), ([0.2, 0.5, 0.9], 0.3), ([0.4] * 4, 0.7)])
def test_one_release_has_the_ratio_of_the_densities(weights: list[float], q: float) -> None:
    """A few coordinates, explicit vectors: what the inner products leave out does not matter."""
    g = generator(0, "vectors")
    candidates = torch.randn(5, 3, generator=g, dtype=torch.float64)
    left = 0.7 * candidates[1] + 0.5 * torch.randn(3, generator=g, dtype=torch.float64)
    law = {value: p for value, p in enumerated(weights, q).items() if p > 0}
    found = log_likelihood_ratios(
        observed(
            (candidates @ left)[None],
            candidates.square().sum(dim=1)[None],
            variance=[0.5**2],
            participation=[participation_law(weights, q)],
        )
    )
    expected = [log_density_ratio(left, candidate, law, 0.5) for candidate in candidates]
    assert found.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_releases_multiply_each_with_its_own_noise_and_law() -> None:
    g = generator(1, "vectors")
    q, stds = 0.4, (0.5, 1.5, 0.8)
    weights = ([1.0], [0.3, 0.7], [0.5, 0.5, 0.2])
    candidates = torch.randn(3, 5, 4, generator=g, dtype=torch.float64)  # release, candidate, coordinate
    left = torch.randn(3, 4, generator=g, dtype=torch.float64)
    found = log_likelihood_ratios(
        observed(
            torch.einsum("skp,sp->sk", candidates, left),
            candidates.square().sum(dim=2),
            variance=[std**2 for std in stds],
            participation=[participation_law(one, q) for one in weights],
        )
    )
    expected = [
        sum(log_density_ratio(left[s], candidates[s, k], enumerated(weights[s], q), stds[s]) for s in range(len(stds)))
        for k in range(5)
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("variance", [1e-60, 1e-20, 1e20])
def test_likelihoods_stay_numbers_at_any_noise(variance: float) -> None:
    projections = torch.tensor([[1.0, 0.0, -1.0, 0.5]])
    found = log_likelihood_ratios(observed(projections, torch.ones(1, 4), variance=[variance]))
    assert bool(torch.isfinite(found).all())
    assert found[0] == found.max()


# The two games.


def test_the_likeliest_candidate_is_named() -> None:
    projections = torch.randn(50, 3, 6, generator=generator(0, "p"))
    observation = observed(
        projections,
        torch.ones(50, 3, 6),
        variance=[1.0] * 3,
        participation=[participation_law([1.0], 1.0)] * 3,
    )
    named = CandidateMatching().identify(observation, generator(0, "lots"))
    assert torch.equal(named, projections.sum(dim=1).argmax(dim=-1))


def test_ties_are_broken_evenly_among_those_who_tie() -> None:
    games = 6000
    projections = torch.tensor([0.3, 1.0, 1.0, -2.0, 1.0]).repeat(games, 1, 1)
    named = CandidateMatching().identify(observed(projections, torch.ones(games, 1, 5)), generator(0, "lots"))
    counts = torch.bincount(named, minlength=5).tolist()
    assert counts[0] == counts[3] == 0
    standard_error = math.sqrt(games * (1 / 3) * (2 / 3))
    assert all(abs(counts[k] - games / 3) < 4 * standard_error for k in (1, 2, 4))


def test_candidates_of_whom_nothing_is_seen_are_named_evenly() -> None:
    games = 5000
    observation = observed(torch.zeros(games, 2, 4), torch.ones(games, 2, 4), variance=[1e-60, 1e-60])
    observation = CandidateObservation(
        threat_model=observation.threat_model,
        projections=observation.projections,
        squared_norms=observation.squared_norms,
        noise_variance=observation.noise_variance,
        participation=[participation_law([1.0], 0.5)] * 2,
    )
    counts = torch.bincount(CandidateMatching().identify(observation, generator(0, "lots")), minlength=4).tolist()
    assert all(abs(count - games / 4) < 4 * math.sqrt(games * 3 / 16) for count in counts)


def test_the_same_generator_names_the_same_candidates() -> None:
    observation = observed(torch.zeros(40, 1, 8), torch.ones(40, 1, 8))
    first, second = (CandidateMatching().identify(observation, generator(3, "lots")) for _ in range(2))
    assert torch.equal(first, second)


def test_membership_scores_are_the_likelihood_ratios() -> None:
    observation = observed(torch.randn(9, 1, 1, generator=generator(0, "p")), torch.ones(9, 1, 1))
    assert torch.equal(MembershipInference().score(observation), log_likelihood_ratios(observation))


@pytest.mark.parametrize("threat_model", [RELAXED, REALISTIC], ids=lambda model: model.name)
def test_only_the_worst_case_is_given_candidates(threat_model: ThreatModel) -> None:
    with pytest.raises(ValueError, match=f"the {threat_model.name} threat model grants no candidates"):
        observed(torch.zeros(1, 1, 2), torch.ones(1, 1, 2), threat_model=threat_model)
