"""Model inversion: the images that a released model answers to most surely with each class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hbdp_fed.adversary.final_model.released import check_numbers, classes_of, final_model
from hbdp_fed.adversary.public_images import check_public_images
from hbdp_fed.models import build_model
from hbdp_fed.types import Observation, Reconstruction, Weights

_TINY = 1e-9
_MIN_DEVIATION = 0.02
"""A pixel that is the same in all public images may still move as much as a few grey levels of 256."""


@dataclass(frozen=True)
class ModelInversionAttack:
    """What the released model takes for typical of each class (Fredrikson et al. 2015, CCS, algorithm 1).

    From the public mean, images are moved so that the model gives a class a high probability, held back by a Gaussian
    prior around the public mean, pixel by pixel, and by their total variation. It is the literature's baseline: what
    comes out is an image of the class, not of a record, unless a class has one record only, as a face of one person
    was in the paper. So it is expected to score no more than the mean public image does.

    Attributes:
        per_class: Images a class, from different starts.
        iterations: Steps of Adam.
        rate: Adam's rate for pixels.
        spread: Standard deviation of the starts around the public mean.
        variation_weight: What the mean absolute difference of neighbouring pixels costs.
        prior_weight: What the mean squared deviation from the public mean costs, in standard deviations of public
            images.
        device: Where to compute, as PyTorch names it.
        name: What reports call the attack.
    """

    per_class: int = 4
    iterations: int = 300
    rate: float = 0.02
    spread: float = 0.05
    variation_weight: float = 0.1
    prior_weight: float = 0.1
    device: str = "cpu"
    name: str = "model_inversion"

    def __post_init__(self) -> None:
        check_numbers(
            self.name,
            {
                "per_class": (self.per_class, 1),
                "iterations": (self.iterations, 1),
                "rate": (self.rate, _TINY),
                "spread": (self.spread, 0),
                "variation_weight": (self.variation_weight, 0),
                "prior_weight": (self.prior_weight, 0),
            },
        )

    def check_public(self, images: Tensor) -> None:
        """Whether the attack can work with these public images (P, C, *spatial).

        Raises:
            SettingError: if there are fewer than two: they are what the prior is made of.
        """
        check_public_images(images, attack=self.name, least=2)

    def reconstruct(self, observation: Observation, generator: torch.Generator) -> Reconstruction:
        """The typical images of all classes.

        Args:
            observation: Of the global model; its final weights alone are read.
            generator: A CPU generator, for the starts.

        Returns:
            ``per_class`` images of each class; scores are the model's probabilities of that class.

        Raises:
            SettingError: if the model gives no single answer an image, is trained with another loss than the
                cross-entropy, or is not finite.
            ValueError: if the adversary does not see the global model.
        """
        weights = {name: value.to(self.device) for name, value in final_model(observation).at(1.0).items()}
        self.check_public(observation.public.images)
        classes = classes_of(observation, attack=self.name)
        public = observation.public.images.float()
        labels = torch.arange(classes).repeat_interleave(self.per_class).to(self.device)
        noise = self.spread * torch.randn(len(labels), *public.shape[1:], generator=generator)
        start = (public.mean(dim=0) + noise).clamp(0.0, 1.0).to(self.device)
        model = build_model(observation.architecture).eval().to(self.device)
        images = self._climb(model, weights, start, labels, public.to(self.device))
        with torch.no_grad():
            sure = functional_call(model, weights, (images,)).softmax(dim=1).gather(1, labels[:, None])[:, 0]
        order = sure.nan_to_num(nan=0.0).argsort(descending=True, stable=True)
        return Reconstruction(
            images=images[order].cpu(),
            scores=sure.nan_to_num(nan=0.0)[order].cpu(),
            details={"classes": float(classes), "probability": float(sure.nan_to_num(nan=0.0).mean())},
        )

    def _climb(self, model: nn.Module, weights: Weights, start: Tensor, labels: Tensor, public: Tensor) -> Tensor:
        """The images that the descent ends at, in [0, 1]."""
        mean, deviation = public.mean(dim=0), public.std(dim=0).clamp(min=_MIN_DEVIATION)
        images = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([images], lr=self.rate)
        for _ in range(self.iterations):
            logits = functional_call(model, dict(weights), (images,))
            surprise = nn.functional.cross_entropy(logits, labels, reduction="none")
            unlikely = ((images - mean) / deviation).flatten(start_dim=1).square().mean(dim=1)
            loss = surprise + self.variation_weight * total_variation(images) + self.prior_weight * unlikely
            (gradient,) = torch.autograd.grad(loss.sum(), images)
            if not bool(gradient.isfinite().all()):
                break
            images.grad = gradient
            optimizer.step()
            with torch.no_grad():
                images.clamp_(0.0, 1.0)
        return images.detach()


def total_variation(images: Tensor) -> Tensor:
    """The mean absolute difference of neighbouring pixels, summed over the axes, (M,) of (M, C, *spatial)."""
    parts = [images.diff(dim=axis).abs().flatten(start_dim=1).mean(dim=1) for axis in range(2, images.dim())]
    return torch.stack(parts).sum(dim=0)
