"""From noisy counts to bits: the best linear estimate under the known prevalence, and least squares inside a box."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from scipy.optimize import lsq_linear
from torch import Tensor

from hbdp_fed.types import QueryObservation

_RANK = 1e-10
"""Singular values below this share of the largest one are rounding errors."""


@dataclass(frozen=True)
class LinearEstimate:
    """The Wiener filter's estimate of n bits, each 1 with probability p and of variance v = p (1 - p).

    Attributes:
        values: float64 (n,), E[bit | answers] as far as it is linear in the answers.
        gain: float64 (n,) in [0, 1]: which share of a bit's variance the answers explain. Given its bit b, an estimate
            has the mean p + gain (b - p) and the variance v gain (1 - gain).
    """

    values: Tensor
    gain: Tensor


def linear_estimate(observation: QueryObservation) -> LinearEstimate:
    """The linear estimate with the smallest mean squared error.

    With answers y = A b + N(0, s^2 I) and bits of mean p and variance v it is p + A^T (A A^T + s^2 / v I)^-1 (y - A p),
    ridge regression around the prevalence. Without noise, and with at least as many independent queries as bits, it is
    the bits. By the singular values of A, so that nothing is lost to a noise of 1e-9.
    """
    prior = observation.prior
    left, values, right = torch.linalg.svd(observation.queries.double(), full_matrices=False)
    real = values > _RANK * values.max()
    energy = values.square() + observation.noise_std**2 / (prior * (1 - prior))
    safe = torch.where(real, energy, torch.inf)
    residual = observation.answers.double() - prior * observation.queries.double().sum(dim=1)
    return LinearEstimate(
        values=prior + right.T @ (values / safe * (left.T @ residual)),
        gain=(right.T.square() @ (values.square() / safe)).clamp(0.0, 1.0),
    )


def thresholds(gain: Tensor, prior: float) -> Tensor:
    """From which estimate on a bit is more likely 1 than 0, by Bayes' rule for two normal laws.

    The laws of :class:`LinearEstimate` have equal variances, so that the likelihoods are equal halfway between their
    means, and the odds of the prevalence move that by v (1 - gain) log(p / (1 - p)).
    """
    halfway = prior + gain * (0.5 - prior)
    return halfway - prior * (1 - prior) * (1 - gain) * math.log(prior / (1 - prior))


def expected_success(gain: Tensor, prior: float) -> Tensor:
    """With which probability each bit is decided rightly at :func:`thresholds`, float64 in [max(p, 1 - p), 1].

    What the other bits add to an estimate is a sum of many small terms, and is taken for normal.
    """
    gain = gain.double()
    deviation = (prior * (1 - prior) * gain * (1 - gain)).sqrt()
    threshold = thresholds(gain, prior)
    one = torch.special.ndtr((prior + gain * (1 - prior) - threshold) / deviation)
    zero = torch.special.ndtr((threshold - prior + gain * prior) / deviation)
    found = prior * one + (1 - prior) * zero
    known, nothing = 1 - gain < 1e-12, gain < 1e-12
    return torch.where(known, 1.0, torch.where(nothing, max(prior, 1 - prior), found))


def by_linear_estimate(observation: QueryObservation) -> Tensor:
    """Bits by :func:`linear_estimate` and Bayes' threshold, bool (n,). On average no worse than the more common bit."""
    estimate = linear_estimate(observation)
    return estimate.values > thresholds(estimate.gain, observation.prior)


def by_box(observation: QueryObservation) -> Tensor:
    """Bits by ridge regression inside [0, 1]^n, rounded; bool (n,).

    Dwork, McSherry and Talwar (2007) decode by a linear program in that box, for errors of which a few may be of any
    size. Gaussian errors have squares for likelihood. The box is what knows that bits are bits: where noise is small it
    halves what other bits' errors cost (Thrampoulidis et al. 2018, arXiv 1510.01413).
    """
    prior, bits = observation.prior, observation.queries.shape[1]
    ridge = observation.noise_std / math.sqrt(prior * (1 - prior))
    system = torch.cat([observation.queries.double(), ridge * torch.eye(bits, dtype=torch.float64)])
    wanted = torch.cat([observation.answers.double(), torch.full((bits,), ridge * prior, dtype=torch.float64)])
    found = lsq_linear(system.numpy(), wanted.numpy(), bounds=(0.0, 1.0), method="bvls")
    return torch.from_numpy(found.x) > 0.5


DECODERS: Mapping[str, Callable[[QueryObservation], Tensor]] = {"linear": by_linear_estimate, "box": by_box}
"""The decoders by name."""
