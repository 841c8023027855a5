"""The likelihood of each candidate: what the most powerful test between records weighs."""

from __future__ import annotations

import torch
from torch import Tensor

from hbdp_fed.types import CandidateObservation


def log_likelihood_ratios(observation: CandidateObservation) -> Tensor:
    """log of P(release | candidate k was trained on) / P(release | nobody was), added up over all releases.

    What is left of a release once all other records' gradients are taken from it is a g + N(0, s^2) with a the number
    of steps that drew the record. Candidate k with gradient g_k has the likelihood ratio

        sum over a of P(a) exp((a <g_k, y> - a^2 |g_k|^2 / 2) / s^2),

    which for one step of Poisson sampling is 1 - q + q exp((<g_k, y> - |g_k|^2 / 2) / s^2). Noise is independent from
    one release to the next, given the weights that each started from, so the logarithms add up. By Neyman and Pearson
    no test between a candidate and nobody has more power, and with equal prior odds no rule names the right candidate
    more often. Hayes et al. 2023 (arXiv 2302.07225) rank by the inner product alone, which is weaker where q < 1.

    Returns:
        float64 (..., K).
    """
    projections, norms = observation.projections, observation.squared_norms
    total = torch.zeros(projections.shape[:-2] + projections.shape[-1:], dtype=torch.float64)
    for release, (values, probabilities) in enumerate(observation.participation):
        inner, square = projections[..., release, :, None], norms[..., release, :, None]
        exponent = (values * inner - values.square() * square / 2) / observation.noise_variance[release]
        total += torch.logsumexp(exponent + probabilities.log(), dim=-1)
    return total
