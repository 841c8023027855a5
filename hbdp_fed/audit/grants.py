"""What a perfect algorithm is granted in a simulation: everything about a record's step but the record.

The one door through which truth reaches an attack. It is open to the threat models that say so, and what goes through
it is :class:`hbdp_fed.types.StepKnowledge`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hbdp_fed.dpsgd import clipped_record_gradients, record_loss
from hbdp_fed.dpsgd.clipping import trainable
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.types import Observation, StepKnowledge


@dataclass(frozen=True)
class GrantedRecord:
    """One record of the step with the observation that an adversary makes of it.

    Attributes:
        observation: With the knowledge granted.
        image: float32 (C, *spatial), what its gradient is about: the mean of its views.
        clipped: Whether its gradient reached the clipping norm.
        scale: What its clipped gradient counts in the sum that was seen.
    """

    observation: Observation
    image: Tensor
    clipped: bool
    scale: float


def grant_step_knowledge(
    observation: Observation,
    images: Tensor,
    labels: Tensor,
    *,
    scales: Sequence[float],
    multiplicity: int,
    max_physical_batch: int,
) -> Iterator[GrantedRecord]:
    """One observation for every record of a step, each with what its adversary is granted.

    Args:
        observation: What was seen of the step, of a threat model with a perfect algorithm.
        images: float32 (b * K, C, *spatial), the views of all records in the step, of all hospitals that were seen.
        labels: Of the views.
        scales: b numbers: what each record's clipped gradient counts in the sum that was seen.
        multiplicity: K.
        max_physical_batch: Rows differentiated at once.
    """
    model = build_model(observation.architecture)
    load_weights(model, observation.model_before)
    public = observation.public
    clip = public.mechanism.max_grad_norm
    own = clipped_record_gradients(
        model.train(),
        images,
        labels,
        max_grad_norm=clip,
        max_physical_batch=max_physical_batch,
        multiplicity=multiplicity,
        loss=record_loss(public.loss, public.class_weights),
    ).double()
    own *= torch.tensor(scales, dtype=torch.float64)[:, None]
    total = own.sum(dim=0)
    shapes = {name: value.shape for name, value in trainable(model).items()}
    seen = images.unflatten(0, (-1, multiplicity)).mean(dim=1).double()
    for gradient, image, scale in zip(own, seen, scales, strict=True):
        pixels = image.flatten()
        energy = float(pixels.square().sum())
        factor = float(gradient[: len(pixels)] @ pixels) / energy if energy else 0.0
        others = {
            name: part.reshape(shape)
            for (name, shape), part in zip(
                shapes.items(), (total - gradient).split([shape.numel() for shape in shapes.values()]), strict=True
            )
        }
        yield GrantedRecord(
            observation=replace(observation, knowledge=StepKnowledge(others=others, factor=factor)),
            image=image.float(),
            clipped=bool(gradient.norm() >= scale * clip * (1 - 1e-4)),
            scale=scale,
        )
