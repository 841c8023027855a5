"""The model registry: from a specification to a module, and how its weights start."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hbdp_fed.errors import SettingError, unknown_choice
from hbdp_fed.models.cnn import SmallCnn
from hbdp_fed.models.dp_ready import Replacement
from hbdp_fed.models.linear_probe import LinearProbeModel
from hbdp_fed.models.mlp import Mlp
from hbdp_fed.models.monai_nets import build_monai_net, converted_monai_net
from hbdp_fed.models.monai_unet import build_monai_unet
from hbdp_fed.models.planted import PlantedModel
from hbdp_fed.models.resnet9 import ResNet9
from hbdp_fed.models.unet import build_unet
from hbdp_fed.types import ModelSpec, Weights


def _build_planted(*, base: Mapping[str, Any], **settings: Any) -> PlantedModel:
    """A planted model around ``base``, which is another model's specification as a mapping (``name``, ``args``)."""
    return PlantedModel(build_model(ModelSpec(base["name"], base["args"])), **settings)


MONAI = "monai"
"""The model that stands for any net of MONAI's."""

MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "cnn": SmallCnn,
    "linear_probe": LinearProbeModel,
    "mlp": Mlp,
    MONAI: build_monai_net,
    "monai_unet": build_monai_unet,
    "planted": _build_planted,
    "resnet9": ResNet9,
    "unet": build_unet,
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


def title_of(spec: ModelSpec) -> str:
    """What people call a model: its name, and which net where the name stands for many (``monai.DenseNet121``)."""
    return f"{spec.name}.{spec.args.get('net')}" if spec.name == MONAI else spec.name


def replaced_in(spec: ModelSpec) -> tuple[Replacement, ...]:
    """What :func:`build_model` changes of the net that ``spec`` names, so that it can be clipped per record.

    The project's own models are made for it and nothing is changed in them.

    Raises:
        SettingError: as :func:`build_model`.
    """
    return converted_monai_net(**spec.args).replaced if spec.name == MONAI else ()


def fitting_spec(
    name: str, *, in_channels: int, num_classes: int, image_size: Sequence[int], settings: Mapping[str, Any]
) -> ModelSpec:
    """The specification of a model for images of this kind.

    Args:
        name: A key of :data:`MODELS`.
        in_channels: Of the images.
        num_classes: Of the answers.
        image_size: The sides: two of images, three of volumes.
        settings: The builder's own keywords.

    Raises:
        SettingError: if the name is unknown, or the model takes images and there are volumes.
    """
    if name not in MODELS:
        raise unknown_choice("model", name, MODELS)
    args: dict[str, Any] = {"in_channels": in_channels, "num_classes": num_classes, **settings}
    spatial_dims, takes = len(image_size), inspect.signature(MODELS[name]).parameters
    if "image_size" in takes:
        args["image_size"] = list(image_size)
    if "spatial_dims" in takes:
        args["spatial_dims"] = spatial_dims
    elif spatial_dims != 2:
        raise SettingError("model", f"{name} takes images, but these are volumes")
    return ModelSpec(name=name, args=args)


_Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
_Embedding = nn.Embedding | nn.EmbeddingBag
_Norm = nn.LayerNorm | nn.RMSNorm

_ADDED = ("relative_position_bias_table", "position_embeddings", "cls_token")
"""What transformers add to their inputs or scores, by the names that MONAI has for it."""
_ADDED_STD = 0.02


def _transposed_fan_in(layer: _Transposed) -> float:
    """How many inputs an output of a transposed convolution sums, on average over the output's positions.

    Not what PyTorch takes for it from the weight's shape (in, out / groups, *kernel), which is how many outputs an
    input reaches.
    """
    # With a stride as long as the kernel or longer, an output that is reached at all is reached once a channel.
    reach = math.prod(max(1.0, k / s) for k, s in zip(layer.kernel_size, layer.stride, strict=True))
    return layer.in_channels / layer.groups * reach


def _start_weight(module: nn.Module, weight: Tensor, generator: torch.Generator) -> None:
    """Set what ``module`` calls its weight, by the rules of :func:`initial_weights`."""
    if isinstance(module, nn.PReLU):
        weight.fill_(module.init)
    elif isinstance(module, _Embedding):
        weight.normal_(generator=generator)
        if module.padding_idx is not None:
            weight[module.padding_idx] = 0.0
    elif isinstance(module, _Transposed):
        weight.normal_(0.0, math.sqrt(2.0 / _transposed_fan_in(module)), generator=generator)
    # A norm over several dimensions has a weight of as many, so the number of dimensions does not tell them apart.
    elif weight.dim() > 1 and not isinstance(module, _Norm):
        nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
    else:
        weight.fill_(1.0)


def initial_weights(model: nn.Module, generator: torch.Generator) -> Weights:
    """Fresh weights from ``generator`` alone, whatever the global random state is.

    Convolutions (standardised and transposed ones too) and linear layers start from He's normal initialisation (He et
    al. 2015) with zero biases, affine normalisation at weight 1 and bias 0. PReLU starts at the slope that it was built
    with (PyTorch's default is 0.25), an embedding from N(0, 1) with zeros for its padding. A transformer's
    class token and its table of positions start from N(0, 0.02^2) (Liu et al. 2021, arXiv 2103.14030). Other parameters
    raise, so that none starts from an unseeded draw. Draws follow the order of ``model.named_modules()``.

    Returns:
        float32 tensors by parameter name.

    Raises:
        ValueError: if a parameter has no rule.
    """
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not own:
            continue
        weight, bias = own.pop("weight", None), own.pop("bias", None)
        added = [own.pop(each) for each in _ADDED if each in own]
        if own:
            raise ValueError(f"no rule to initialise {', '.join(own)} of '{name}' ({type(module).__name__})")
        with torch.no_grad():
            for value in added:
                value.normal_(0.0, _ADDED_STD, generator=generator)
            if weight is not None:
                _start_weight(module, weight, generator)
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
