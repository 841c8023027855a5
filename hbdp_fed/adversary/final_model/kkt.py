"""Reconstruction from the final weights alone, by the condition that training leaves them in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.adversary.final_model.candidates import merged
from hbdp_fed.adversary.final_model.released import check_numbers, classes_of, final_model
from hbdp_fed.adversary.final_model.search import Found, SearchSettings, search
from hbdp_fed.adversary.final_model.smooth_relu import with_smooth_relus
from hbdp_fed.adversary.final_model.stationarity import Stationarity
from hbdp_fed.adversary.public_images import check_public_images
from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model
from hbdp_fed.types import Observation, Reconstruction

_TINY = 1e-9


@dataclass(frozen=True)
class KktAttack:
    """Training records out of the final weights of a net (Haim et al. 2022, arXiv 2206.07758).

    It searches for images whose weighted margin gradients add up to what training did to the weights (see
    :class:`hbdp_fed.adversary.final_model.stationarity.Stationarity`), more of them than there are records, with the
    paper's smooth derivative of ReLUs. Any net of the registry can be searched; the theory is of homogeneous ones
    (``mlp``), trained without noise to a tiny loss on few records.

    Two things differ from the paper. The target is the *change* of the weights (Loo et al. 2023, arXiv 2302.01428),
    since a server knows those it began with: so nets that started large, as they usually do, can be searched, too. And
    gradients may be taken part of the way between the first weights and the last (``position``), since the change is
    made of gradients at all weights on the way. ``position=1`` is the paper's.

    The slope, the rates, the start and the number of candidates were compared on nets that the adversary trained itself
    on public images (``python -m scripts.attacks.kkt --tune``, on phantom and PneumoniaMNIST). What was compared there
    had been found on nets of 10 or 20 private records, drawn with other seeds than those that figures are given for.

    Attributes:
        candidates: How many images are searched for, dealt to the classes in turn: at least one a class, best twice
            as many as there are records.
        iterations: Steps of each search.
        restarts: Searches from other starts, of which the one that explains most is kept.
        image_rate: Adam's rate for pixels.
        multiplier_rate: Adam's rate for the logarithms of lambda.
        spread: Standard deviation of the first images around the public mean.
        slope: Of the sigmoid that stands for the derivative of a ReLU: the gentler, the easier a search switches units
            on and off, and the less it is the net's own derivative.
        position: Where gradients are taken, from 0 (the first weights) to 1 (the last).
        range_weight: What pixels outside [0, 1] cost, relative to the error of the weights.
        alike: From which correlation on candidates are one, whose mean weighted by lambda is kept.
        device: Where to compute, as PyTorch names it.
        name: What reports call the attack.
    """

    candidates: int = 40
    iterations: int = 1000
    restarts: int = 1
    image_rate: float = 0.05
    multiplier_rate: float = 0.05
    spread: float = 0.1
    slope: float = 20.0
    position: float = 0.5
    range_weight: float = 0.01
    alike: float = 0.95
    device: str = "cpu"
    name: str = "kkt"

    def __post_init__(self) -> None:
        check_numbers(
            self.name,
            {
                "candidates": (self.candidates, 1),
                "iterations": (self.iterations, 1),
                "restarts": (self.restarts, 1),
                "image_rate": (self.image_rate, _TINY),
                "multiplier_rate": (self.multiplier_rate, _TINY),
                "spread": (self.spread, 0),
                "slope": (self.slope, _TINY),
                "range_weight": (self.range_weight, 0),
            },
        )
        for key, value in (("position", self.position), ("alike", self.alike)):
            if not 0 <= value <= 1:
                raise SettingError(f"adversary.{self.name}.{key}", f"must lie from 0 to 1, got {value:g}")

    def check_public(self, images: Tensor) -> None:
        """Whether the attack can work with these public images (P, C, *spatial).

        Raises:
            SettingError: if there is none: the search starts around their mean.
        """
        check_public_images(images, attack=self.name, least=1)

    def reconstruct(self, observation: Observation, generator: torch.Generator) -> Reconstruction:
        """Rebuild records that the released model was trained on.

        Args:
            observation: Of the global model, with the weights at the start of training and what they have become.
            generator: A CPU generator, for the starts of the searches.

        Returns:
            Different images, surest first, none where training changed nothing; scores are lambda over the largest
            lambda. Details: ``error`` (the part of the change that they do not explain, 0 to 1 and above),
            ``candidates`` and ``kept``.

        Raises:
            SettingError: if the model gives no single answer an image, is trained with another loss than the
                cross-entropy of two or more classes, is not finite, or there are fewer candidates than classes.
            ValueError: if the adversary does not see the global model.
        """
        model = final_model(observation)
        self.check_public(observation.public.images)
        classes = classes_of(observation, attack=self.name)
        if classes < 2:
            raise SettingError("adversary.attack", f"{self.name} needs two classes or more, the model has {classes}")
        if self.candidates < classes:
            raise SettingError(
                f"adversary.{self.name}.candidates", f"must be at least {classes}, one a class, got {self.candidates}"
            )
        public = observation.public.images.float()
        net = with_smooth_relus(build_model(observation.architecture).eval(), self.slope).to(self.device)
        condition = Stationarity.of(
            net,
            {name: value.to(self.device) for name, value in model.at(self.position).items()},
            {name: value.to(self.device) for name, value in model.change.items()},
        )
        found = self._best(condition, public, classes, generator) if float(condition.size) > 0 else None
        if found is None:
            return Reconstruction(images=public[:0], scores=torch.zeros(0), details={"candidates": 0.0, "kept": 0.0})
        images, multipliers = merged(found.images, found.multipliers, alike=self.alike)
        return Reconstruction(
            images=images.clamp(0.0, 1.0),
            scores=multipliers / multipliers.max(),
            details={"error": found.error, "candidates": float(self.candidates), "kept": float(len(images))},
            unprocessed=images,
        )

    def _best(self, condition: Stationarity, public: Tensor, classes: int, generator: torch.Generator) -> Found | None:
        """Of all restarts the search that explains most."""
        labels = (torch.arange(self.candidates) % classes).to(self.device)
        settings = SearchSettings(
            iterations=self.iterations,
            image_rate=self.image_rate,
            multiplier_rate=self.multiplier_rate,
            spread=self.spread,
            range_weight=self.range_weight,
        )
        tries = [search(condition, public, labels, settings, generator) for _ in range(self.restarts)]
        return min((found for found in tries if found is not None), key=lambda found: found.error, default=None)
