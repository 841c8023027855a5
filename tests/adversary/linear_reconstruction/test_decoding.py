"""Bits from noisy counts: against every possible answer of a few bits, and against the theory of many."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hbdp_fed.adversary.linear_reconstruction import LinearReconstruction
from hbdp_fed.adversary.linear_reconstruction.decoders import (
    DECODERS,
    by_box,
    by_linear_estimate,
    expected_success,
    linear_estimate,
)
from hbdp_fed.types import QueryObservation


def asked(bits: Tensor, queries: int, std: float, prior: float, stream: torch.Generator) -> QueryObservation:
    subsets = torch.rand(queries, len(bits), generator=stream) < 0.5
    noise = torch.randn(queries, generator=stream, dtype=torch.float64)
    return QueryObservation(subsets, subsets.double() @ bits.double() + std * noise, std, prior)


def drawn(count: int, prior: float, stream: torch.Generator) -> Tensor:
    return torch.rand(count, generator=stream) < prior


def all_bits(count: int) -> np.ndarray:
    return np.array(list(itertools.product([0, 1], repeat=count)), dtype=float)


def posterior(observation: QueryObservation) -> np.ndarray:
    """P(bit = 1 | answers), by summing over all 2^n vectors of bits."""
    vectors = all_bits(observation.queries.shape[1])
    errors = observation.answers.numpy() - vectors @ observation.queries.double().numpy().T
    logs = -(errors**2).sum(axis=1) / (2 * observation.noise_std**2)
    ones = vectors.sum(axis=1)
    logs += ones * math.log(observation.prior) + (vectors.shape[1] - ones) * math.log(1 - observation.prior)
    weights = np.exp(logs - logs.max())
    return (weights @ vectors) / weights.sum()


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("prior", [0.5, 0.9])
def test_exact_answers_tell_the_only_bits_that_fit_them(name: str, prior: float) -> None:
    stream = torch.Generator().manual_seed(1)
    for _ in range(20):
        observation = asked(drawn(8, prior, stream), 32, 0.0, prior, stream)
        counts = all_bits(8) @ observation.queries.double().numpy().T
        [fitting] = np.flatnonzero((counts == observation.answers.numpy()).all(axis=1))
        assert torch.equal(DECODERS[name](observation), torch.from_numpy(all_bits(8)[fitting]) == 1)


def test_the_linear_estimate_is_the_one_with_the_smallest_squared_error() -> None:
    """Against the formula for the covariance of the answers, and against any linear estimate a little off."""
    stream = torch.Generator().manual_seed(2)
    prior, std = 0.3, 1.5
    observation = asked(drawn(12, prior, stream), 30, std, prior, stream)
    matrix, v = observation.queries.double().numpy(), prior * (1 - prior)
    weights = v * matrix.T @ np.linalg.inv(v * matrix @ matrix.T + std**2 * np.eye(30))
    estimate = linear_estimate(observation)
    expected = prior + weights @ (observation.answers.numpy() - prior * matrix.sum(axis=1))
    np.testing.assert_allclose(estimate.values.numpy(), expected, atol=1e-10)
    np.testing.assert_allclose(estimate.gain.numpy(), np.diag(weights @ matrix), atol=1e-10)

    def error(some: np.ndarray) -> float:
        missed = np.eye(12) - some @ matrix
        return float(v * (missed**2).sum() + std**2 * (some**2).sum())

    moves = np.random.default_rng(3).normal(size=(50, 12, 30)) * 1e-3
    assert all(error(weights) < error(weights + move) for move in moves)


@pytest.mark.parametrize("prior", [0.5, 0.8, 0.05])
@pytest.mark.parametrize("std", [0.7, 2.0, 8.0])
def test_of_one_bit_the_likelier_value_is_named(prior: float, std: float) -> None:
    stream = torch.Generator().manual_seed(4)
    told = 0
    for _ in range(200):
        observation = asked(drawn(1, prior, stream), 5, std, prior, stream)
        likelier = posterior(observation)[0] > 0.5
        assert bool(by_linear_estimate(observation)[0]) == likelier
        told += likelier
    assert told > 0 or prior < 0.1 or std > 1


@pytest.mark.parametrize("prior", [0.5, 0.8])
def test_of_a_few_bits_nearly_as_many_are_told_as_by_summing_over_all_vectors(prior: float) -> None:
    stream = torch.Generator().manual_seed(5)
    ours, best, games = 0, 0, 300
    for _ in range(games):
        bits = drawn(7, prior, stream)
        observation = asked(bits, 28, 1.2, prior, stream)
        ours += int((by_linear_estimate(observation) == bits).sum())
        best += int((torch.from_numpy(posterior(observation) > 0.5) == bits).sum())
    # Nobody does better on average; 7 * 300 bits tell 1%.
    assert best - 0.05 * 7 * games < ours <= best + 0.01 * 7 * games
    assert ours > 0.8 * 7 * games


@pytest.mark.parametrize("prior", [0.5, 0.75])
@pytest.mark.parametrize("std", [2.0, 4.0, 12.0])
def test_a_bits_error_has_the_probability_that_theory_gives(prior: float, std: float) -> None:
    stream = torch.Generator().manual_seed(6)
    rates, expected = [], []
    for _ in range(120):
        bits = drawn(64, prior, stream)
        observation = asked(bits, 256, std, prior, stream)
        rates.append(float((by_linear_estimate(observation) == bits).double().mean()))
        expected.append(float(expected_success(linear_estimate(observation).gain, prior).mean()))
    error = np.std(rates, ddof=1) / math.sqrt(len(rates))
    assert abs(np.mean(rates) - np.mean(expected)) < 4 * error + 0.004


def test_expected_success_ends_at_certainty_and_at_the_more_common_bit() -> None:
    gain = torch.tensor([0.0, 1e-6, 0.2, 0.9, 1.0])
    found = expected_success(gain, 0.7)
    assert found[0] == 0.7
    assert found[-1] == 1.0
    assert bool((found.diff() >= -1e-12).all())


@pytest.mark.parametrize("prior", [0.5, 0.74])
def test_at_the_noise_at_which_the_attack_has_to_fail_it_is_no_worse_than_the_more_common_bit(prior: float) -> None:
    stream = torch.Generator().manual_seed(7)
    attack, rates, guesses = LinearReconstruction(), [], []
    for _ in range(60):
        bits = drawn(64, prior, stream)
        observation = asked(bits, 256, 3 * math.sqrt(256), prior, stream)
        rates.append(float((attack.recover(observation, stream) == bits).double().mean()))
        guesses.append(max(float(bits.double().mean()), 1 - float(bits.double().mean())))
    difference = np.array(rates) - (np.array(guesses) if prior != 0.5 else 0.5)
    error = difference.std(ddof=1) / math.sqrt(len(rates))
    assert -4 * error - 1e-12 <= difference.mean() < 0.05


def test_the_box_finds_the_likeliest_bits_where_noise_is_small() -> None:
    """Against trying all 2^8 vectors."""
    stream = torch.Generator().manual_seed(8)
    same = 0
    for _ in range(100):
        observation = asked(drawn(8, 0.5, stream), 32, 0.5, 0.5, stream)
        errors = observation.answers.numpy() - all_bits(8) @ observation.queries.double().numpy().T
        likeliest = all_bits(8)[(errors**2).sum(axis=1).argmin()]
        same += torch.equal(by_box(observation), torch.from_numpy(likeliest) == 1)
    assert same >= 97


def test_the_stronger_decoder_is_taken_without_a_look_at_the_answers() -> None:
    stream = torch.Generator().manual_seed(9)
    attack = LinearReconstruction()

    def choice(prior: float, std: float) -> str:
        observation = asked(drawn(64, prior, stream), 256, std, prior, stream)
        other = QueryObservation(observation.queries, -observation.answers, std, prior)
        chosen = attack.decoder(observation, torch.Generator().manual_seed(1))
        assert attack.decoder(other, torch.Generator().manual_seed(1)) == chosen
        return chosen

    # A box around bits of which nearly all are 1 pulls the others up.
    assert choice(0.95, 3.0) == "linear"
    assert {choice(0.5, std) for std in (0.0, 1.0, 100.0)} == {"linear"}


@pytest.mark.parametrize(
    ("queries", "answers", "std", "prior", "message"),
    [
        (torch.ones(3, 2) > 0, torch.zeros(2), 0.0, 0.5, "queries must be"),
        (torch.ones(0, 2) > 0, torch.zeros(0), 0.0, 0.5, "queries must be"),
        (torch.ones(3, 2) > 0, torch.zeros(3), -1.0, 0.5, "noise_std"),
        (torch.ones(3, 2) > 0, torch.zeros(3), math.inf, 0.5, "noise_std"),
        (torch.ones(3, 2) > 0, torch.zeros(3), 0.0, 1.0, "prior"),
    ],
)
def test_an_observation_that_makes_no_sense_is_refused(
    queries: Tensor, answers: Tensor, std: float, prior: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        QueryObservation(queries, answers, std, prior)
