"""Measuring records in the noisy gradient of a layer with trap weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hbdp_fed.adversary.planted.decoding import Measured, settle_factors
from hbdp_fed.adversary.planted.evidence import Expectation
from hbdp_fed.adversary.planted.gradient import PlantedGradient
from hbdp_fed.adversary.trap_weights.unmixing import Doubt, unmix
from hbdp_fed.types import Weights

_COLUMNS_AT_ONCE = 2**14
"""Coefficients whose inner products are added up at once."""

_FAINTEST_ROW = 0.02
"""Under noise, a row with less than this share of the energy to be expected of an occupied one holds no record."""

_FAINTEST = 1e-12
"""Coefficients with less than this share of the largest one's energy are not magnified any further."""


def read_records(
    gradient: PlantedGradient, args: Mapping[str, Any], weights: Weights, expectation: Expectation
) -> Measured:
    """The records that the rows hold, the one with the most energy first.

    Args:
        gradient: What the hospital's answer says about the planted layer.
        args: The planted model's arguments; not needed.
        weights: Its weights; not needed.
        expectation: What the public images say about a record's gradient.
    """
    energy = torch.cat([expectation.energy, torch.tensor([expectation.factor_energy], dtype=torch.float64)])
    noise = gradient.noise_std**2
    metric = discriminating_metric(energy, noise)
    gram = _inner_products(gradient, metric)
    gram.diagonal().sub_(noise * float(metric.sum()))
    mixture = unmix(gram, doubt(energy, noise, metric, expectation, rows=len(gram)), most=_most(expectation))
    combine = mixture.weights()
    counts = mixture.active.sum(dim=0)
    scores = counts * ((combine @ gram) * combine).sum(dim=1)
    order = torch.argsort(scores, descending=True, stable=True)
    combine, counts = combine[order], counts[order]
    std = gradient.noise_std * combine.square().sum(dim=1).sqrt()
    return Measured(
        codes=combine @ gradient.rows,
        factors=settle_factors(combine @ gradient.bias, 1 / std.square(), counts, expectation),
        noise_std=std,
        scores=scores[order],
        members=mixture.active[:, order].T > 0,
    )


def discriminating_metric(energy: Tensor, noise: float) -> Tensor:
    """What each coordinate counts in the inner products that tell records apart, float64 (D + 1,).

    A row is matched against a record among other records and noise, which have variance energy_j + noise in coordinate
    j: the matched filter divides by that. The record it is matched against was itself measured in noise, and its Wiener
    estimate has the factor energy_j / (energy_j + noise).
    """
    energy = energy.clamp(min=_FAINTEST * float(energy.max()))
    return energy / (energy + noise).square()


def doubt(energy: Tensor, noise: float, metric: Tensor, expectation: Expectation, *, rows: int) -> Doubt:
    """The noise in the inner products of n rows.

    Of two rows of noise the product has the standard deviation sqrt(sum_j (noise * metric_j)^2), of one row with itself
    sqrt(2) times that. The energy from which a row counts as occupied goes by the odds: with B records among n rows, so
    many standard deviations, sqrt(2 log(n / B)), as noise alone exceeds in one of n / B rows or fewer. In little noise
    that asks for next to nothing, and a clipped record's rows are never that faint beside the others'.
    """
    if noise == 0:
        return Doubt(0.0, 0.0, 0.0)
    spread = math.sqrt(float((noise * metric).square().sum()))
    odds = max(math.log(rows / expectation.expected_records), 0.0)
    # The log-odds against a record's being in a row, in units of a matched filter's noise.
    activity = min(max(expectation.activity, 1 / rows), 0.5)
    unit = float((noise * metric.square() * energy).sum() / (metric * energy).sum())
    return Doubt(
        spread=spread,
        floor=max(math.sqrt(2) * spread * math.sqrt(2 * odds), _FAINTEST_ROW * float((metric * energy).sum())),
        penalty=2 * math.log((1 - activity) / activity) * unit,
    )


def _inner_products(gradient: PlantedGradient, metric: Tensor) -> Tensor:
    """float64 (n, n), of rows with their biases."""
    gram = metric[-1] * torch.outer(gradient.bias, gradient.bias)
    for rows, weights in zip(
        gradient.rows.split(_COLUMNS_AT_ONCE, dim=1), metric[:-1].split(_COLUMNS_AT_ONCE), strict=True
    ):
        gram += (rows * weights) @ rows.T
    return gram


def _most(expectation: Expectation) -> int:
    """How many records to look for at most: far more than a Poisson batch ever has."""
    return math.ceil(4 * expectation.expected_records) + 32
