"""The planted layer's part of what a hospital released, and which rows a record activates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hbdp_fed.adversary.planted.code import in_chunks, read_code
from hbdp_fed.dpsgd.optimizers import first_gradient
from hbdp_fed.types import DpSgdParams, Observation, Weights

WEIGHT, BIAS = "planted.weight", "planted.bias"
"""The layer's parameters in :class:`hbdp_fed.models.planted.PlantedModel`."""


@dataclass(frozen=True)
class PlantedGradient:
    """The sum of the records' clipped gradients in the planted layer, plus noise. All float64, on the CPU.

    Attributes:
        rows: (n, D), each the sum of r * u over the records that activate the row.
        bias: (n,), each the sum of r.
        noise_std: Standard deviation of the noise in every coordinate, sigma * C; 0 without privacy.
    """

    rows: Tensor
    bias: Tensor
    noise_std: float

    def scaled(self, factor: float) -> PlantedGradient:
        """Everything so many times as large, the noise with it; the factor is positive."""
        return PlantedGradient(rows=self.rows * factor, bias=self.bias * factor, noise_std=self.noise_std * factor)


def planted_gradient(total: Weights, mechanism: DpSgdParams) -> PlantedGradient:
    """The planted layer's part of a noisy clipped sum ``total`` (not yet divided by the expected batch)."""
    private = mechanism.noise_multiplier > 0
    return PlantedGradient(
        rows=total[WEIGHT].double().cpu(),
        bias=total[BIAS].double().cpu(),
        # 0 times inf, the control's clipping norm, would be no number.
        noise_std=mechanism.noise_multiplier * mechanism.max_grad_norm if private else 0.0,
    )


def released_gradient(observation: Observation) -> PlantedGradient:
    """The same from what was released. Whatever the optimiser made of it: its first step can be undone."""
    public = observation.public
    planted = {name: observation.released.delta[name] for name in (WEIGHT, BIAS)}
    gradient = first_gradient(planted, observation.model_before, public.optimizer)
    return planted_gradient({n: value.mul_(public.expected_batch) for n, value in gradient.items()}, public.mechanism)


def active_rows(args: Mapping[str, Any], weights: Weights, images: Tensor) -> Tensor:
    """Which rows of a planted model pass a gradient for each image, bool (b, n), in float32 as a hospital computes.

    Args:
        args: The planted model's arguments.
        weights: Its weights.
        images: (b, C, *spatial).
    """
    code, ceiling = read_code(args, weights), args["ceiling"]
    levels = torch.cat(
        [functional.linear(code.encode(chunk).float(), weights[WEIGHT], weights[BIAS]) for chunk in in_chunks(images)]
    )
    return (levels > 0) if ceiling is None else (levels > 0) & (levels < float(ceiling))
