"""What a hospital reads off a model before it trains on it: its weights, and where reference images' gradients go.

The check costs no privacy: it looks at public or synthetic images that the hospital holds beside its patients' records.
Whether it refuses says something about what it looked at. Nothing here takes a patient's record.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hbdp_fed.dpsgd import clipped_record_gradients, record_loss
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.types import ModelSpec, Weights

_AT_ONCE = 8
_MOST_NUMBERS = 2**26
"""How many images are differentiated at once, and how many numbers their gradients are: a quarter of a gigabyte."""

MULTILABEL = "binary_cross_entropy"
"""The loss whose labels are one number a finding."""


@dataclass(frozen=True)
class References:
    """Images that a hospital tries models on, none of them a patient's of its own.

    Attributes:
        images: float32 (R, C, *spatial) in [0, 1], public or synthetic, R at least 2: a few dozen.
        labels: int64 (R,), (R, K) or (R, *spatial), as the task has them; made up where nobody knows them.
        loss: What is trained on, a key of :data:`hbdp_fed.dpsgd.LOSSES`.

    Raises:
        ValueError: if there are fewer than two images, or not as many labels.
    """

    images: Tensor
    labels: Tensor
    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        if len(self.images) < 2:
            raise ValueError(f"a model is screened on at least 2 reference images, got {len(self.images)}")
        if len(self.labels) != len(self.images):
            raise ValueError(f"{len(self.images)} reference images have {len(self.labels)} labels")


@dataclass(frozen=True)
class Look:
    """A model as the measures see it.

    Attributes:
        weights: Its parameters by name, as they came.
        energies: By parameter, float64 (R, n): of each reference image's gradient the squared norm in each of the n
            rows of the parameter's first axis.
    """

    weights: Weights
    energies: Mapping[str, Tensor]


def look_at(architecture: ModelSpec, weights: Weights, references: References, *, seed: int) -> Look:
    """Differentiate a model on the reference images, each by itself.

    Each image gets a label that the model does not predict, drawn at random from the others. With its true label a
    model that is sure and right has no gradient at all, and a planted layer would be silent with it.

    Args:
        architecture: The model.
        weights: Its weights, finite.
        references: What to try it on.
        seed: Of the labels; a hospital keeps it to itself.
    """
    model = build_model(architecture)
    load_weights(model, weights)
    # Without dropout: the same model gives the same figures, and no global random state is touched.
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    size = sum(value.numel() for value in weights.values())
    few = min(max(_MOST_NUMBERS // size, 1), _AT_ONCE)
    parts = [_energies_of(model, images, references.loss, generator) for images in references.images.split(few)]
    energies = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Look(weights=weights, energies=energies)


def unpredicted_labels(logits: Tensor, loss: str, generator: torch.Generator) -> Tensor:
    """For each answer one that the model does not give, int64 (b,), (b, K) or (b, *spatial).

    Args:
        logits: (b, K) or (b, K, *spatial).
        loss: A key of :data:`hbdp_fed.dpsgd.LOSSES`: whether classes exclude each other.
        generator: Draws among the classes that are not predicted.
    """
    if loss == MULTILABEL:
        return (logits < 0).long()
    predicted, classes = logits.argmax(dim=1), logits.shape[1]
    if classes < 2:
        return torch.zeros_like(predicted)
    return (predicted + torch.randint(1, classes, predicted.shape, generator=generator)) % classes


def _energies_of(model: nn.Module, images: Tensor, loss: str, generator: torch.Generator) -> dict[str, Tensor]:
    with torch.no_grad():
        labels = unpredicted_labels(model(images), loss, generator)
    gradients = clipped_record_gradients(
        model, images, labels, max_grad_norm=math.inf, max_physical_batch=_AT_ONCE, loss=record_loss(loss)
    )
    energies, place = {}, 0
    for name, parameter in model.named_parameters():
        part = gradients[:, place : place + parameter.numel()].double()
        place += parameter.numel()
        rows = parameter.shape[0] if parameter.dim() else 1
        # A gradient that overflowed is clipped to nothing by DP-SGD, too.
        energies[name] = part.reshape(len(images), rows, -1).square().sum(dim=2).nan_to_num(0.0, 0.0, 0.0)
    return energies
