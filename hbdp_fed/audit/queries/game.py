"""One hospital's counting queries: about whose bits, answered with how much noise, and what was told of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.adversary.linear_reconstruction import LinearReconstruction
from hbdp_fed.privacy.counting import answer_noise, bit_success_bound
from hbdp_fed.types import Accountant, PrivacyBudget, QueryObservation

BITS = 128
"""n: of how many patients a hospital is asked, unless it has fewer."""

QUERIES_PER_BIT = 4
"""m / n. With n independent equations exact answers tell everything; more of them average noise out."""

NONE, BUDGET, FAILING = "none", "budget", "failing"
"""The noises: none, the run's own budget for all answers together, and 3 sqrt(m), at which the attack has to fail."""


@dataclass(frozen=True)
class AnsweredQueries:
    """The same queries answered with one noise, attacked.

    Attributes:
        noise: :data:`NONE`, :data:`BUDGET` or :data:`FAILING`.
        noise_std: Its standard deviation on each count.
        right: How many of the bits were told rightly.
        best_possible: The mean probability with which somebody who knows all other bits could tell one.
    """

    noise: str
    noise_std: float
    right: int
    best_possible: float


@dataclass(frozen=True)
class PlayedQueries:
    """One hospital's game.

    Attributes:
        hospital: Whose.
        bits: n.
        ones: How many of them are 1.
        queries: m.
        answered: By noise, ascending as in :func:`noises`.
    """

    hospital: str
    bits: int
    ones: int
    queries: int
    answered: tuple[AnsweredQueries, ...]


def noises(queries: int, budget: PrivacyBudget, accountant: Accountant) -> Mapping[str, float]:
    """By name, the standard deviation of the noise on each of so many answers.

    Dinur and Nissim's attack works up to noise of order sqrt(n) on answers to subsets of n patients: below it, no
    answers to many queries can be both useful and private. 3 sqrt(m) is beyond that.
    """
    own = answer_noise(eps=budget.epsilon, delta=budget.delta, queries=queries, accountant=accountant)
    return {NONE: 0.0, BUDGET: own, FAILING: 3 * math.sqrt(queries)}


def patients_bits(bits: Tensor, groups: Tensor | None) -> Tensor:
    """One bit a patient: whether any of the patient's records has it; a record's own where nobody has several.

    Args:
        bits: bool (N,), a value a record.
        groups: int64 (N,), equal for records of one patient; None where each record stands for itself.
    """
    if groups is None:
        return bits
    names, patient = groups.unique(return_inverse=True)
    return torch.zeros(len(names), dtype=torch.int64).index_add_(0, patient, bits.long()) > 0


def play_queries(
    bits: Tensor,
    *,
    hospital: str,
    attack: LinearReconstruction,
    budget: PrivacyBudget,
    accountant: Accountant,
    stream: torch.Generator,
    adversary: torch.Generator,
) -> PlayedQueries:
    """Ask a hospital about some of its patients, and let the adversary tell each one's bit.

    The adversary sees the queries, the answers, how large the noise is and how common the bit is among those that were
    asked about, a count that hospitals publish. Laplace's rule keeps that off 0 and 1.

    Args:
        bits: bool (N,), a value a patient; N is at least 1.
        hospital: Whose.
        attack: The attack.
        budget: Of a patient for all answers together.
        accountant: By which it is meant.
        stream: For patients, queries and noise.
        adversary: The attack's own.
    """
    asked = bits[torch.randperm(len(bits), generator=stream)[:BITS]]
    count, ones = len(asked), int(asked.sum())
    queries = torch.rand(QUERIES_PER_BIT * count, count, generator=stream) < 0.5
    exact = queries.double() @ asked.double()
    prior = (ones + 1) / (count + 2)
    answered = []
    for name, std in noises(len(queries), budget, accountant).items():
        noise = torch.randn(len(queries), generator=stream, dtype=torch.float64)
        told = attack.recover(QueryObservation(queries, exact + std * noise, std, prior), adversary)
        best = bit_success_bound(queries.sum(dim=0), noise_std=std, prior=prior)
        answered.append(AnsweredQueries(name, std, int((told == asked).sum()), float(best.mean())))
    return PlayedQueries(hospital, count, ones, len(queries), tuple(answered))
