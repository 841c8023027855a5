"""Two games of the worst case: name the record among candidates, and tell whether a record was there at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.adversary.worst_case.likelihood import log_likelihood_ratios
from hbdp_fed.types import CandidateObservation


@dataclass(frozen=True)
class CandidateMatching:
    """Which of K candidates was trained on? The one with the largest likelihood.

    Attributes:
        name: What reports call the attack.
    """

    name: str = "candidate_matching"

    def identify(self, observation: CandidateObservation, generator: torch.Generator) -> Tensor:
        """The candidates' numbers, int64 (...), in [0, K). Of equally likely ones, one is drawn."""
        scores = log_likelihood_ratios(observation)
        likeliest = scores == scores.amax(dim=-1, keepdim=True)
        lots = torch.rand(scores.shape, generator=generator, dtype=torch.float64)
        return torch.where(likeliest, lots, -1.0).argmax(dim=-1)


@dataclass(frozen=True)
class MembershipInference:
    """Was this record trained on? The larger the likelihood ratio, the surer.

    Attributes:
        name: What reports call the attack.
    """

    name: str = "membership"

    def score(self, observation: CandidateObservation) -> Tensor:
        """The log-likelihood ratio of each candidate being there against nobody, float64 (..., K)."""
        return log_likelihood_ratios(observation)
