"""Convolutions and transposed convolutions in one to three dimensions.

Both are told by the same two tensors: the one that the kernel moves over (``inputs``), and the one that has a value for
each of its positions (``errors``). In a convolution these are the layer's input and the gradient of its output; in a
transposed convolution the other way round, and the weight's gradient is the same function of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from hbdp_fed.dpsgd.layers.contribution import (
    Contribution,
    Ghost,
    PerRecord,
    Widener,
    at_least_float32,
    norms_squared,
    weigh_rows,
)
from hbdp_fed.dpsgd.layers.cost import gram_is_cheaper
from hbdp_fed.dpsgd.layers.gram import Geometry, by_group, convolution_norms, shifted_inputs
from hbdp_fed.dpsgd.layers.rule import Call, LayerRule, Saved, as_computed, parameter

_CHUNK_WEIGHTS = 2**19
"""Gradients of so many weights are computed at once on a CPU: what its cache holds until their norms are taken."""

AnyConv = nn.Conv1d | nn.Conv2d | nn.Conv3d
AnyTransposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


def pad_explicitly(layer: AnyConv, inputs: Tensor) -> Tensor:
    """Padding that a convolution cannot do by itself: other values than zeros, or unequal sides."""
    if layer.padding_mode == "zeros" and not _has_unequal_sides(layer):
        return inputs
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return functional.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)


def _has_unequal_sides(layer: AnyConv) -> bool:
    sides = layer._reversed_padding_repeated_twice
    return any(before != after for before, after in zip(sides[::2], sides[1::2], strict=True))


def geometry_of(layer: AnyConv) -> Geometry:
    """How a convolution's kernel moves, after :func:`pad_explicitly`."""
    sides = layer._reversed_padding_repeated_twice
    padded_already = layer.padding_mode != "zeros" or _has_unequal_sides(layer)
    return Geometry(
        kernel=tuple(layer.kernel_size),
        stride=tuple(layer.stride),
        padding=tuple(0 if padded_already else before for before in reversed(sides[::2])),
        dilation=tuple(layer.dilation),
        groups=layer.groups,
    )


def _transposed_geometry(layer: AnyTransposed) -> Geometry:
    return Geometry(
        kernel=tuple(layer.kernel_size),
        stride=tuple(layer.stride),
        padding=tuple(int(p) for p in layer.padding),
        dilation=tuple(layer.dilation),
        groups=layer.groups,
    )


