"""Trying an attack out on public images, with the hospital's own DP-SGD step. No hospital's record is involved.

What the adversary may tune, it tunes here: how loud the planted layer has to be, whether to silence the base, how to
code the images, how the rows are laid out, whether to denoise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from hbdp_fed.adversary.planted.code import coefficients_of, read_code
from hbdp_fed.adversary.planted.decoding import Measured, rebuild
from hbdp_fed.adversary.planted.evidence import Expectation, expect
from hbdp_fed.adversary.planted.gradient import WEIGHT, PlantedGradient, active_rows, planted_gradient
from hbdp_fed.adversary.prior import ImagePrior, fit_prior
from hbdp_fed.dpsgd import (
    RecordLoss,
    clipped_summer,
    dp_sgd_gradient,
    make_summer,
    record_loss,
    record_losses,
    seeded_noise,
)
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.types import ModelSpec, PublicSideInformation, Weights

logger = logging.getLogger(__name__)

_MOST_STAND_INS = 64
_MOST_BATCHES = 4
_MOST_COORDINATES = 2**24
"""Of the planted layers of all rehearsed batches together: a large layer's noise alone takes seconds to draw."""

_MOST_FOR_SHARE = 16

Read = Callable[[PlantedGradient, Mapping[str, Any], Weights, Expectation], Measured]
"""An attack's own way to measure records in a gradient, given the planted model's arguments and weights."""


@dataclass(frozen=True)
class Means:
    """What an adversary has to try things out with.

    Attributes:
        rank: Principal components in the prior on images.
        max_physical_batch: Bounds the memory of a rehearsed step.
        device: Where rehearsed steps are computed.
    """

    rank: int
    max_physical_batch: int
    device: str


