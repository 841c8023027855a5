"""Layers with few weights: affine normalisation, PReLU, scaled cosine coefficients. Their gradients are always kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from hbdp_fed.dpsgd.layers.contribution import Contribution, PerRecord
from hbdp_fed.dpsgd.layers.rule import Call, LayerRule, Saved, as_computed, parameter
from hbdp_fed.models.planted import Spectrum, dct, inverse_dct

AnyInstanceNorm = nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d


def _kept(call: Call, **by_view: Tensor | None) -> dict[str, Contribution]:
    """Per-view gradients (b * K, *shape) as the contributions of the trainable parameters among them."""
    return {
        name: PerRecord.of(gradient.unflatten(0, (call.records, -1)).sum(dim=1))
        for name, gradient in by_view.items()
        if gradient is not None and name in call.trainable
    }


def _groups(layer: nn.GroupNorm | AnyInstanceNorm) -> int:
    """Instance normalisation is group normalisation with a group for each channel."""
    return layer.num_groups if isinstance(layer, nn.GroupNorm) else layer.num_features


def _weight_for(layer: nn.Module, inputs: Tensor, name: str) -> Tensor | None:
    """The CPU's kernels take float32 weights beside bfloat16 inputs and are the more exact for it; CUDA's do not."""
    return parameter(layer, name, inputs.dtype if inputs.is_cuda else None)


def _group_forward(
    layer: nn.GroupNorm | AnyInstanceNorm, inputs: Tensor, dtype: torch.dtype | None
) -> tuple[Tensor, Saved]:
    inputs = as_computed(inputs, dtype).contiguous()
    rows, channels = inputs.shape[:2]
    outputs, mean, rstd = torch.native_group_norm(
        inputs,
        _weight_for(layer, inputs, "weight"),
        _weight_for(layer, inputs, "bias"),
        rows,
        channels,
        inputs[0, 0].numel(),
        _groups(layer),
        layer.eps,
    )
    return outputs, (inputs, mean, rstd)


def _group_backward(
    layer: nn.GroupNorm | AnyInstanceNorm, saved: Saved, grad: Tensor, call: Call
) -> tuple[Tensor | None, Mapping[str, Contribution]]:
    """One call of PyTorch's own kernel, told that the batch is one row with rows * channels channels.

    Groups do not reach over rows, so the normalisation is the same, and the weight gradients, which the kernel sums
    over the rows of its batch, come out row by row.
    """
    inputs, mean, rstd = saved
    rows, channels = inputs.shape[:2]
    weight = _weight_for(layer, inputs, "weight")
    grad_inputs, grad_weight, grad_bias = torch.ops.aten.native_group_norm_backward(
        grad.contiguous().view(1, rows * channels, -1),
        inputs.view(1, rows * channels, -1),
        mean.view(1, -1),
        rstd.view(1, -1),
        None if weight is None else weight.repeat(rows),
        1,
        rows * channels,
        inputs[0, 0].numel(),
        rows * _groups(layer),
        (call.need_input, True, True),
    )
    contributions = _kept(call, weight=grad_weight.view(rows, channels), bias=grad_bias.view(rows, channels))
    return grad_inputs.view(inputs.shape) if call.need_input else None, contributions


def _layer_forward(layer: nn.LayerNorm, inputs: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Saved]:
    inputs = as_computed(inputs, dtype).contiguous()
    outputs, mean, rstd = torch.native_layer_norm(
        inputs,
        layer.normalized_shape,
        _weight_for(layer, inputs, "weight"),
        _weight_for(layer, inputs, "bias"),
        layer.eps,
    )
    return outputs, (inputs, mean, rstd)


def _layer_backward(
    layer: nn.LayerNorm, saved: Saved, grad: Tensor, call: Call
) -> tuple[Tensor | None, Mapping[str, Contribution]]:
    inputs, mean, rstd = saved
    grad = grad.contiguous()
    grad_inputs = None
    if call.need_input:
        grad_inputs = torch.ops.aten.native_layer_norm_backward(
            grad, inputs, layer.normalized_shape, mean, rstd,
            _weight_for(layer, inputs, "weight"), _weight_for(layer, inputs, "bias"), (True, False, False),
        )[0]  # fmt: skip
    normalised = (inputs - mean) * rstd
    # Axes between the row and the normalised ones are positions.
    positions = tuple(range(1, inputs.dim() - len(layer.normalized_shape)))
    by_view = {"weight": grad * normalised, "bias": grad}
    return grad_inputs, _kept(call, **{n: v.sum(dim=positions) if positions else v for n, v in by_view.items()})


def _prelu_forward(layer: nn.PReLU, inputs: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Saved]:
    inputs = as_computed(inputs, dtype)
    weight = parameter(layer, "weight", inputs.dtype)
    assert weight is not None
    return functional.prelu(inputs, weight), (inputs,)


def _prelu_backward(
    layer: nn.PReLU, saved: Saved, grad: Tensor, call: Call
) -> tuple[Tensor | None, Mapping[str, Contribution]]:
    (inputs,) = saved
    weight = layer.weight.detach().to(grad.dtype)
    shared = weight.numel() == 1
    by_channel = weight if shared else weight.view(1, -1, *[1] * (inputs.dim() - 2))
    # (rows, one weight or one a channel, everything else)
    slope = (grad * inputs.clamp(max=0)).reshape(len(inputs), 1 if shared else inputs.shape[1], -1)
    by_view = slope.sum(dim=2)
    grad_inputs = torch.where(inputs > 0, grad, grad * by_channel) if call.need_input else None
    return grad_inputs, _kept(call, weight=by_view)


def _spectrum_forward(layer: Spectrum, images: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Saved]:
    images = as_computed(images, dtype)
    coefficients = dct(images).flatten(start_dim=1)
    weight, bias = layer.weight.detach().to(images.dtype), layer.bias.detach().to(images.dtype)
    return coefficients * weight + bias, (coefficients, images)


def _spectrum_backward(
    layer: Spectrum, saved: Saved, grad: Tensor, call: Call
) -> tuple[Tensor | None, Mapping[str, Contribution]]:
    coefficients, images = saved
    grad_images = None
    if call.need_input:
        # The transform is orthonormal: its transpose is its inverse.
        grad_images = inverse_dct((grad * layer.weight.detach().to(grad.dtype)).view(images.shape))
    return grad_images, _kept(call, weight=grad * coefficients, bias=grad)


GROUP_NORM = LayerRule(forward=_group_forward, backward=_group_backward)
LAYER_NORM = LayerRule(forward=_layer_forward, backward=_layer_backward)
PRELU = LayerRule(forward=_prelu_forward, backward=_prelu_backward)
SPECTRUM = LayerRule(forward=_spectrum_forward, backward=_spectrum_backward)
