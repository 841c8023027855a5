"""Linear layers and embeddings: a weight that acts at every position of a record."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from hbdp_fed.dpsgd.layers.contribution import Contribution, Ghost, PerRecord, at_least_float32, weigh_rows
from hbdp_fed.dpsgd.layers.cost import gram_is_cheaper
from hbdp_fed.dpsgd.layers.gram import matrix_norms
from hbdp_fed.dpsgd.layers.rule import Call, LayerRule, Saved, as_computed, parameter


def _by_record(tensor: Tensor, records: int) -> Tensor:
    """(b * K, ..., c) as (b, T, c), T the positions of all of a record's views."""
    return tensor.reshape(records, -1, tensor.shape[-1])


def _forward(layer: nn.Linear, inputs: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Saved]:
    inputs = as_computed(inputs, dtype)
    weight, bias = parameter(layer, "weight", dtype), parameter(layer, "bias", dtype)
    assert weight is not None
    return functional.linear(inputs, weight, bias), (inputs,)


def _backward(
    layer: nn.Linear, saved: Saved, grad: Tensor, call: Call
) -> tuple[Tensor | None, Mapping[str, Contribution]]:
    (inputs,) = saved
    contributions: dict[str, Contribution] = {}
    a, e = _by_record(inputs, call.records), _by_record(grad, call.records)
    if "weight" in call.trainable:
        contributions["weight"] = _weight_contribution(a, e, call)
    if "bias" in call.trainable:
        contributions["bias"] = PerRecord.of(e.sum(dim=1))
    return grad @ layer.weight.detach().to(grad.dtype) if call.need_input else None, contributions


def _weight_contribution(inputs: Tensor, errors: Tensor, call: Call) -> Contribution:
    positions, channels = inputs.shape[1], (inputs.shape[2], errors.shape[2])
    # With one position the norm is a product of two norms, which nothing beats.
    use_gram = positions == 1 or gram_is_cheaper(
        device=errors.device.type,
        dtype=errors.dtype,
        weights=channels[0] * channels[1],
        positions=positions,
        pixels=positions,
        channels=channels,
        kernel=(),
        groups=1,
    )
    if call.keep or not use_gram:
        return PerRecord.of(errors.transpose(1, 2) @ inputs)
    wide = at_least_float32(inputs.dtype)
    squared = matrix_norms(inputs.to(wide), errors.to(wide)).double().clamp(min=0)

    def combine(factors: Tensor) -> Tensor:
        return weigh_rows(errors, factors).flatten(0, 1).T @ inputs.to(wide).flatten(0, 1)

    return Ghost(squared, combine)


def _embed(layer: nn.Embedding, indices: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, Saved]:
    weight = parameter(layer, "weight", dtype)
    assert weight is not None
    return functional.embedding(indices, weight), (indices,)


def _embed_backward(
    layer: nn.Embedding, saved: Saved, grad: Tensor, call: Call
) -> tuple[Tensor | None, Mapping[str, Contribution]]:
    (indices,) = saved
    ids = indices.reshape(call.records, -1)
    errors = _by_record(grad, call.records)
    if layer.padding_idx is not None:
        errors = errors * (ids != layer.padding_idx).unsqueeze(-1)
    if call.keep:
        kept = errors.new_zeros(call.records, *layer.weight.shape)
        kept.scatter_add_(1, ids.unsqueeze(-1).expand_as(errors), errors)
        return None, {"weight": PerRecord.of(kept)}
    wide = at_least_float32(errors.dtype)
    # Two positions share a row of the weight exactly if they look up the same index.
    same = (ids[:, :, None] == ids[:, None, :]).to(wide)
    products = errors.to(wide) @ errors.to(wide).transpose(1, 2)
    squared = (same * products).sum(dim=(1, 2)).double().clamp(min=0)

    def combine(factors: Tensor) -> Tensor:
        weighted = weigh_rows(errors, factors).flatten(0, 1)
        return weighted.new_zeros(layer.weight.shape).index_add_(0, ids.flatten(), weighted)

    return None, {"weight": Ghost(squared, combine)}


def _plain_look_up(layer: nn.Embedding) -> bool:
    """Whether the embedding only looks up: renormalising and counting over the batch would mix records."""
    return layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse


LINEAR = LayerRule(forward=_forward, backward=_backward)
EMBEDDING = LayerRule(forward=_embed, backward=_embed_backward, supports=_plain_look_up)
