"""Bits of patients from a hospital's answers to counting queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.adversary.linear_reconstruction.decoders import DECODERS, expected_success, linear_estimate
from hbdp_fed.privacy.counting import bit_success_bound
from hbdp_fed.types import QueryObservation

_WORTH = 0.01
"""How far the best linear estimate has to lie below what anybody can reach for another decoder to be tried."""


@dataclass(frozen=True)
class LinearReconstruction:
    """Who asks for enough counts with too little noise learns almost every bit (Dinur and Nissim 2003).

    Answers to random subsets are linear equations in the bits. The decoder is the best linear estimate under the known
    prevalence, or least squares inside the box of all bits. What the first is worth follows from the queries; where
    that leaves room, both are tried on bits that the adversary draws itself, and the better one is taken.

    Attributes:
        rehearsals: On how many draws of its own, at least 1.
        name: What reports call the attack.
    """

    rehearsals: int = 8
    name: str = "linear_reconstruction"

    def recover(self, observation: QueryObservation, generator: torch.Generator) -> Tensor:
        """The bits, bool (n,)."""
        return DECODERS[self.decoder(observation, generator)](observation)

    def decoder(self, observation: QueryObservation, generator: torch.Generator) -> str:
        """Which of :data:`DECODERS` is the strongest for these queries, this noise and this prevalence."""
        known = expected_success(linear_estimate(observation).gain, observation.prior)
        asked = observation.queries.sum(dim=0)
        best = bit_success_bound(asked, noise_std=observation.noise_std, prior=observation.prior)
        if float((best - known).mean()) < _WORTH:
            return "linear"
        right = self._rehearsed(observation, generator)
        # Of equal ones the first.
        return max(right, key=lambda name: right[name])

    def _rehearsed(self, observation: QueryObservation, generator: torch.Generator) -> Mapping[str, int]:
        """How many bits of its own each decoder tells."""
        right = dict.fromkeys(DECODERS, 0)
        queries, prior = observation.queries, observation.prior
        for _ in range(self.rehearsals):
            bits = torch.rand(queries.shape[1], generator=generator) < prior
            noise = torch.randn(len(queries), generator=generator, dtype=torch.float64)
            answers = queries.double() @ bits.double() + observation.noise_std * noise
            own = QueryObservation(queries, answers, observation.noise_std, prior)
            for name, decode in DECODERS.items():
                right[name] += int((decode(own) == bits).sum())
        return right
