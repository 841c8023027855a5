"""A hospital's local training: some DP-SGD steps from the weights it was handed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hbdp_fed.data.contract import as_floats
from hbdp_fed.dpsgd import (
    GradientSum,
    MovingWeights,
    NoiseSource,
    StepGradient,
    Summer,
    dp_sgd_gradient,
    make_summer,
    num_units,
    record_loss,
    unit_batches,
)
from hbdp_fed.dpsgd.optimizers import build_optimizer
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.training.augmentation import views
from hbdp_fed.training.precision import precision_called
from hbdp_fed.training.schedules import Progress, ScheduleSettings, learning_rate_factor
from hbdp_fed.types import DpSgdParams, ModelSpec, OptimizerSettings, Weights


@dataclass(frozen=True)
class LocalSettings:
    """How a hospital trains, the same at all hospitals and known to everyone.

    Attributes:
        optimizer: The local optimiser, with the learning rate before the schedule.
        schedule: What becomes of the learning rate over training.
        augmentation: A key of :data:`hbdp_fed.training.AUGMENTATIONS`.
        loss: A key of :data:`hbdp_fed.dpsgd.LOSSES`.
        class_weights: The loss's weights, one a class, public; None weighs all alike.
        multiplicity: Views of each record, at least 1; its gradient is averaged over them before it is clipped.
        grad_mode: A key of :data:`hbdp_fed.dpsgd.GRAD_MODES`.
        precision: A key of :data:`hbdp_fed.training.PRECISIONS`.
        max_physical_batch: Rows (views of records) differentiated at once, at least 1; bounds memory.
        proximal: mu of FedProx (Li et al. 2020, arXiv 1812.06127), at least 0: mu/2 times the squared distance from the
            weights that were received is added to the loss, after the noise, since no record has a part in it.
        correction: One of :data:`hbdp_fed.training.CORRECTIONS`; ``scaffold`` needs the optimiser ``sgd``, no weight
            decay and no proximal term.
        records_per_patient: m, the most records of one patient in a step, at least 1: patients are drawn, and the
            gradients of each one's records are averaged and clipped together. None: the unit of privacy is a record.
    """

    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    augmentation: str = "none"
    loss: str = "cross_entropy"
    class_weights: tuple[float, ...] | None = None
    multiplicity: int = 1
    grad_mode: str = "hbdp"
    precision: str = "float32"
    max_physical_batch: int = 256
    proximal: float = 0.0
    correction: str = "none"
    records_per_patient: int | None = None


@dataclass(frozen=True)
class LocalStep:
    """One step as it is taken, for an audit that replays a hospital. Nothing of it leaves the hospital otherwise.

    Attributes:
        members: int64 (b,), which records the Poisson batch holds; those of one unit stand one after the other.
        counts: int64 (u,), how many of them each drawn patient gives, ascending; None where each record is a unit.
        images: (b * K, C, *spatial), their views.
        labels: Of the views.
        weights: What the gradient was computed at, by parameter name; they move on in place when the watcher returns.
        clipped_sum: The sum of the batch's clipped gradients without noise, float64 by parameter name.
        gradient: The noisy mean gradient, float64 by parameter name, before any correction.
    """

    members: Tensor
    counts: Tensor | None
    images: Tensor
    labels: Tensor
    weights: Weights
    clipped_sum: Weights
    gradient: Weights


@dataclass(frozen=True)
class LocalResult:
    """What local training leaves.

    Attributes:
        delta: Final weights minus the received ones by parameter name, float64 on the CPU: the only thing that the
            guarantee covers, and the only thing that must leave the hospital.
        loss: Mean training loss over all units (records, or patients) seen; NaN when every batch was empty.
        clipped_share: Mean over steps of the share of clipped units; NaN where nothing is ever clipped.
        records_seen: How many records the Poisson batches held in all.
        noise_to_resolution: The smallest of the steps' ratios of noise to the spacing of the numbers that the clipped
            gradients were summed in (see :class:`hbdp_fed.dpsgd.StepGradient`); NaN without noise.
    """

    delta: Weights
    loss: float
    clipped_share: float
    records_seen: int
    noise_to_resolution: float


def train_locally(
    *,
    architecture: ModelSpec,
    weights: Weights,
    images: Tensor,
    labels: Tensor,
    groups: Tensor | None = None,
    mechanism: DpSgdParams,
    steps: int,
    settings: LocalSettings,
    progress: Progress,
    noise: NoiseSource,
    batch_generator: torch.Generator,
    augmentation_generator: torch.Generator,
    device: torch.device,
    watch: Callable[[LocalStep], None] | None = None,
    added: Weights | None = None,
) -> LocalResult:
    """Take ``steps`` DP-SGD steps from ``weights`` on a hospital's records.

    The weights are kept twice: a float64 copy that the optimiser moves, and the model's own weights that follow it.
    The noise of a huge budget, which float32 weights would round away, is whole in the float64 copy and so in the
    delta.

    Args:
        architecture: The model the server asks for.
        weights: The global weights received.
        images: (N, C, *spatial), all of the hospital's records, float32 in [0, 1] or uint8.
        labels: int64 (N,), (N, K) or (N, *spatial).
        groups: int64 (N,), equal for records of one patient; unused where the unit of privacy is a record.
        mechanism: The hospital's own clipping and noise; no server can change it.
        steps: How many of its planned steps to take, at least 1.
        settings: How to train.
        progress: Where in the whole training these steps lie, for the schedule.
        noise: Where the noise comes from.
        batch_generator: A CPU generator for the Poisson batches.
        augmentation_generator: A CPU generator for the views of records.
        device: Where to compute.
        watch: Called at every step, before the weights move.
        added: What is added to every noisy gradient, by parameter name (see :mod:`hbdp_fed.training.correction`).

    Raises:
        SettingError: if a name in ``settings`` is unknown.
        ValueError: if patients are the units and ``groups`` does not say which records are whose.
    """
    precision = precision_called(settings.precision)
    model = build_model(architecture).to(device=device, dtype=precision.parameters).train()
    load_weights(model, weights)
    moving = MovingWeights.of(model, added={name: value.to(device) for name, value in (added or {}).items()})
    optimizer = build_optimizer(list(moving.masters.values()), optimizer_at(settings, progress.after(0)))
    summer = make_summer(
        model,
        mechanism,
        max_physical_batch=settings.max_physical_batch,
        multiplicity=settings.multiplicity,
        grad_mode=settings.grad_mode,
        compute_dtype=precision.compute,
        loss=record_loss(settings.loss, settings.class_weights),
    )
    sums = _Sums(summer, keep=watch is not None)
    expected_batch = mechanism.sample_rate * num_units(len(labels), groups, settings.records_per_patient)
    taken: list[StepGradient] = []
    for batch in unit_batches(
        num_records=len(labels),
        groups=groups,
        records_per_patient=settings.records_per_patient,
        sample_rate=mechanism.sample_rate,
        steps=steps,
        generator=batch_generator,
    ):
        seen, targets = views(
            as_floats(images[batch.members]).to(device=device, dtype=precision.parameters),
            labels[batch.members].to(device),
            multiplicity=settings.multiplicity,
            augmentation=settings.augmentation,
            generator=augmentation_generator,
        )
        step = dp_sgd_gradient(
            sums,
            seen,
            targets,
            batch.counts,
            mechanism=mechanism,
            expected_batch=expected_batch,
            noise=noise,
            sum_dtype=precision.parameters,
        )
        if watch is not None:
            own = (batch.members, batch.counts, seen, targets)
            watch(LocalStep(*own, moving.followers, sums.last, step.gradient))
        rate = optimizer_at(settings, progress.after(len(taken))).learning_rate
        moving.take(step.gradient, optimizer, learning_rate=rate, proximal=settings.proximal)
        taken.append(replace(step, gradient={}))
    return _result(moving.delta(), taken)


def smallest_learning_rate(settings: LocalSettings, steps: int) -> float:
    """The smallest learning rate in force at any of so many steps, and after them.

    Args:
        settings: How a hospital trains.
        steps: All of training, at least 1.
    """
    return min(optimizer_at(settings, step / steps).learning_rate for step in range(steps + 1))


def optimizer_at(settings: LocalSettings, progress: float) -> OptimizerSettings:
    """The optimiser with the learning rate in force at this point of training (see :class:`Progress`)."""
    factor = learning_rate_factor(settings.schedule, progress)
    return replace(settings.optimizer, learning_rate=settings.optimizer.learning_rate * factor)


@dataclass
class _Sums:
    """A summer that keeps its last sum for a watcher: the noise is added in place.

    Attributes:
        summer: Computes it.
        keep: Whether anybody wants it.
        last: The sum; empty where nobody does.
    """

    summer: Summer
    keep: bool
    last: Weights = field(default_factory=dict)

    def __call__(self, images: Tensor, labels: Tensor, counts: Tensor | None = None) -> GradientSum:
        found = self.summer(images, labels, counts)
        if self.keep:
            self.last = {name: value.clone() for name, value in found.total.items()}
        return found


def _result(delta: Weights, taken: Sequence[StepGradient]) -> LocalResult:
    seen = [step for step in taken if step.batch_size]
    units_seen = sum(step.batch_size for step in seen)
    return LocalResult(
        delta=delta,
        loss=sum(step.loss * step.batch_size for step in seen) / units_seen if seen else math.nan,
        clipped_share=sum(step.clipped_share for step in seen) / len(seen) if seen else math.nan,
        records_seen=sum(step.num_records for step in seen),
        noise_to_resolution=min((step.noise_to_resolution for step in taken), default=math.nan),
    )
