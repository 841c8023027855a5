"""Building a model with trap weights: rows of a ReLU layer on the pixels that few records activate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.adversary.planted.code import fit_code, in_chunks
from hbdp_fed.adversary.planted.crafting import Layer, Loudness, plant
from hbdp_fed.types import ModelSpec, Weights

_BLACK = 1e-6
"""Added to what a row weighs of an image: of a black one there is nothing to weigh."""

_SMALLEST_SPREAD = 1e-4
"""Public images that are all the same leave a row's log-ratio no spread."""


@dataclass(frozen=True)
class TrapDesign:
    """One way to build the malicious model.

    Attributes:
        rows: Of the planted layer, at least 2.
        activation: The probability with which a record shall activate a row, in (0, 1/2).
        loudness: How the layer drowns the base.
        whitening: Exponent of the coefficients' gains (see :func:`hbdp_fed.adversary.planted.code.fit_code`).
        max_logit_change: How far the layer may move any logit of any image.
        seed: Of the rows' weights.
    """

    rows: int
    activation: float
    loudness: Loudness
    whitening: float = 0.25
    max_logit_change: float = 0.1
    seed: int = 0


def craft_model(
    base: ModelSpec, base_weights: Weights, images: Tensor, design: TrapDesign
) -> tuple[ModelSpec, Weights]:
    """The malicious model around ``base``.

    Args:
        base: The model that the hospitals expect, with ``num_classes`` among its arguments.
        base_weights: Its current weights.
        images: Public images, float (P, C, *spatial) in [0, 1].
        design: How to build it.

    Returns:
        A specification of the registry's ``planted`` model, and its weights (float32).
    """
    generator = torch.Generator().manual_seed(design.seed)
    rows = trap_rows(images, rows=design.rows, activation=design.activation, generator=generator)
    # No image has pixels above 1, so that no row is louder than the sum of its positive weights.
    loudest = float(rows.clamp(min=0.0).sum(dtype=torch.float64)) * design.loudness.gain
    code = fit_code(images, whitening=design.whitening)
    weight, bias = code.layer_on_pixels(rows)
    scale = design.max_logit_change / loudest
    layer = Layer(weight=weight.mul_(scale), bias=bias * scale, ceiling=None)
    return plant(base, base_weights, code, layer, design.loudness)


def trap_rows(images: Tensor, *, rows: int, activation: float, generator: torch.Generator) -> Tensor:
    """Trap weights (Boenisch et al. 2021, arXiv 2112.02918): weights of the pixels, float32 (rows, C, *spatial).

    Each weight is drawn from a Gaussian, a random half of a row's are made negative, and the positive ones are scaled
    down by a factor alpha < 1. With n and p what the negative and the positive half weigh of an image, the row is
    active if alpha > n / p. The authors take one alpha for the whole layer; here every row has its own. Over images
    log(n / p) is roughly Gaussian, with a mean and a spread that differ from row to row. With z the quantile, over all
    rows and public images, of what is left when both are taken out, alpha = exp(mean + spread * z) makes a record
    activate a row with the wanted probability, however few public images there are. The quantile is taken out of
    sample, mean and spread from one half of the images and z from the other, and the reverse.

    Of a random half and the other half the one is made negative that weighs less: then the mean is below 0, and with
    z < 0 alpha is below 1 for every row.

    Args:
        images: Public images, float (P, C, *spatial) in [0, 1], P at least 4.
        rows: How many.
        activation: The wanted probability, in (0, 1/2).
        generator: A CPU generator.
    """
    shape, pixels = images.shape[1:], math.prod(images.shape[1:])
    weights = torch.randn(rows, pixels, generator=generator).abs_()
    signs = torch.ones(pixels)
    signs[: pixels // 2] = -1
    for row in weights:
        row *= signs[torch.randperm(pixels, generator=generator)]
    ratios = _log_ratios(weights, images)
    flipped = ratios.mean(dim=1) > 0
    weights[flipped] *= -1
    ratios[flipped] *= -1
    mean, spread = _centre_and_spread(ratios)
    alpha = torch.exp(mean + spread * _quantile(ratios, activation)).float()
    return torch.where(weights > 0, alpha * weights, weights).reshape(rows, *shape)


def _log_ratios(weights: Tensor, images: Tensor) -> Tensor:
    """log(n / p) of every row (rows, D) and image (P, C, *spatial), float64 (rows, P)."""
    positive, negative = (
        torch.cat([chunk.float().flatten(start_dim=1) @ half.T for chunk in in_chunks(images)]).double() + _BLACK
        for half in (weights.clamp(min=0.0), weights.clamp(max=0.0).neg_())
    )
    return (negative.log() - positive.log()).T.contiguous()


def _centre_and_spread(ratios: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's mean and standard deviation over the images, (rows, 1) each."""
    spread, mean = torch.std_mean(ratios, dim=1, keepdim=True)
    return mean, spread.clamp(min=_SMALLEST_SPREAD)


def _quantile(ratios: Tensor, activation: float) -> float:
    """The quantile of the rows' standardised log-ratios, out of sample; negative."""
    left = []
    for fitted, held_out in ((ratios[:, ::2], ratios[:, 1::2]), (ratios[:, 1::2], ratios[:, ::2])):
        mean, spread = _centre_and_spread(fitted)
        left.append(((held_out - mean) / spread).flatten())
    standardised = torch.cat(left)
    rank = min(max(round(activation * len(standardised)), 1), len(standardised))
    return min(float(standardised.kthvalue(rank).values), -_SMALLEST_SPREAD)
