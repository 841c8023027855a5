"""The model registry: from a specification to a module, and how its weights start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from hbdp_fed.errors import SettingError, unknown_choice
from hbdp_fed.models.cnn import SmallCnn
from hbdp_fed.models.imprint import ImprintModel
from hbdp_fed.types import ModelSpec, Weights


def _build_imprint(*, base: Mapping[str, Any], **settings: Any) -> ImprintModel:
    """An imprint model around ``base``, which is another model's specification as a mapping (``name``, ``args``)."""
    return ImprintModel(build_model(ModelSpec(base["name"], base["args"])), **settings)


MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "cnn": SmallCnn,
    "imprint": _build_imprint,
}
"""Builders by name. Each takes ``in_channels`` and ``num_classes``, and keywords of its own with defaults."""


def build_model(spec: ModelSpec) -> nn.Module:
    """An untrained module for ``spec``, on the CPU, in training mode, its weights left at PyTorch's defaults.

    Raises:
        SettingError: if the name is unknown or the builder refuses an argument.
    """
    if spec.name not in MODELS:
        raise unknown_choice("model", spec.name, MODELS)
    try:
        return MODELS[spec.name](**spec.args)
    except (TypeError, ValueError) as error:
        raise SettingError(f"model.{spec.name}", str(error)) from error


def initial_weights(model: nn.Module, generator: torch.Generator) -> Weights:
    """Fresh weights from ``generator`` alone, whatever the global random state is.

    Convolutions and linear layers start from He's normal initialisation (He et al. 2015) with zero biases, affine
    normalisation at weight 1 and bias 0. Other parameters raise, so that none starts from an unseeded draw.

    Returns:
        float32 tensors by parameter name.
    """
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not own:
            continue
        weight, bias = own.pop("weight", None), own.pop("bias", None)
        if own:
            raise ValueError(f"no rule to initialise {', '.join(own)} of '{name}' ({type(module).__name__})")
        with torch.no_grad():
            if weight is not None and weight.dim() > 1:
                nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
            elif weight is not None:
                weight.fill_(1.0)
            if bias is not None:
                bias.zero_()
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def load_weights(model: nn.Module, weights: Weights) -> None:
    """Copy ``weights`` into ``model`` in the model's own precision; names and shapes must agree exactly."""
    parameters = dict(model.named_parameters())
    if parameters.keys() != weights.keys():
        differing = sorted(parameters.keys() ^ weights.keys())
        raise ValueError(f"these parameters are on one side only: {', '.join(differing)}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != weights[name].shape:
                raise ValueError(f"{name} has shape {tuple(parameter.shape)}, not {tuple(weights[name].shape)}")
            parameter.copy_(weights[name])
