"""Noisy answers to counting queries: what they cost, and how many of the bits behind them they can tell at most."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hbdp_fed.privacy.accounting import calibrate
from hbdp_fed.types import Accountant


def answer_noise(*, eps: float, delta: float, queries: int, accountant: Accountant = "rdp") -> float:
    """The standard deviation of the Gaussian noise on each of so many counts that together stay within a budget.

    One patient's bit moves each count by at most 1, and all of them by at most sqrt(queries) in l2: as many steps of
    the Gaussian mechanism, without sampling.

    Args:
        eps: The budget of one patient for all answers together, positive; ``inf`` gives 0.
        delta: In (0, 1).
        queries: m, at least 1.
        accountant: By which the budget is meant.

    Raises:
        ValueError: as :func:`hbdp_fed.privacy.calibrate`.
    """
    return calibrate(eps=eps, delta=delta, sample_rate=1.0, steps=queries, accountant=accountant)


def bit_success_bound(asked: Tensor, *, noise_std: float, prior: float) -> Tensor:
    """With which probability an adversary who knows every other bit can tell each bit at most.

    Take all other bits off the answers, and what is left of the c queries about a bit is that bit plus noise, whose sum
    has the mean 0 or c and the variance c s^2. Bayes' rule on it is right with the probability

        p Phi(d / 2 + l / d) + (1 - p) Phi(d / 2 - l / d),   d = sqrt(c) / s,   l = log(p / (1 - p)).

    Nobody who knows less does better on average over bits that are independently 1 with probability p.

    Args:
        asked: (n,), c, how many queries each bit is in.
        noise_std: s, at least 0.
        prior: p, in (0, 1).

    Returns:
        float64 (n,), from max(p, 1 - p) for a bit that nobody asked about to 1.
    """
    counts = asked.double()
    told = counts.sqrt() / noise_std if noise_std > 0 else torch.where(counts > 0, math.inf, 0.0).double()
    odds = math.log(prior / (1 - prior))
    # 0 / 0 and 0 * inf stand for the two ends, which are known.
    apart = torch.where(told.isinf() | (told == 0), 1.0, told)
    between = prior * torch.special.ndtr(apart / 2 + odds / apart)
    between += (1 - prior) * torch.special.ndtr(apart / 2 - odds / apart)
    return torch.where(told.isinf(), 1.0, torch.where(told == 0, max(prior, 1 - prior), between))
