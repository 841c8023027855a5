"""What is wrong with a model's architecture: it is not the one agreed to, or it has what honest models do not have."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.models.linear_probe import LinearProbeModel
from hbdp_fed.models.planted import PlantedModel
from hbdp_fed.types import ModelSpec, Weights

_FAR_MORE = 4
"""A layer on the whole image has far more rows than classes from so many times as many on."""

_AFFINE = 1e-4
"""What rounding leaves of the difference between an affine map of a middle and the middle of two images' maps."""

KNOWN = (PlantedModel, LinearProbeModel)
"""Models of the registry that are made to give images away."""


def structural_problems(
    architecture: ModelSpec, weights: Weights, images: Tensor, *, agreed: ModelSpec | None
) -> Iterator[str]:
    """What is wrong, in words.

    Args:
        architecture: What came.
        weights: Its weights.
        images: Reference images (R, C, *spatial), R at least 2.
        agreed: What was agreed to. None: nothing was, and the model is searched for what a planted one has: it is a
            known one, or holds a fully connected layer of far more rows than classes on the image or on an affine map
            of all of it, however that is written. A perceptron on pixels is such a model: it does give images away.
    """
    if agreed is not None and architecture != agreed:
        yield (
            f"the {agreed.name} is not built as was agreed to"
            if architecture.name == agreed.name
            else f"the model is a {architecture.name}, not the {agreed.name} that was agreed to"
        )
    try:
        model = build_model(architecture)
        load_weights(model, weights)
    except (SettingError, ValueError) as error:
        yield f"the model cannot be built: {error}"
        return
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        yield "its weights are not finite"
        return
    if agreed is None:
        yield from _suspicious_modules(model, images)


def _suspicious_modules(model: nn.Module, images: Tensor) -> Iterator[str]:
    for name, module in model.named_modules():
        if isinstance(module, KNOWN):
            yield f"{name or 'it'} is a {type(module).__name__}, which is made to give images away"
    rows, classes = _rows_on_image(model, images)
    for name, count in rows.items():
        if count > _FAR_MORE * classes:
            yield f"{name} is a layer of {count} rows on the whole image, for {classes} classes"


def _rows_on_image(model: nn.Module, images: Tensor) -> tuple[dict[str, int], int]:
    """The fully connected layers whose input is an affine map of the whole image, with their rows; and the classes."""
    first, second = images[:1], images[1:2]
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[name] = inputs[0].detach().double()

        return layers[name].register_forward_pre_hook(keep)

    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.in_features >= first.numel()
    }
    handles = [watch(name) for name in layers]
    model.eval()
    with torch.no_grad():
        # One pass, so that a layer's inputs for the two images and their middle lie beside each other.
        logits = model(torch.cat([first, second, (first + second) / 2]))
    for handle in handles:
        handle.remove()
    return {name: layers[name].out_features for name, value in seen.items() if _is_affine(value)}, logits.shape[1]


def _is_affine(values: Tensor) -> bool:
    """Whether a layer's inputs for two images and for their middle, (3, D), say that they are an affine map."""
    if values.dim() != 2 or len(values) != 3:
        return False
    largest = values.abs().max()
    return bool(largest > 0) and bool((values[2] - values[:2].mean(dim=0)).abs().max() <= _AFFINE * largest)
