"""Planting a layer beside a base model: how loud it is, and what each class says of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.adversary.planted.code import Code
from hbdp_fed.types import ModelSpec, Weights

MODEL = "planted"
"""The name of the model in the registry."""


@dataclass(frozen=True)
class Loudness:
    """How the planted layer drowns the base.

    Attributes:
        gain: The largest readout weight, positive. The share of a record's gradient norm that the layer takes goes to 1
            as the gain grows.
        base_scale: Factor on the base's logits. 1 leaves the base as it is; 0 silences it, which frees the gradient
            from the base's confidence: where it predicts a record with certainty, dL/d(logits) underflows.
    """

    gain: float
    base_scale: float = 1.0


def loudnesses(gains: Sequence[float], *, max_grad_norm: float) -> list[Loudness]:
    """What to try, the least conspicuous first: these gains relative to the clipping norm, then the base silenced."""
    # A gradient below the clipping norm would leave some of the allowance unused.
    unit = max(max_grad_norm, 1.0) if math.isfinite(max_grad_norm) else 1.0
    heard = [Loudness(gain * unit) for gain in gains]
    return [*heard, Loudness(heard[-1].gain, base_scale=0.0)]


@dataclass(frozen=True)
class Layer:
    """A layer to plant.

    Attributes:
        weight: (rows, D), on u.
        bias: (rows,).
        ceiling: Where its rows saturate; None for a plain ReLU.
    """

    weight: Tensor
    bias: Tensor
    ceiling: float | None


def plant(
    base: ModelSpec, base_weights: Weights, code: Code, layer: Layer, loudness: Loudness
) -> tuple[ModelSpec, Weights]:
    """The malicious model around ``base``.

    Args:
        base: The model that the hospitals expect, with ``num_classes`` among its arguments.
        base_weights: Its current weights.
        code: What the layer gets to see.
        layer: The layer.
        loudness: How loud it is.

    Returns:
        A specification of the registry's ``planted`` model, and its weights (float32).
    """
    num_classes, rows = int(base.args["num_classes"]), len(layer.bias)
    weights = {f"base.{name}": value.detach().float().clone() for name, value in base_weights.items()}
    weights |= code.to_weights()
    weights["planted.weight"] = layer.weight.float()
    weights["planted.bias"] = layer.bias.float()
    weights["readout.weight"] = (loudness.gain * class_voices(num_classes))[:, None].expand(-1, rows).clone()
    channels, *sides = code.image_shape
    args = {
        "base": {"name": base.name, "args": dict(base.args)},
        "in_channels": channels,
        "num_classes": num_classes,
        "image_size": sides,
        "rows": rows,
        "ceiling": layer.ceiling,
        "base_scale": loudness.base_scale,
    }
    return ModelSpec(MODEL, args), weights


def class_voices(num_classes: int) -> Tensor:
    """What each class says in the readout, float32 (K,): -1 for the first half of the classes, 1 for the second.

    A record's factor is r = gain * (E_p[voice] - voice[label]) for the model's prediction p, the same in all its active
    rows. With two voices it is zero for no label, whatever the prediction, unless the model is certain. Graded voices
    would silence a class that lies in the middle of the others.
    """
    return torch.where(torch.arange(num_classes) < num_classes // 2, -1.0, 1.0)


def unplanted(architecture: ModelSpec, weights: Weights) -> tuple[ModelSpec, Weights]:
    """The base model inside a planted one, and its weights."""
    base = architecture.args["base"]
    inside = {name.removeprefix("base."): value for name, value in weights.items() if name.startswith("base.")}
    return ModelSpec(base["name"], base["args"]), inside
