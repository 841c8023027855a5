"""What the engine needs to know about a type of layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hbdp_fed.dpsgd.layers.contribution import Contribution

Saved = tuple[Tensor, ...]


@dataclass(frozen=True)
class Call:
    """The backward pass through one use of a layer.

    Attributes:
        records: b; the rows of input and output are the b * K views, a record's K rows one after the other.
        trainable: The layer's own parameters that get a gradient, by their names in the layer.
        need_input: Whether the gradient of the input is wanted.
        keep: Whether per-record gradients must be given: of a layer that is used twice, only the gradients add up, not
            their norms.
        outputs: What the layer returned, if its rule asked for it and nobody has written over it since.
    """

    records: int
    trainable: Collection[str]
    need_input: bool
    keep: bool
    outputs: Tensor | None = None


@dataclass(frozen=True)
class LayerRule:
    """How a layer type computes and what it contributes.

    Attributes:
        forward: Maps the layer, its input and the precision to compute in (None: the layer's own) to its output and
            what its backward pass needs. Further arguments of the layer's forward follow.
        backward: Maps the layer, what was saved, the gradient of the output and the :class:`Call` to the gradient of
            the input (None where it is not wanted) and the contributions by the parameters' names in the layer.
        prepare: What happens to the input before, by ordinary differentiable operations (for example padding).
        supports: Whether the rule holds for a layer with just these options; other layers fall back to torch.func.
        wants_outputs: Whether the backward pass can use the layer's outputs. It has to do without them where an
            activation in place has overwritten them: what is only saved for speed must not make a model fail.
    """

    forward: Callable[..., tuple[Tensor, Saved]]
    backward: Callable[[Any, Saved, Tensor, Call], tuple[Tensor | None, Mapping[str, Contribution]]]
    prepare: Callable[[Any, Tensor], Tensor] = lambda _, inputs: inputs
    supports: Callable[[Any], bool] = lambda _: True
    wants_outputs: bool = False


def parameter(layer: nn.Module, name: str, dtype: torch.dtype | None) -> Tensor | None:
    """A layer's parameter, cut from autograd and in the precision to compute in; None if the layer has none."""
    value = getattr(layer, name)
    if value is None:
        return None
    tensor: Tensor = value.detach()
    return tensor if dtype is None else tensor.to(dtype)


def as_computed(inputs: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The input in the precision to compute in."""
    return inputs if dtype is None else inputs.to(dtype)
