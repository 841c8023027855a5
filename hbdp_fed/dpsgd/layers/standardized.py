"""Weight-standardised convolutions: the gradient of a standardised weight, carried on to the weight itself.

With v = (w - mean(w)) r, r = (var(w) + eps)^(-1/2) and d weights in an output channel, the chain rule takes a gradient
g of v to that of w, channel by channel:

    r (g - mean(g) - v (v . g) / d),    of squared norm    r^2 (|g|^2 - d mean(g)^2 - (2 - |v|^2 / d) (v . g)^2 / d).

The map is linear and the same for all records: sums are carried over once, and norms need three numbers a record and
channel: |g|^2, the sum of g, and v . g.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.dpsgd.layers.contribution import Contribution, Ghost, PerRecord, Widener, at_least_float32
from hbdp_fed.dpsgd.layers.conv import (
    bias_contribution,
    convolve,
    geometry_of,
    input_gradient,
    pad_explicitly,
    per_record_gradients,
    use_gram,
    weighted_gradient,
)
from hbdp_fed.dpsgd.layers.gram import Geometry, convolution_norms
from hbdp_fed.dpsgd.layers.rule import Call, LayerRule, Saved, as_computed, parameter
from hbdp_fed.models.standardized import (
    WeightStandardizedConv1d,
    WeightStandardizedConv2d,
    WeightStandardizedConv3d,
    standardization,
)

AnyStandardized = WeightStandardizedConv1d | WeightStandardizedConv2d | WeightStandardizedConv3d


@dataclass(frozen=True)
class _Standardization:
    """The chain rule above for one layer.

    Attributes:
        v: The standardised weight, (channels, d).
        scale: r, (channels,).
        mean_square: |v|^2 / d, (channels,).
    """

    v: Tensor
    scale: Tensor
    mean_square: Tensor

    @classmethod
    def of(cls, layer: AnyStandardized, standardized: Tensor, scale: Tensor) -> _Standardization:
        # |v|^2 / d = var / (var + eps), and r^2 is one over the denominator.
        return cls(standardized.flatten(start_dim=1), scale.flatten(), 1 - layer.eps * scale.flatten().square())

    def carry(self, gradients: Tensor) -> Tensor:
        """From gradients of the standardised weight to gradients of the weight, (..., *shape of the weight)."""
        v, scale = self.v.to(gradients.dtype), self.scale.to(gradients.dtype)
        g = gradients.reshape(-1, *v.shape)
        radial = torch.linalg.vecdot(g, v).unsqueeze(2) / v.shape[1]
        carried: Tensor = ((g - g.mean(dim=2, keepdim=True) - v * radial) * scale[:, None]).view(gradients.shape)
        return carried

    def squared_norms(self, squares: Tensor, sums: Tensor, radial: Tensor) -> Tensor:
        """The squared norms after :meth:`carry`, float64 (b,).

        Args:
            squares: The sum over channels of r^2 |g|^2, (b,).
            sums: r times the sum of g, (b, channels).
            radial: r times v . g, (b, channels).
        """
        d = self.v.shape[1]
        lost = sums.double().square() + (2 - self.mean_square.double()) * radial.double().square()
        return (squares.double() - lost.sum(dim=1) / d).clamp(min=0)


def _forward(layer: AnyStandardized, inputs: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Saved]:
    inputs = as_computed(inputs, dtype)
    standardized, scale = standardization(layer.weight.detach(), layer.eps)
    weight, bias = as_computed(standardized, dtype), parameter(layer, "bias", dtype)
    outputs = convolve(inputs, weight, bias, geometry_of(layer))
    return outputs, (inputs, standardized, scale)


def _backward(
    layer: AnyStandardized, saved: Saved, grad: Tensor, call: Call
) -> tuple[Tensor | None, Mapping[str, Contribution]]:
    inputs, standardized, scale = saved
    grad, geometry = grad.contiguous(), geometry_of(layer)
    weight = standardized.to(grad.dtype)
    contributions: dict[str, Contribution] = {}
    if "weight" in call.trainable:
        chain = _Standardization.of(layer, standardized, scale)
        if call.keep:
            gradients = per_record_gradients(inputs, grad, weight, geometry, call.records)
            contributions["weight"] = PerRecord.of(torch.cat([chain.carry(chunk) for chunk in gradients]))
        elif use_gram(inputs, grad, weight, geometry, call.records):
            contributions["weight"] = Ghost(
                _norms_by_gram(
                    chain,
                    inputs,
                    _exact_outputs(layer, inputs, standardized, geometry, call),
                    grad,
                    geometry,
                    call.records,
                ),
                lambda f: chain.carry(weighted_gradient(inputs, grad, weight, geometry, f)),
            )
        else:
            contributions["weight"] = _kept(chain, inputs, grad, weight, geometry, call.records)
    if "bias" in call.trainable:
        contributions["bias"] = bias_contribution(grad, call)
    return input_gradient(inputs, grad, weight, geometry) if call.need_input else None, contributions


def _kept(
    chain: _Standardization, inputs: Tensor, errors: Tensor, weight: Tensor, geometry: Geometry, records: int
) -> PerRecord:
    """Per-record gradients of the standardised weight, and the norms of what they become."""
    chunks, squared, widen = [], [], Widener()
    for chunk in per_record_gradients(inputs, errors, weight, geometry, records):
        chunks.append(chunk)
        # Now, while it lies in the cache.
        g, r = widen(chunk).view(-1, *chain.v.shape), chain.scale
        squares = (torch.linalg.vector_norm(g, dim=2) * r).double().square().sum(dim=1)
        squared.append(chain.squared_norms(squares, g.sum(dim=2) * r, torch.linalg.vecdot(g, chain.v) * r))
    return PerRecord(chunks, torch.cat(squared), finish=chain.carry)


def _exact_outputs(
    layer: AnyStandardized, inputs: Tensor, standardized: Tensor, geometry: Geometry, call: Call
) -> Tensor:
    """The layer's outputs without the bias, in float32 or better: rounded ones would give the norm of another sum."""
    if call.outputs is None or call.outputs.dtype != standardized.dtype:
        return convolve(inputs.to(standardized.dtype), standardized, None, geometry)
    if layer.bias is None:
        return call.outputs
    return call.outputs - layer.bias.detach().view(1, -1, *[1] * len(geometry.kernel))


