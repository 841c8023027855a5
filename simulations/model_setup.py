"""The model of a run: its architecture for this data set, a trial pass, and the weights that it starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from hbdp_fed.data import ImageDataset, as_floats
from hbdp_fed.dpsgd import RecordLoss, clipped_summer, record_loss
from hbdp_fed.errors import SettingError
from hbdp_fed.models import MONAI, build_model, fitting_spec, initial_weights, starting_weights, title_of
from hbdp_fed.seeding import generator
from hbdp_fed.training import LocalSettings, check_clippable
from hbdp_fed.types import ModelSpec, Weights
from simulations.schema import ModelConfig
from simulations.typed_path import typed_path

_MULTIPLES = (2, 4, 8, 16, 32, 64)


def architecture_for(model: ModelConfig, dataset: ImageDataset) -> ModelSpec:
    """What the settings ask for, with as many channels, classes and spatial dimensions as the data has."""
    return fitting_spec(
        model.name,
        in_channels=dataset.train.images.shape[1],
        num_classes=len(dataset.class_names),
        image_size=tuple(dataset.train.images.shape[2:]),
        settings=own_settings(model, ModelConfig),
    )


def check_model(architecture: ModelSpec, dataset: ImageDataset, local: LocalSettings, *, max_grad_norm: float) -> None:
    """Let one blank record pass through the model and back, as every hospital's will.

    Raises:
        SettingError: if the model does not take images of this size, does not answer what the data set asks, or cannot
            be clipped per record, or if the loss or its weights are for another task.
    """
    model = build_model(architecture)
    blank, labels = torch.zeros_like(as_floats(dataset.train.images[:1])), dataset.train.labels[:1]
    if local.class_weights is not None and len(local.class_weights) != len(dataset.class_names):
        raise SettingError(
            "training.class_weights",
            f"must be one number for each of {', '.join(dataset.class_names)}; got {len(local.class_weights)}",
        )
    loss = record_loss(local.loss, local.class_weights)
    try:
        outputs = _answer(model, blank)
        answers = outputs.shape[2:]
        wanted = blank.shape[2:] if dataset.task == "segmentation" else torch.Size()
        if answers != wanted:
            asked = "a class for every pixel: set model=unet" if wanted else "one answer an image: set model=resnet9"
            raise ValueError(f"the data set asks for {asked}")
        if outputs.shape[1] != len(dataset.class_names):
            raise ValueError(f"it gives {outputs.shape[1]} logits, and the data set has {len(dataset.class_names)}")
        _check_loss(local.loss, loss, outputs, labels, task=dataset.task)
        summer = clipped_summer(
            model,
            max_grad_norm=max_grad_norm,
            max_physical_batch=1,
            grad_mode=local.grad_mode,
            loss=loss,
        )
        summer(blank, labels)
    except (ValueError, RuntimeError) as error:
        problem = f"{title_of(architecture)} cannot be trained on {dataset.name}: {str(error).splitlines()[0]}"
        raise SettingError("model", problem + _taken_instead(architecture, blank)) from error


def _answer(model: nn.Module, blank: Tensor) -> Tensor:
    """What the model makes of a blank record, (1, K, ...).

    Raises:
        ValueError: if it makes anything else of it, or nothing.
    """
    try:
        with torch.no_grad():
            outputs = model(blank)
    except (TypeError, AttributeError, LookupError, AssertionError, ImportError) as error:
        raise ValueError(f"it does not take one batch of images alone ({error})") from error
    if not isinstance(outputs, Tensor) or outputs.dim() < 2:
        kind = f"a tensor of {outputs.dim()} axes" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise ValueError(f"it gives {kind}, not one tensor of a number for each record and class")
    return outputs


def _taken_instead(architecture: ModelSpec, blank: Tensor) -> str:
    """Sides that a net from elsewhere does take, the nearest above those that it was tried with; "" where none is."""
    if architecture.name != MONAI or _takes(architecture, blank.shape[1:]):
        return ""
    channels, *sides = blank.shape[1:]
    for multiple in _MULTIPLES:
        larger = [-(-side // multiple) * multiple for side in sides]
        spec = ModelSpec(architecture.name, {**architecture.args, "image_size": larger})
        if _takes(spec, (channels, *larger)):
            return f"; it takes images of {'x'.join(map(str, larger))} (data.image_size)"
    return ""


def _takes(architecture: ModelSpec, shape: Sequence[int]) -> bool:
    """Whether a model gives anything at all of images of this shape (C, *spatial)."""
    try:
        # Shapes alone: no memory is taken for the numbers.
        with torch.device("meta"), torch.no_grad():
            build_model(architecture)(torch.zeros(1, *shape))
    except (SettingError, ValueError, RuntimeError, TypeError, AttributeError, LookupError, ImportError):
        return False
    return True


def verify_model(architecture: ModelSpec, dataset: ImageDataset, local: LocalSettings) -> float | None:
    """As :func:`hbdp_fed.training.check_clippable`, for a data set's images and labels."""
    return check_clippable(
        architecture,
        local,
        task=dataset.task,
        image_shape=dataset.train.images.shape[1:],
        label_shape=dataset.train.labels.shape[1:],
    )


def _check_loss(name: str, loss: RecordLoss, outputs: Tensor, labels: Tensor, *, task: str) -> None:
    try:
        loss(outputs, labels)
    except (ValueError, RuntimeError) as error:
        problem = str(error).splitlines()[0]
        raise SettingError("training.loss", f"{name} does not suit a {task} task: {problem}") from error


def first_weights(architecture: ModelSpec, settings: ModelConfig, *, seed: int) -> tuple[Weights, tuple[str, ...]]:
    """The weights that training starts from: fresh ones, or those of ``model.weights``.

    Returns:
        float32 weights, and the names of those that are fresh though a file was given (``model.weights_partial``).

    Raises:
        UserError: if the file cannot be used for this model.
    """
    model = build_model(architecture)
    fresh = initial_weights(model, generator(seed, "initial-weights"))
    if settings.weights is None:
        return fresh, ()
    return starting_weights(
        model, typed_path("model.weights", settings.weights), fresh=fresh, partial=settings.weights_partial
    )


def own_settings(section: Any, base: type) -> Mapping[str, Any]:
    """The settings of a section that its base class does not have: those of this data set or model alone."""
    common = {item.name for item in fields(base)}
    return {item.name: getattr(section, item.name) for item in fields(section) if item.name not in common}
