"""What a hospital with these records would have released, differentiable in the images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hbdp_fed.adversary.gradient_inversion.smoothing import smoothed
from hbdp_fed.dpsgd import RecordLoss, record_loss, step_weights
from hbdp_fed.dpsgd.clipping import trainable
from hbdp_fed.dpsgd.optimizers import first_gradient
from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.types import Observation, PublicSideInformation

_TINY = 1e-30
"""Inside the root of a norm: the root's slope at 0 is no number."""


@dataclass(frozen=True)
class Cast:
    """Which dummy records enter which step.

    Attributes:
        steps: For each local step, the dummy records in it by number, unit by unit: all records of a unit are clipped
            as one.
        unit_size: Records of a unit.
    """

    steps: tuple[tuple[int, ...], ...]
    unit_size: int = 1

    @property
    def records(self) -> int:
        """How many dummy records there are."""
        return 1 + max(max(step) for step in self.steps)


def cast_dummies(public: PublicSideInformation, *, most_records: int) -> Cast:
    """As many dummy records as the hospital is expected to have drawn.

    Where every step draws every unit, it is the same records that come again and again; otherwise hardly any is drawn
    twice, and each step has dummies of its own.

    Args:
        public: What the adversary knows.
        most_records: In all steps together.
    """
    size = max(1, round(public.records_per_unit))
    again = public.mechanism.sample_rate >= 1
    room = max(1, most_records // (size if again else size * public.steps))
    count = min(max(1, round(public.expected_batch)), room) * size
    return Cast(
        steps=tuple(
            tuple(range(first, first + count))
            for first in (0 if again else step * count for step in range(public.steps))
        ),
        unit_size=size,
    )


@dataclass(frozen=True)
class Victim:
    """A hospital as the adversary imagines it: the model that was handed out, and what is announced of its training.

    A release of one step is taken for the sum of clipped gradients behind it, whatever the optimiser; one of several is
    the change of the weights.

    Attributes:
        model: In the precision and on the device of the search.
        loss: Of each record.
        public: The announced mechanism and optimiser.
        share: How many of the units that a step is expected to hold each dummy unit stands for.
    """

    model: nn.Module
    loss: RecordLoss
    public: PublicSideInformation
    share: float = 1.0
    parameters: dict[str, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", dict(trainable(self.model)))

    def smoothed(self, width: float) -> Victim:
        """The same with the corners of its model rounded."""
        return Victim(smoothed(self.model, width), self.loss, self.public, self.share)

    def release(self, images: Tensor, labels: Tensor, cast: Cast) -> list[Tensor]:
        """What it would release, in the order of the model's parameters; differentiable in ``images``.

        Args:
            images: (r, C, *spatial) of the cast's dummy records.
            labels: int64 (r,).
            cast: Which of them enter which step.
        """
        if self.public.steps == 1:
            members = list(cast.steps[0])
            total = self._clipped_sum(self.parameters, images[members], labels[members], cast.unit_size)
            return [self.share * value for value in total]
        return self._unrolled(images, labels, cast)

    def _unrolled(self, images: Tensor, labels: Tensor, cast: Cast) -> list[Tensor]:
        """The change of the weights over all local steps of SGD (Geiping et al. 2020, section 6)."""
        optimizer = self.public.optimizer
        rates = (optimizer.learning_rate, *self.public.later_rates)
        weights = dict(self.parameters)
        velocity = [torch.zeros_like(value) for value in weights.values()]
        for rate, step in zip(rates, cast.steps, strict=True):
            members = list(step)
            total = self._clipped_sum(weights, images[members], labels[members], cast.unit_size)
            scale = self.share / self.public.expected_batch
            gradient = [
                scale * value + optimizer.weight_decay * weight
                for value, weight in zip(total, weights.values(), strict=True)
            ]
            velocity = [optimizer.momentum * old + new for old, new in zip(velocity, gradient, strict=True)]
            weights = {
                name: weight - rate * moved for (name, weight), moved in zip(weights.items(), velocity, strict=True)
            }
        return [after - before for after, before in zip(weights.values(), self.parameters.values(), strict=True)]

    def _clipped_sum(self, weights: dict[str, Tensor], images: Tensor, labels: Tensor, unit_size: int) -> list[Tensor]:
        """The sum of the units' clipped gradients. Unit by unit: a clipping factor depends on the unit's own norm."""
        clip = self.public.mechanism.max_grad_norm
        # Nothing is clipped by record: one pass for all.
        size = unit_size if math.isfinite(clip) else len(images)
        total = [torch.zeros_like(value) for value in weights.values()]
        for rows in torch.arange(len(images)).split(size):
            outputs = functional_call(self.model, weights, (images[rows],))
            loss = self.loss(outputs, labels[rows]).sum() / unit_size
            gradient = torch.autograd.grad(
                loss, list(weights.values()), create_graph=True, allow_unused=True, materialize_grads=True
            )
            factor = _clip_factor(gradient, clip) if math.isfinite(clip) else 1.0
            total = [sofar + factor * value for sofar, value in zip(total, gradient, strict=True)]
        return total


def imagine(observation: Observation, *, cast: Cast, device: str) -> Victim:
    """The hospital behind an observation, in float64.

    Raises:
        SettingError: if its loss or its model is not of one label a record.
        ValueError: if the release is of several steps of another optimiser than SGD.
    """
    public = observation.public
    check_invertible(public)
    model = build_model(observation.architecture).double().train()
    load_weights(model, observation.model_before)
    with torch.no_grad():
        outputs = model(public.images[:1].double())
    if outputs.dim() != 2:
        raise SettingError(
            "adversary.attack",
            f"gradient inversion needs a model that names a class of an image, {observation.architecture.name} gives "
            f"outputs of shape {tuple(outputs.shape[1:])}; set adversary.attack=none",
        )
    units = len(cast.steps[0]) / cast.unit_size
    return Victim(
        model=model.to(device),
        loss=record_loss(public.loss, public.class_weights),
        public=public,
        share=max(1.0, round(public.expected_batch)) / units,
    )


def check_invertible(public: PublicSideInformation) -> None:
    """Whether a release under these terms can be searched for.

    Raises:
        SettingError: if the loss is not of one label a record.
        ValueError: if the release is of several steps of another optimiser than SGD.
    """
    if public.loss != "cross_entropy":
        raise SettingError(
            "adversary.attack",
            f"gradient inversion recovers one label a record, which training.loss={public.loss} has not; "
            "accepted: cross_entropy",
        )
    if public.steps > 1 and public.optimizer.name != "sgd":
        raise ValueError(
            f"only local steps of sgd can be unrolled, not {public.steps} of {public.optimizer.name}: an attack on "
            "another optimiser needs training.local_steps=1"
        )


def released_target(observation: Observation, victim: Victim) -> list[Tensor]:
    """What was seen, in the form of :meth:`Victim.release`, as float64 on the victim's device."""
    public, names = observation.public, list(victim.parameters)
    delta = {name: observation.released.delta[name] for name in names}
    if public.steps == 1:
        gradient = first_gradient(delta, observation.model_before, public.optimizer)
        delta = {name: value * public.expected_batch for name, value in gradient.items()}
    return [delta[name].double().to(victim.parameters[name].device) for name in names]


def release_noise_std(public: PublicSideInformation) -> float:
    """Standard deviation of the noise in every coordinate of a real release in the form of :meth:`Victim.release`.

    Of one step: sigma C, on the clipped sum. Of several, step t's noise over the expected batch moves the weights by
    c_t (:func:`hbdp_fed.dpsgd.step_weights`), and the noises of all steps add up.
    """
    mechanism, optimizer = public.mechanism, public.optimizer
    if mechanism.noise_multiplier == 0:
        return 0.0
    std = mechanism.noise_multiplier * mechanism.max_grad_norm
    if public.steps == 1:
        return std
    weights = step_weights((optimizer.learning_rate, *public.later_rates), momentum=optimizer.momentum)
    return std / public.expected_batch * math.hypot(*weights)


def _clip_factor(gradient: Sequence[Tensor], max_grad_norm: float) -> Tensor:
    """min(1, C / norm), differentiable (Abadi et al. 2016, algorithm 1)."""
    norm = (torch.stack([value.square().sum() for value in gradient]).sum() + _TINY).sqrt()
    return max_grad_norm / norm.clamp(min=max_grad_norm)
