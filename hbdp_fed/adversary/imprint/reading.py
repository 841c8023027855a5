"""Measuring records in an imprint layer's noisy gradient: which bins hold one, and how loud each is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hbdp_fed.adversary.imprint.bins import brightness_form, read_bins
from hbdp_fed.adversary.planted.code import Code, read_code
from hbdp_fed.adversary.planted.decoding import Measured, settle_factors
from hbdp_fed.adversary.planted.evidence import Expectation
from hbdp_fed.adversary.planted.gradient import PlantedGradient
from hbdp_fed.types import Weights

_ROUNDING = 1e-12
"""Without noise, a bin with less than this share of the loudest bin's energy holds rounding errors."""

_ROWS_AT_ONCE = 32
"""Rows of many coefficients are squared a few at a time."""


def read_records(
    gradient: PlantedGradient, args: Mapping[str, Any], weights: Weights, expectation: Expectation
) -> Measured:
    """One record from every bin that holds any, the surest first. Two records of one bin come out as a mixture.

    Args:
        gradient: What the hospital's answer says about the planted layer.
        args: The planted model's arguments.
        weights: Its weights.
        expectation: What the public images say about a record's gradient.
    """
    found, scores = detect(gradient, expectation)
    order = found[torch.argsort(scores[found], descending=True, stable=True)]
    codes = gradient.rows[order]
    estimates, precisions = _witnesses(gradient, codes, order, args, weights, expectation)
    return Measured(
        codes=codes,
        factors=settle_factors(estimates, precisions, torch.ones_like(estimates), expectation),
        noise_std=torch.full_like(estimates, gradient.noise_std),
        scores=scores[order],
        members=functional.one_hot(order, len(gradient.bias)).bool(),
    )


def detect(gradient: PlantedGradient, expectation: Expectation) -> tuple[Tensor, Tensor]:
    """The bins (int64 (M,)) where a record is likelier than none, and every bin's score (float64 (bins,)).

    The most powerful test between the noise, N(0, s^2), and noise with a record's coefficients, N(0, s^2 + energy_j):
    a likelihood ratio (Neyman and Pearson 1933), with Bayes' threshold at the odds of an occupied bin. Without noise
    the score is the gradient's norm, and a bin of rounding errors is empty.
    """
    expected = torch.cat([expectation.energy, torch.tensor([expectation.factor_energy], dtype=torch.float64)])
    if gradient.noise_std == 0:
        energy = _weighted_energy(gradient, torch.ones_like(expected))
        return torch.nonzero((energy > 0) & (energy > _ROUNDING * float(energy.max()))).flatten(), energy.sqrt()
    noise = gradient.noise_std**2
    log_ratio = 0.5 * (
        _weighted_energy(gradient, 1 / noise - 1 / (noise + expected)) - torch.log1p(expected / noise).sum()
    )
    threshold = math.log1p(-expectation.occupancy) - math.log(expectation.occupancy)
    return torch.nonzero(log_ratio > threshold).flatten(), log_ratio


def _weighted_energy(gradient: PlantedGradient, weights: Tensor) -> Tensor:
    """The sum of the weighted squares of each row and its bias, float64 (bins,); weights are (D + 1,)."""
    parts = [rows.square() @ weights[:-1] for rows in gradient.rows.split(_ROWS_AT_ONCE)]
    return torch.cat(parts) + gradient.bias.square() * weights[-1]


def _witnesses(
    gradient: PlantedGradient,
    codes: Tensor,
    bins: Tensor,
    args: Mapping[str, Any],
    weights: Weights,
    expectation: Expectation,
) -> tuple[Tensor, Tensor]:
    """What the gradient says of each found record's factor r, float64 (M,), and one over the variance of that.

    Two witnesses, weighted by their variances: the bias gradient, which is r itself plus noise, and the row's mean
    brightness over the brightness of the bin, which averages the noise over all pixels. Without noise the bias gradient
    is exact and stands alone.
    """
    bias = gradient.bias[bins]
    if gradient.noise_std == 0:
        return bias, torch.full_like(bias, torch.inf)
    code: Code = read_code(args, weights)
    cuts = read_bins(args, weights, code)
    noise = gradient.noise_std**2
    form = brightness_form(code) / code.gains
    offset = brightness_form(code) @ code.centre
    distance = (cuts.lower + cuts.upper)[bins] / 2 - offset
    width = (cuts.upper - cuts.lower)[bins]
    # The row says r * distance; the record may lie anywhere in its bin.
    uncertainty = noise * form.square().sum() + expectation.size_mean**2 * width.square() / 12
    precision = 1 / noise + distance.square() / uncertainty
    return (bias / noise + (codes @ form) * distance / uncertainty) / precision, precision
