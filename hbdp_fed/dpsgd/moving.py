"""Weights on their way through the steps of a round: a float64 copy moves, and the model's own follow it.

The noise of a huge budget, which float32 weights would round away, is whole in the copy. A hospital's training, the
shadow hospitals of an adversary and a hospital that rehearses its own steps all move weights by this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from hbdp_fed.types import Weights


@dataclass(frozen=True)
class MovingWeights:
    """The weights on their way, by parameter name.

    Attributes:
        start: As they were received, float64.
        masters: As the optimiser has moved them, float64.
        followers: The model's own, rounded from the masters.
        added: What is added to every gradient, float64; empty for nothing.
    """

    start: Weights
    masters: Weights
    followers: Mapping[str, nn.Parameter]
    added: Weights

    @classmethod
    def of(cls, model: nn.Module, *, added: Weights | None = None) -> Self:
        """At the model's weights as they are now."""
        followers = dict(model.named_parameters())
        start = {name: value.detach().double().clone() for name, value in followers.items()}
        masters = {name: value.clone() for name, value in start.items()}
        return cls(start=start, masters=masters, followers=followers, added=added or {})

    def take(
        self, gradient: Weights, optimizer: torch.optim.Optimizer, *, learning_rate: float, proximal: float = 0.0
    ) -> None:
        """One step of the optimiser over the masters; what has no gradient, a frozen weight, stays where it is."""
        for name, master in self.masters.items():
            own = gradient.get(name)
            if own is not None and proximal:
                own = own + proximal * (master - self.start[name])
            if own is not None and self.added:
                own = own + self.added[name]
            master.grad = own
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # as large as the weights, and not needed through the next step
        with torch.no_grad():
            for name, follower in self.followers.items():
                follower.copy_(self.masters[name])

    def delta(self) -> Weights:
        """What all steps changed, on the CPU."""
        return {name: (master - self.start[name]).cpu() for name, master in self.masters.items()}
