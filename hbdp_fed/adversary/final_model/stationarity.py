"""How nearly a set of images explains what training did to the weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hbdp_fed.types import Weights


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """How far the label's logit is above the others, (b,): z[y] - log sum exp of the others.

    A record's cross-entropy pulls exactly along the gradient of this, whatever the net. Of two classes it is
    y (z[1] - z[0]) with y = -1 or 1, and of more it comes to the margin over the largest other logit as logits grow.

    Args:
        logits: (b, K), K at least 2.
        labels: int64 (b,).
    """
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return own[:, 0] - others.logsumexp(dim=1)


@dataclass(frozen=True)
class Stationarity:
    """The KKT condition of the largest margin, as an error to be made small.

    Training a homogeneous net without noise until the loss is tiny turns its weights into the direction of a KKT point
    of "smallest norm with all margins at least 1" (Lyu and Li 2020, arXiv 1906.05890, theorem 4.4; Ji and Telgarsky
    2020, arXiv 2006.06657). There the weights are a sum over the records,

        theta = sum_i lambda_i grad margin_i(theta),    lambda_i >= 0,

    with the margins of :func:`margins`: for two classes Haim et al. 2022 (arXiv 2206.07758), for more, in the limit of
    large logits, Buzaglo et al. 2023 (arXiv 2305.03350). A net that is still far from that point, or whose
    weights hardly move (Loo et al. 2023, arXiv 2302.01428), fulfils it for the *change* of its weights, as a sum over
    all steps of the records' gradients on the way. The target may be either.

    Attributes:
        model: The net, best with smooth ReLUs (see :mod:`hbdp_fed.adversary.final_model.smooth_relu`).
        weights: Where margins are differentiated, by parameter name; they require gradients.
        target: What has to come out, by parameter name; not all zero.
    """

    model: nn.Module
    weights: dict[str, Tensor]
    target: Weights

    @classmethod
    def of(cls, model: nn.Module, weights: Weights, target: Weights) -> Stationarity:
        """The condition at these weights for this target."""
        own = {name: value.detach().clone().requires_grad_() for name, value in weights.items()}
        return cls(model=model, weights=own, target={name: target[name].detach() for name in own})

    def explained(self, images: Tensor, labels: Tensor, multipliers: Tensor) -> dict[str, Tensor]:
        """sum_i lambda_i grad margin_i by parameter name, differentiable in images and multipliers.

        Args:
            images: (M, C, *spatial).
            labels: int64 (M,).
            multipliers: (M,), lambda.
        """
        logits = functional_call(self.model, self.weights, (images,))
        total = (multipliers * margins(logits, labels)).sum()
        found = torch.autograd.grad(total, list(self.weights.values()), create_graph=True)
        return dict(zip(self.weights, found, strict=True))

    def error(self, explained: Weights) -> Tensor:
        """The squared distance from the target over the target's squared norm: 0 explained in full, 1 not at all."""
        missed = [(explained[name] - value).square().sum() for name, value in self.target.items()]
        return torch.stack(missed).sum() / self.size

    def scale(self, explained: Weights) -> Tensor:
        """By what factor on all multipliers the error is smallest."""
        inner = torch.stack([(explained[name] * value).sum() for name, value in self.target.items()]).sum()
        return inner / torch.stack([value.square().sum() for value in explained.values()]).sum()

    @property
    def size(self) -> Tensor:
        """The target's squared norm."""
        return torch.stack([value.square().sum() for value in self.target.values()]).sum()


def outside(images: Tensor) -> Tensor:
    """The summed squares of how far pixels lie outside [0, 1]: the prior that Haim et al. search with."""
    return (images - images.clamp(0.0, 1.0)).square().sum()
