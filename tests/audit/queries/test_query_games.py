"""Counting queries to a hospital: who is asked about, what the adversary is shown, and what is counted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from hbdp_fed.adversary.linear_reconstruction import LinearReconstruction
from hbdp_fed.audit.proportions import wilson_of_clusters
from hbdp_fed.audit.queries import (
    BITS,
    BUDGET,
    FAILING,
    NONE,
    QUERIES_PER_BIT,
    PlayedQueries,
    noises,
    patients_bits,
    play_queries,
    query_figures,
)
from hbdp_fed.privacy import epsilon
from hbdp_fed.types import PrivacyBudget, QueryObservation

EIGHT = PrivacyBudget(8.0, 1e-5)


def play(bits: Tensor, *, seed: int = 1, budget: PrivacyBudget = EIGHT, attack: Any = None) -> PlayedQueries:
    return play_queries(
        bits,
        hospital="hospital-01",
        attack=LinearReconstruction(rehearsals=1) if attack is None else attack,
        budget=budget,
        accountant="rdp",
        stream=torch.Generator().manual_seed(seed),
        adversary=torch.Generator().manual_seed(seed + 1),
    )


class Recorder(LinearReconstruction):
    """Notes what it is shown."""

    shown: ClassVar[list[QueryObservation]] = []

    def recover(self, observation: QueryObservation, generator: torch.Generator) -> Tensor:
        self.shown.append(observation)
        return super().recover(observation, generator)


def test_exact_answers_tell_every_bit_and_the_failing_noise_hides_them() -> None:
    stream = torch.Generator().manual_seed(3)
    played = [play(torch.rand(300, generator=stream) < 0.5, seed=seed) for seed in range(20)]
    by_noise = {
        name: np.array([one.answered[place].right / one.bits for one in played])
        for place, name in enumerate((NONE, BUDGET, FAILING))
    }
    assert [answered.noise for answered in played[0].answered] == [NONE, BUDGET, FAILING]
    assert by_noise[NONE].min() == 1.0
    assert by_noise[FAILING].mean() < 0.6
    assert by_noise[FAILING].mean() < by_noise[BUDGET].mean() < 1.0


def test_a_hospital_is_asked_about_as_many_patients_as_it_has_at_most() -> None:
    assert (play(torch.arange(300) < 100).bits, play(torch.arange(300) < 100).queries) == (BITS, QUERIES_PER_BIT * BITS)
    small = play(torch.arange(11) < 4)
    assert (small.bits, small.ones, small.queries) == (11, 4, 44)


def test_the_noise_is_that_of_the_budget_for_all_answers_together() -> None:
    found = noises(512, EIGHT, "rdp")
    assert found[NONE] == 0.0
    assert found[FAILING] == 3 * math.sqrt(512)
    spent = epsilon(noise_multiplier=found[BUDGET], sample_rate=1.0, steps=512, delta=1e-5, accountant="rdp")
    assert spent == pytest.approx(8.0, rel=2e-3)
    assert noises(512, PrivacyBudget(math.inf, 1e-5), "rdp")[BUDGET] == 0.0


def test_a_large_budget_protects_no_bit() -> None:
    played = play(torch.arange(200) % 3 == 0, budget=PrivacyBudget(1e9, 1e-5))
    assert played.answered[1].right == BITS


def test_the_adversary_is_shown_queries_noisy_answers_and_how_common_the_bit_is() -> None:
    bits = torch.arange(100) < 25
    Recorder.shown.clear()
    played = play(bits, attack=Recorder())
    assert len(Recorder.shown) == 3
    exact, noisy, _ = Recorder.shown
    assert torch.equal(exact.queries, noisy.queries)
    assert exact.prior == noisy.prior == (played.ones + 1) / (played.bits + 2)
    assert torch.equal(exact.answers, exact.answers.round())
    deviation = float((noisy.answers - exact.answers).std())
    assert deviation == pytest.approx(noisy.noise_std, rel=0.15)
    # Each patient is in about half of the queries.
    assert 0.35 < float(exact.queries.double().mean(dim=0).min()) < 0.65


def test_a_patient_has_one_bit_whatever_the_number_of_records() -> None:
    bits = torch.tensor([True, False, False, False, True])
    assert patients_bits(bits, torch.tensor([7, 7, 2, 2, 9])).tolist() == [False, True, True]
    assert torch.equal(patients_bits(bits, None), bits)


def test_figures_count_every_bit_once_and_each_hospitals_more_common_one() -> None:
    first, second = play(torch.arange(300) % 4 == 0), replace(play(torch.arange(20) < 15, seed=5), hospital="other")
    figures = query_figures("linear_reconstruction", [first, second], property="label=x", unit="record")
    assert figures.records == BITS + 20
    more_common = (BITS - first.ones) + 15
    assert figures.baseline_success_rate == pytest.approx(more_common / (BITS + 20))
    assert [point.noise for point in figures.points] == [NONE, BUDGET, FAILING]
    for place, point in enumerate(figures.points):
        right = [one.answered[place].right for one in (first, second)]
        assert point.success_rate == pytest.approx(sum(right) / (BITS + 20))
        assert point.success_rate_ci95 == wilson_of_clusters([(BITS, right[0]), (20, right[1])])
    own = figures.points[1]
    assert (figures.success_rate, figures.success_rate_ci95) == (own.success_rate, own.success_rate_ci95)
    assert figures.clusters == ((BITS, first.answered[1].right), (20, second.answered[1].right))
    assert figures.queries == QUERIES_PER_BIT * (BITS + 20)


def test_the_best_possible_success_is_not_exceeded() -> None:
    """On average over games, by more than chance allows."""
    stream = torch.Generator().manual_seed(9)
    gaps = []
    for seed in range(25):
        played = play(torch.rand(128, generator=stream) < 0.5, seed=seed)
        gaps.append(played.answered[1].right / played.bits - played.answered[1].best_possible)
    assert np.mean(gaps) < 3 * np.std(gaps, ddof=1) / 5


@pytest.mark.slow
def test_almost_all_bits_are_told_without_noise_and_none_beyond_guessing_at_the_failing_noise() -> None:
    """The acceptance figure: n = 128, m = 4 n; means over 200 independent games."""
    stream = torch.Generator().manual_seed(11)
    for prevalence in (0.5, 0.74):
        told, over = [], []
        for seed in range(200):
            bits = torch.rand(BITS, generator=stream) < prevalence
            played = play(bits, seed=seed, budget=PrivacyBudget(math.inf, 1e-5))
            told.append(played.answered[0].right / BITS)
            guess = max(played.ones, BITS - played.ones) / BITS
            over.append(played.answered[2].right / BITS - guess)
        assert np.mean(told) >= 0.99
        assert np.mean(over) + 2 * np.std(over, ddof=1) / math.sqrt(len(over)) <= 0.05
