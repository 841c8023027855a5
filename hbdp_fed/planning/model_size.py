"""The model that a consortium names: whether it takes such images, how many numbers it has, how it trains."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hbdp_fed.dpsgd.optimizers import OPTIMIZERS
from hbdp_fed.errors import SettingError, unknown_choice
from hbdp_fed.models import build_model, fitting_spec, title_of
from hbdp_fed.planning.consortium import Consortium, model_settings
from hbdp_fed.training import AUGMENTATIONS, PRECISIONS, LocalSettings
from hbdp_fed.training.tasks import task_called
from hbdp_fed.types import ModelSpec, OptimizerSettings


@dataclass(frozen=True)
class ModelSize:
    """A model and what travels of it.

    Attributes:
        architecture: The model.
        parameters: Numbers in it.
        tensors: Arrays that they come in.
    """

    architecture: ModelSpec
    parameters: int
    tensors: int


def model_size(consortium: Consortium) -> ModelSize:
    """Build the consortium's model without memory for its weights, and let a blank record pass through.

    Raises:
        SettingError: if the model is unknown, refuses a keyword, does not take images of this size, or does not answer
            what the task asks.
    """
    image, name = consortium.image, consortium.model.name
    spec = fitting_spec(
        name,
        in_channels=image.channels,
        num_classes=consortium.classes,
        image_size=image.size,
        settings=model_settings(consortium.model),
    )
    with torch.device("meta"):
        model = build_model(spec)
        try:
            with torch.no_grad():
                outputs = model(torch.zeros(1, *image.shape))
        except (RuntimeError, ValueError, TypeError, ImportError) as error:
            shape = "x".join(map(str, image.shape))
            raise SettingError("model", f"{name} does not take {shape} images: {str(error).splitlines()[0]}") from error
    if not isinstance(outputs, torch.Tensor):
        raise SettingError("model", f"{title_of(spec)} gives a {type(outputs).__name__}, not one tensor")
    wanted = image.size if consortium.task == "segmentation" else ()
    if tuple(outputs.shape[2:]) != wanted:
        asked = "a class for every pixel, as unet gives" if wanted else "one answer an image, as resnet9 and cnn give"
        raise SettingError("model", f"{name} does not suit the task {consortium.task}, which asks for {asked}")
    sizes = [parameter.numel() for parameter in model.parameters()]
    return ModelSize(spec, parameters=sum(sizes), tensors=len(sizes))


def local_settings(consortium: Consortium) -> LocalSettings:
    """How every hospital trains.

    Raises:
        SettingError: naming a setting that is unknown.
    """
    training = consortium.training
    for key, known in (("optimizer", OPTIMIZERS), ("precision", PRECISIONS), ("augmentation", AUGMENTATIONS)):
        if getattr(training, key) not in known:
            raise unknown_choice(f"training.{key}", getattr(training, key), known)
    return LocalSettings(
        optimizer=OptimizerSettings(name=training.optimizer, learning_rate=training.learning_rate or 0.1),
        augmentation=training.augmentation,
        loss=task_called(consortium.task).default_loss,
        multiplicity=training.multiplicity,
        precision=training.precision,
    )