def convolve(inputs: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """The convolution itself, in any dimension."""
    none = [0] * len(geometry.kernel)
    return torch.convolution(
        inputs,
        weight,
        bias,
        list(geometry.stride),
        list(geometry.padding),
        list(geometry.dilation),
        False,
        none,
        geometry.groups,
    )


def _forward(layer: AnyConv, inputs: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Saved]:
    inputs = as_computed(inputs, dtype)
    weight, bias = parameter(layer, "weight", dtype), parameter(layer, "bias", dtype)
    assert weight is not None
    return convolve(inputs, weight, bias, geometry_of(layer)), (inputs,)


def _backward(
    layer: AnyConv, saved: Saved, grad: Tensor, call: Call
) -> tuple[Tensor | None, Mapping[str, Contribution]]:
    (inputs,) = saved
    grad, geometry = grad.contiguous(), geometry_of(layer)
    weight = layer.weight.detach().to(grad.dtype)
    contributions = _contributions(inputs, grad, weight, geometry, call, outputs_grad=grad)
    return input_gradient(inputs, grad, weight, geometry) if call.need_input else None, contributions


def _transposed_forward(
    layer: AnyTransposed, inputs: Tensor, dtype: torch.dtype | None, output_size: list[int] | None = None
) -> tuple[Tensor, Saved]:
    inputs, geometry = as_computed(inputs, dtype), _transposed_geometry(layer)
    stride, padding, dilation = list(geometry.stride), list(geometry.padding), list(geometry.dilation)
    output_padding = layer._output_padding(
        inputs, output_size, stride, padding, list(geometry.kernel), len(stride), dilation
    )
    weight, bias = parameter(layer, "weight", dtype), parameter(layer, "bias", dtype)
    assert weight is not None
    outputs = torch.convolution(inputs, weight, bias, stride, padding, dilation, True, output_padding, geometry.groups)
    return outputs, (inputs,)


def _transposed_backward(
    layer: AnyTransposed, saved: Saved, grad: Tensor, call: Call
) -> tuple[Tensor | None, Mapping[str, Contribution]]:
    (inputs,) = saved
    grad, geometry = grad.contiguous(), _transposed_geometry(layer)
    weight = layer.weight.detach().to(grad.dtype)
    contributions = _contributions(grad, inputs, weight, geometry, call, outputs_grad=grad)
    # The gradient of a transposed convolution's input is the convolution of the output's gradient.
    return convolve(grad, weight, None, geometry) if call.need_input else None, contributions


def _contributions(
    inputs: Tensor, errors: Tensor, weight: Tensor, geometry: Geometry, call: Call, *, outputs_grad: Tensor
) -> dict[str, Contribution]:
    """Weight and bias, of those that are trained. The bias belongs to the layer's output in either kind."""
    contributions: dict[str, Contribution] = {}
    if "weight" in call.trainable:
        contributions["weight"] = weight_contribution(inputs, errors, weight, geometry, call)
    if "bias" in call.trainable:
        contributions["bias"] = bias_contribution(outputs_grad, call)
    return contributions


def input_gradient(inputs: Tensor, errors: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """The gradient of a convolution's input."""
    return _differentiate(inputs, errors, weight, geometry, (True, False, False))[0]


def weight_gradient(inputs: Tensor, errors: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """The gradient of the weight, summed over all rows. Of ``weight`` only the shape is used."""
    return _differentiate(inputs, errors, weight, geometry, (False, True, False))[1]


def _differentiate(
    inputs: Tensor, errors: Tensor, weight: Tensor, geometry: Geometry, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    none = [0] * len(geometry.kernel)
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        errors, inputs, weight, None, geometry.stride, geometry.padding, geometry.dilation, False, none,
        geometry.groups, wanted,
    )  # fmt: skip
    return found


def weight_contribution(inputs: Tensor, errors: Tensor, weight: Tensor, geometry: Geometry, call: Call) -> Contribution:
    """The weight's contribution, by whichever way is cheaper for a layer of this shape."""
    wide = at_least_float32(inputs.dtype)
    if not call.keep and use_gram(inputs, errors, weight, geometry, call.records):
        squared = convolution_norms(inputs.to(wide), errors.to(wide), records=call.records, geometry=geometry)
        return Ghost(squared.double().clamp(min=0), lambda f: weighted_gradient(inputs, errors, weight, geometry, f))
    return kept_contribution(inputs, errors, weight, geometry, call.records)


def kept_contribution(inputs: Tensor, errors: Tensor, weight: Tensor, geometry: Geometry, records: int) -> PerRecord:
    """Every record's gradient of the weight, with norms that are taken while the gradients lie in the cache."""
    chunks, squared, widen = [], [], Widener()
    for chunk in per_record_gradients(inputs, errors, weight, geometry, records):
        chunks.append(chunk)
        squared.append(norms_squared(widen(chunk)))
    return PerRecord(chunks, torch.cat(squared))


def use_gram(inputs: Tensor, errors: Tensor, weight: Tensor, geometry: Geometry, records: int) -> bool:
    """Whether Gram matrices beat per-record gradients here. Depends on shapes alone, or reruns would differ."""
    views = len(errors) // records
    return gram_is_cheaper(
        device=errors.device.type,
        dtype=errors.dtype,
        weights=weight.numel(),
        positions=views * errors[0, 0].numel(),
        pixels=views * inputs[0, 0].numel() if geometry.unit_stride else None,
        channels=(inputs.shape[1], errors.shape[1]),
        kernel=geometry.kernel,
        groups=geometry.groups,
    )


def weighted_gradient(inputs: Tensor, errors: Tensor, weight: Tensor, geometry: Geometry, factors: Tensor) -> Tensor:
    """The weight gradient summed over records, each weighted with its factor (b,), in float32 or better."""
    wide = at_least_float32(inputs.dtype)
    # The smaller of the two takes the factors: it has to be copied for them.
    if inputs.numel() < errors.numel():
        inputs, errors = weigh_rows(inputs, factors), errors.to(wide)
    else:
        inputs, errors = inputs.to(wide), weigh_rows(errors, factors)
    return weight_gradient(inputs, errors, weight.to(wide), geometry)


def per_record_gradients(
    inputs: Tensor, errors: Tensor, weight: Tensor, geometry: Geometry, records: int
) -> Iterator[Tensor]:
    """Every record's weight gradient, summed over its views, in chunks (m, *shape of the weight)."""
    if errors.is_cuda:
        yield gradients_by_offsets(inputs, errors, weight, geometry, records)
        return
    views = len(errors) // records
    chunk = max(1, _CHUNK_WEIGHTS // weight.numel()) * views
    for some_inputs, some_errors in zip(inputs.split(chunk), errors.split(chunk), strict=True):
        yield gradients_by_groups(some_inputs, some_errors, weight, geometry, len(some_errors) // views)


def gradients_by_groups(inputs: Tensor, errors: Tensor, weight: Tensor, geometry: Geometry, records: int) -> Tensor:
    """One ordinary weight gradient of a convolution in which every record is a group of channels: (b, *shape).

    On a CPU nothing is as fast as its convolution library, and it wants to be called seldom.
    """
    if records == 1:
        return weight_gradient(inputs, errors, weight, geometry).unsqueeze(0)
    grouped = replace(geometry, groups=geometry.groups * records)
    like = weight.new_empty(1).expand(records * weight.shape[0], *weight.shape[1:])
    joined = weight_gradient(_as_channels(inputs, records), _as_channels(errors, records), like, grouped)
    return joined.view(records, *weight.shape)


def _as_channels(tensor: Tensor, records: int) -> Tensor:
    """(b * K, channels, *spatial) as (K, b * channels, *spatial)."""
    joined: Tensor = tensor.unflatten(0, (records, -1)).transpose(0, 1).flatten(1, 2)
    return joined


def gradients_by_offsets(inputs: Tensor, errors: Tensor, weight: Tensor, geometry: Geometry, records: int) -> Tensor:
    """One batched matrix product an offset of the kernel: a GPU would idle between the calls of single records."""
    groups = geometry.groups
    e = by_group(errors, records, groups)
    flat = e.flatten(start_dim=2)
    parts = [
        flat @ pixels.flatten(start_dim=2).transpose(1, 2)
        for pixels in shifted_inputs(by_group(inputs, records, groups), e.shape[3:], geometry)
    ]
    # (b * groups, out / groups, in / groups, offsets): the weight's own order once groups and outputs are joined.
    return torch.stack(parts, dim=-1).reshape(records, *weight.shape)


def bias_contribution(errors: Tensor, call: Call) -> PerRecord:
    """The bias sees every position: (b, channels)."""
    summed = errors.flatten(start_dim=2).sum(dim=2) if errors.dim() > 2 else errors
    return PerRecord.of(summed.unflatten(0, (call.records, -1)).sum(dim=1))


CONVOLUTION = LayerRule(forward=_forward, backward=_backward, prepare=pad_explicitly)
TRANSPOSED = LayerRule(forward=_transposed_forward, backward=_transposed_backward)
