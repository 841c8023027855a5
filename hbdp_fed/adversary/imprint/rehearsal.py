"""Trying the attack out on public images, with the hospital's own DP-SGD step. No hospital's record is involved.

What the adversary may tune, it tunes here: how loud the planted layer has to be, whether to silence the base, how to
code the images, whether to denoise.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from hbdp_fed.adversary.imprint.decoding import Decoded, PlantedGradient, decode, expect
from hbdp_fed.adversary.imprint.geometry import Geometry, coefficients_of, read_geometry
from hbdp_fed.adversary.prior import ImagePrior, fit_prior
from hbdp_fed.dpsgd import dp_sgd_gradient, make_summer, plain_summer, record_loss, seeded_noise
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.types import DpSgdParams, ModelSpec, PublicSideInformation, Weights

logger = logging.getLogger(__name__)

_MOST_STAND_INS = 64
_MOST_FOR_SHARE = 16


@dataclass(frozen=True)
class Cast:
    """The public images in two halves, and the labels that the stand-ins are given.

    Attributes:
        side_information: float32 (P1, C, H, W), what the adversary knows in the rehearsal.
        stand_ins: float32 (V, C, H, W), who plays the hospital's batch: as many as it expects, if there are as many.
        labels: int64 (V,), the base's own predictions. The adversary knows no labels, and where a model is sure and
            right the gradient is smallest, so this is the hard case.
    """

    side_information: Tensor
    stand_ins: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Rehearsal:
    """How one design did.

    Attributes:
        ssim: Mean over the stand-ins of the similarity to what came back from their bin; 0 where nothing did.
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
    wanted = min(max(round(public.expected_batch), 1), _MOST_STAND_INS)
    stand_ins = public.images[order[half:][:wanted]].float()
    model = build_model(base)
    load_weights(model, base_weights)
    model.eval()
    with torch.no_grad():
        labels = model(stand_ins).argmax(dim=1)
    return Cast(side_information=public.images[order[:half]].float(), stand_ins=stand_ins, labels=labels)


def rehearse(
    architecture: ModelSpec,
    weights: Weights,
    cast: Cast,
    public: PublicSideInformation,
    *,
    prior: ImagePrior,
    generator: torch.Generator,
    max_physical_batch: int,
) -> Rehearsal:
    """Hand the malicious model to the stand-ins, take one step as the hospital would, and attack the answer.

    Args:
        architecture: The malicious model.
        weights: Its weights.
        cast: Who plays whom.
        public: The hospital's announced mechanism.
        prior: Fitted to the cast's side information alone.
        generator: For the noise.
        max_physical_batch: Bounds the memory of the step.
    """
    geometry = read_geometry(architecture.args, weights)
    gradient = _hospital_step(
        architecture, weights, cast, public, generator=generator, max_physical_batch=max_physical_batch
    )
    expectation = expect(
        geometry.encode(cast.side_information),
        max_grad_norm=public.mechanism.max_grad_norm,
        expected_batch=public.expected_batch,
        bins=len(geometry.lower),
    )
    scores = {
        denoise: _mean_similarity(decode(gradient, geometry, prior, expectation, denoise=denoise), geometry, cast)
        for denoise in (True, False)
    }
    result = Rehearsal(
        ssim=max(scores.values()),
        share=planted_share(architecture, weights, cast.stand_ins[:_MOST_FOR_SHARE], cast.labels[:_MOST_FOR_SHARE]),
        denoise=scores[True] >= scores[False],
    )
    logger.debug("rehearsed: %s", result)
    return result


def side_prior(cast: Cast, *, rank: int) -> ImagePrior:
    """The prior that the adversary has in a rehearsal: from its half of the public images."""
    return fit_prior(coefficients_of(cast.side_information), rank=rank)


def planted_share(architecture: ModelSpec, weights: Weights, images: Tensor, labels: Tensor) -> float:
    """Mean over records of |planted layer's gradient| / |whole gradient|, in [0, 1]; a record without gradient has 0.

    Clipping scales a record's gradient as a whole and leaves this share as it is.
    """
    model = build_model(architecture)
    load_weights(model, weights)
    summer = plain_summer(model, max_physical_batch=1)
    shares: list[float] = []
    for image, label in zip(images, labels, strict=True):
        squares = {name: float(g.square().sum()) for name, g in summer(image[None], label[None]).total.items()}
        planted = sum(value for name, value in squares.items() if name.startswith("imprint."))
        whole = sum(squares.values())
        shares.append((planted / whole) ** 0.5 if whole > 0 else 0.0)
    return sum(shares) / len(shares)


def planted_gradient(total: Weights, mechanism: DpSgdParams) -> PlantedGradient:
    """The planted layer's part of a noisy clipped sum ``total`` (not yet divided by the expected batch)."""
    private = mechanism.noise_multiplier > 0
    return PlantedGradient(
        rows=total["imprint.weight"].double().cpu(),
        bias=total["imprint.bias"].double().cpu(),
        # 0 times inf, the control's clipping norm, would be no number.
        noise_std=mechanism.noise_multiplier * mechanism.max_grad_norm if private else 0.0,
    )


def _hospital_step(
    architecture: ModelSpec,
    weights: Weights,
    cast: Cast,
    public: PublicSideInformation,
    *,
    generator: torch.Generator,
    max_physical_batch: int,
) -> PlantedGradient:
    model = build_model(architecture)
    load_weights(model, weights)
    model.train()
    step = dp_sgd_gradient(
        make_summer(
            model,
            public.mechanism,
            max_physical_batch=max_physical_batch,
            loss=record_loss(public.loss, public.class_weights),
        ),
        cast.stand_ins,
        cast.labels,
        mechanism=public.mechanism,
        expected_batch=1.0,
        noise=seeded_noise(generator),
    )
    return planted_gradient(step.gradient, public.mechanism)


def _mean_similarity(decoded: Decoded, geometry: Geometry, cast: Cast) -> float:
    """Mean SSIM over the stand-ins; in a rehearsal the adversary knows in which bin each one lies."""
    brightness = coefficients_of(cast.stand_ins) @ geometry.brightness
    wanted = torch.searchsorted(geometry.lower, brightness, right=True) - 1
    position = {int(bin_): row for row, bin_ in enumerate(decoded.bins)}
    pairs = [(position[int(bin_)], victim) for victim, bin_ in enumerate(wanted) if int(bin_) in position]
    if not pairs:
        return 0.0
    rows, victims = (list(column) for column in zip(*pairs, strict=True))
    similarity = structural_similarity_index_measure(
        decoded.images[rows], cast.stand_ins[victims], data_range=1.0, reduction="none"
    )
    assert isinstance(similarity, Tensor)
    return float(similarity.sum()) / len(cast.stand_ins)