def _norms_by_gram(
    chain: _Standardization, inputs: Tensor, outputs: Tensor, errors: Tensor, geometry: Geometry, records: int
) -> Tensor:
    """The squared norms without the gradients.

    The sum of g is the sum over positions of error times the sum of the patch there, v . g that of error times output.
    """
    wide = at_least_float32(inputs.dtype)
    inputs = inputs.to(wide)
    scaled = errors.to(wide) * chain.scale.view(1, -1, *[1] * len(geometry.kernel))
    ones = inputs.new_ones(geometry.groups, inputs.shape[1] // geometry.groups, *geometry.kernel)
    patch_sums = convolve(inputs, ones, None, geometry)  # (rows, groups, *positions)

    def over_positions(values: Tensor) -> Tensor:
        """Sum over positions and views of the scaled errors times values: (b, channels)."""
        by_row: Tensor = torch.linalg.vecdot(scaled.flatten(2), values.flatten(2))
        by_record: Tensor = by_row.unflatten(0, (records, -1)).sum(dim=1)
        return by_record

    return chain.squared_norms(
        convolution_norms(inputs, scaled, records=records, geometry=geometry),
        over_positions(patch_sums.repeat_interleave(errors.shape[1] // geometry.groups, dim=1)),
        over_positions(outputs),
    )


STANDARDIZED = LayerRule(forward=_forward, backward=_backward, prepare=pad_explicitly, wants_outputs=True)