@dataclass(frozen=True)
class Cast:
    """The public images in two halves, and the labels that the stand-ins are given.

    Attributes:
        side_information: float32 (P1, C, *spatial), what the adversary knows in the rehearsal.
        stand_ins: float32 (V, C, *spatial), who plays the hospital's records: enough for several batches, if there are.
        labels: int64 (V,), the base's own predictions. The adversary knows no labels, and where a model is sure and
            right the gradient is smallest, so this is the hard case.
        batch: How many stand-ins make a batch, as many as the hospital expects if there are.
    """

    side_information: Tensor
    stand_ins: Tensor
    labels: Tensor
    batch: int

    def batches(self, most: int) -> list[slice]:
        """Whole batches of stand-ins, at least one and at most so many."""
        return [slice(n * self.batch, (n + 1) * self.batch) for n in range(min(most, len(self.labels) // self.batch))]


@dataclass(frozen=True)
class Rehearsal:
    """How one design did.

    Attributes:
        ssim: Mean over the stand-ins of the similarity to what came back from their rows; 0 where nothing did.
        share: Mean over stand-ins of the planted layer's part of the record's gradient norm, in [0, 1].
        denoise: Whether that was with the denoiser, whichever did better.
    """

    ssim: float
    share: float
    denoise: bool


def cast_roles(
    base: ModelSpec, base_weights: Weights, public: PublicSideInformation, generator: torch.Generator
) -> Cast:
    """Split the public images at random and label the stand-ins."""
    order = torch.randperm(len(public.images), generator=generator)
    half = len(order) // 2
    stand_ins = public.images[order[half:][:_MOST_STAND_INS]].float()
    model = build_model(base)
    load_weights(model, base_weights)
    model.eval()
    with torch.no_grad():
        labels = model(stand_ins).argmax(dim=1)
    return Cast(
        side_information=public.images[order[:half]].float(),
        stand_ins=stand_ins,
        labels=labels,
        batch=min(max(round(public.expected_records), 1), len(stand_ins)),
    )


@dataclass(frozen=True)
class Stage:
    """Where designs are tried out.

    Attributes:
        cast: Who plays whom.
        public: The hospital's announced mechanism.
        prior: From the cast's side information alone.
        read: The attack's way to measure.
        means: What there is to try things out with.
    """

    cast: Cast
    public: PublicSideInformation
    prior: ImagePrior
    read: Read
    means: Means

    def rehearse(self, architecture: ModelSpec, weights: Weights, generator: torch.Generator) -> Rehearsal:
        """Hand the malicious model to the stand-ins, take steps as the hospital would, and attack the answers.

        Args:
            architecture: The malicious model.
            weights: Its weights.
            generator: For the noise.
        """
        expectation = expect(architecture.args, weights, self.cast.side_information, self.public)
        code = read_code(architecture.args, weights)
        active = active_rows(architecture.args, weights, self.cast.stand_ins)
        batches = self.cast.batches(max(1, min(_MOST_BATCHES, _MOST_COORDINATES // weights[WEIGHT].numel())))
        scores = dict.fromkeys((True, False) if self.public.mechanism.noise_multiplier > 0 else (True,), 0.0)
        for batch in batches:
            gradient = self._hospital_step(architecture, weights, batch, generator)
            measured = self.read(gradient, architecture.args, weights, expectation)
            candidates = _mostly_within(measured.members, active[batch])
            for denoise in scores:
                images = rebuild(measured, code, self.prior, denoise=denoise)
                scores[denoise] += _mean_similarity(images, candidates, self.cast.stand_ins[batch])
        few = slice(_MOST_FOR_SHARE)
        result = Rehearsal(
            ssim=max(scores.values()) / len(batches),
            share=planted_share(
                architecture,
                weights,
                self.cast.stand_ins[few],
                self.cast.labels[few],
                loss=self._loss,
                device=self.means.device,
                max_physical_batch=self.means.max_physical_batch,
            ),
            denoise=scores[True] >= scores.get(False, scores[True]),
        )
        logger.debug("rehearsed: %s", result)
        return result

    @property
    def _loss(self) -> RecordLoss:
        return record_loss(self.public.loss, self.public.class_weights)

    def _hospital_step(
        self, architecture: ModelSpec, weights: Weights, batch: slice, generator: torch.Generator
    ) -> PlantedGradient:
        model = build_model(architecture)
        load_weights(model, weights)
        model.to(self.means.device).train()
        summer = make_summer(
            model, self.public.mechanism, max_physical_batch=self.means.max_physical_batch, loss=self._loss
        )
        step = dp_sgd_gradient(
            summer,
            self.cast.stand_ins[batch].to(self.means.device),
            self.cast.labels[batch].to(self.means.device),
            _patients(self.cast.batch, self.public.records_per_unit),
            mechanism=self.public.mechanism,
            expected_batch=1.0,
            noise=seeded_noise(generator),
        )
        return planted_gradient(step.gradient, self.public.mechanism)


def _patients(records: int, records_per_unit: float) -> Tensor | None:
    """How many of so many stand-ins each patient gives, ascending; None where each record is a unit."""
    most = round(records_per_unit)
    if most <= 1:
        return None
    left = [records % most] if records % most else []
    return torch.tensor([*left, *[most] * (records // most)])


def _mostly_within(members: Tensor, active: Tensor) -> Tensor:
    """Which of M records lie, by most of their rows (bool (M, n)), in the rows of which of V stand-ins (bool (V, n)).

    In a rehearsal the adversary knows that; bool (V, M).
    """
    shared = active.float() @ members.float().T
    return shared > members.sum(dim=1) / 2


def _mean_similarity(images: Tensor, candidates: Tensor, stand_ins: Tensor) -> float:
    """Mean SSIM over the stand-ins with the best of what may have come of each.

    Args:
        images: (M, C, *spatial), what came back.
        candidates: bool (V, M), which of it to compare with each stand-in.
        stand_ins: (V, C, *spatial).
    """
    best = torch.zeros(len(stand_ins))
    victims, found = torch.nonzero(candidates, as_tuple=True)
    for start in range(0, len(victims), _MOST_STAND_INS):
        part = slice(start, start + _MOST_STAND_INS)
        similarity = structural_similarity_index_measure(
            images[found[part]], stand_ins[victims[part]], data_range=1.0, reduction="none"
        )
        assert isinstance(similarity, Tensor)
        best.scatter_reduce_(0, victims[part], similarity.reshape(-1), "amax")
    return float(best.mean())


def set_stage(
    base: ModelSpec,
    weights: Weights,
    public: PublicSideInformation,
    *,
    read: Read,
    means: Means,
    generator: torch.Generator,
) -> Stage:
    """The stage for a base model and its weights: half of the public images play the hospital."""
    cast = cast_roles(base, weights, public, generator)
    prior = fit_prior(coefficients_of(cast.side_information), rank=means.rank)
    return Stage(cast=cast, public=public, prior=prior, read=read, means=means)


def planted_share(
    architecture: ModelSpec,
    weights: Weights,
    images: Tensor,
    labels: Tensor,
    *,
    loss: RecordLoss = record_losses,
    device: str = "cpu",
    max_physical_batch: int = 16,
) -> float:
    """Mean over records of |planted layer's gradient| / |whole gradient|, in [0, 1]; a record without gradient has 0.

    Clipping scales a record's gradient as a whole and leaves this share as it is.
    """
    model = build_model(architecture)
    load_weights(model, weights)
    model.to(device)

    def norms() -> Tensor:
        # At which norm to clip is all the same: the norms before clipping are what is wanted.
        summer = clipped_summer(model, max_grad_norm=1.0, max_physical_batch=max_physical_batch, loss=loss)
        return summer(images.to(device), labels.to(device)).norms.double().cpu()

    whole = norms()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("planted."))
    return float(torch.where(whole > 0, norms() / whole, 0.0).clamp(max=1.0).mean())
