"""What counting queries cost, and how many bits they tell at most, against simulation."""

from __future__ import annotations

import math

import pytest
import torch

from hbdp_fed.privacy import epsilon
from hbdp_fed.privacy.counting import answer_noise, bit_success_bound


@pytest.mark.parametrize(("eps", "accountant"), [(1.0, "rdp"), (8.0, "tight"), (1e9, "rdp")])
def test_all_answers_together_stay_within_the_budget(eps: float, accountant: str) -> None:
    std = answer_noise(eps=eps, delta=1e-5, queries=512, accountant=accountant)  # type: ignore[arg-type]
    spent = epsilon(noise_multiplier=std, sample_rate=1.0, steps=512, delta=1e-5, accountant=accountant)  # type: ignore[arg-type]
    assert 0.998 * eps < spent <= eps


def test_many_answers_are_one_release_of_that_much_sensitivity() -> None:
    """512 answers with noise s protect as one with noise s / sqrt(512)."""
    std = answer_noise(eps=4.0, delta=1e-5, queries=512, accountant="tight")
    once = answer_noise(eps=4.0, delta=1e-5, queries=1, accountant="tight")
    assert std == pytest.approx(math.sqrt(512) * once, rel=5e-3)


def test_without_a_budget_there_is_no_noise() -> None:
    assert answer_noise(eps=math.inf, delta=1e-5, queries=512) == 0.0


@pytest.mark.parametrize("prior", [0.5, 0.9])
@pytest.mark.parametrize("std", [2.0, 10.0, 60.0])
def test_the_bound_is_what_somebody_scores_who_knows_all_other_bits(prior: float, std: float) -> None:
    asked, games = 200, 40_000
    stream = torch.Generator().manual_seed(1)
    bits = (torch.rand(games, generator=stream) < prior).double()
    # What is left of each answer, added up: sufficient for the bit.
    left = asked * bits + std * math.sqrt(asked) * torch.randn(games, generator=stream, dtype=torch.float64)
    variance = asked * std**2
    odds = (left**2 - (left - asked) ** 2) / (2 * variance) + math.log(prior / (1 - prior))
    right = float(((odds > 0) == (bits == 1)).double().mean())
    bound = float(bit_success_bound(torch.tensor([asked]), noise_std=std, prior=prior))
    assert bound == pytest.approx(right, abs=4 * math.sqrt(0.25 / games))


def test_the_bound_ends_at_certainty_and_at_the_more_common_bit() -> None:
    counts = torch.tensor([0, 1, 300])
    assert bit_success_bound(counts, noise_std=0.0, prior=0.3).tolist() == [0.7, 1.0, 1.0]
    noisy = bit_success_bound(counts, noise_std=5.0, prior=0.3)
    assert noisy[0] == 0.7
    assert bool((noisy.diff() >= 0).all())
    assert float(bit_success_bound(torch.tensor([300]), noise_std=1e9, prior=0.3)) == pytest.approx(0.7)
