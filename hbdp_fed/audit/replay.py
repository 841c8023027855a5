"""A simulated hospital's steps, taken again from its random streams: the truth that an audit holds attacks against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hbdp_fed.data.contract import Records, as_floats
from hbdp_fed.dpsgd import seeded_noise, unit_batches
from hbdp_fed.seeding import augmentation_stream, batch_stream, generator, noise_stream
from hbdp_fed.training import (
    NO_CORRECTION,
    LocalResult,
    LocalSettings,
    LocalStep,
    round_progress,
    train_locally,
    views,
)
from hbdp_fed.types import HospitalPlan, ModelSpec, Weights


@dataclass(frozen=True)
class SimulatedTraining:
    """A federation whose every draw is known: who holds what, who planned what, and the seed.

    Attributes:
        seed: The run's.
        architecture: The model that was trained.
        local: How every hospital trained.
        rounds: Training rounds; probes have the numbers above.
        local_steps: Steps of a hospital in a training round.
        plans: The hospitals' plans.
        records: What each of them holds, in the same order.
        shares: Each one's weight in the mean of updates; they add up to 1.
        device: Where the hospitals computed.
        added: By hospital and round, what was added to each of its gradients, where ``local`` corrects steps.
    """

    seed: int
    architecture: ModelSpec
    local: LocalSettings
    rounds: int
    local_steps: int
    plans: tuple[HospitalPlan, ...]
    records: tuple[Records, ...]
    shares: tuple[float, ...]
    device: torch.device
    added: Mapping[tuple[str, int], Weights] = field(default_factory=dict)

    def added_to(self, hospital: str, number: int) -> Weights | None:
        """What was added to each gradient of a hospital in a training round; None where nothing was.

        Raises:
            KeyError: if steps were corrected and nobody says how.
        """
        return None if self.local.correction == NO_CORRECTION else self.added[hospital, number]

    def index(self, hospital: str) -> int:
        """Where the hospital called so stands in ``plans`` and ``records``."""
        return next(index for index, plan in enumerate(self.plans) if plan.name == hospital)

    def alone(self, hospital: str) -> SimulatedTraining:
        """The same with one hospital: a worker that needs nothing of the others need not be sent it."""
        place = self.index(hospital)
        return replace(self, plans=(self.plans[place],), records=(self.records[place],), shares=(1.0,))


def replay_round(
    training: SimulatedTraining,
    hospital: int,
    number: int,
    weights: Weights,
    *,
    watch: Callable[[LocalStep], None] | None = None,
    noiseless: bool = False,
    steps: int | None = None,
) -> LocalResult:
    """Take one hospital's steps of one training round again.

    Args:
        training: The federation.
        hospital: An index.
        number: The round, from 1.
        weights: What the hospital started from; rounded to the float32 that travels.
        watch: Sees every step, if anybody does.
        noiseless: Whether to leave the noise out: what an adversary can compute who knows the records alone.
        steps: How many of the round's steps, from the first; None takes them all.
    """
    plan, records = training.plans[hospital], training.records[hospital]
    mechanism = replace(plan.mechanism, noise_multiplier=0.0) if noiseless else plan.mechanism
    seed, name, device = training.seed, plan.name, training.device
    return train_locally(
        architecture=training.architecture,
        weights={key: value.float() for key, value in weights.items()},
        images=records.images,
        labels=records.labels,
        groups=records.groups,
        mechanism=mechanism,
        steps=training.local_steps if steps is None else steps,
        settings=training.local,
        progress=round_progress(number, rounds=training.rounds, local_steps=training.local_steps),
        noise=seeded_noise(noise_stream(seed, name, number, device)),
        batch_generator=batch_stream(seed, name, number),
        augmentation_generator=augmentation_stream(seed, name, number),
        device=device,
        watch=watch,
        added=training.added_to(name, number),
    )


@dataclass(frozen=True)
class ReplayedBatch:
    """Who was in a hospital's step or steps, and who was not.

    Attributes:
        images: float32 (b * K, C, *spatial), the records that were drawn, as the model saw them: K views of each.
        labels: Of the views.
        groups: int64 (b,), equal for records of one patient; negative for a record that stands for itself.
        controls: float32 (c * K, C, *spatial), others of the hospital's records, c at most b, in as many views.
        control_groups: int64 (c,).
    """

    images: Tensor
    labels: Tensor
    groups: Tensor
    controls: Tensor
    control_groups: Tensor

    def at_most(self, most: int, *, views: int, generator: torch.Generator) -> ReplayedBatch:
        """The same with so many records and controls at most, drawn at random.

        Args:
            most: Of either.
            views: K.
            generator: For the draw.
        """
        if len(self.groups) <= most:
            return self
        inside = torch.randperm(len(self.groups), generator=generator)[:most].sort().values
        of_inside = (inside[:, None] * views + torch.arange(views)).flatten()
        few = slice(most * views)
        return ReplayedBatch(
            self.images[of_inside],
            self.labels[of_inside],
            self.groups[inside],
            self.controls[few],
            self.control_groups[:most],
        )


def replay_batch(training: SimulatedTraining, hospital: str, number: int, *, steps: int = 1) -> ReplayedBatch:
    """The batch of a probe, which is a round of one step, or everybody who was in some first steps of a round.

    What reconstructions score against the controls is what chance scores: they were not in the batch.

    Args:
        training: The federation.
        hospital: Whose batch.
        number: The round's or probe's number.
        steps: How many of its steps. A record that several of them drew counts once, as the first of them saw it.
    """
    index = training.index(hospital)
    plan, records = training.plans[index], training.records[index]
    batches = unit_batches(
        num_records=len(records),
        groups=records.groups,
        records_per_patient=training.local.records_per_patient,
        sample_rate=plan.mechanism.sample_rate,
        steps=steps,
        generator=batch_stream(training.seed, hospital, number),
    )
    drawn = torch.zeros(len(records), dtype=torch.bool)
    members, images, labels = [], [], []
    stream = augmentation_stream(training.seed, hospital, number)
    for batch in batches:
        # A mirrored image that comes back mirrored shows its patient: what the model saw is what an attack can rebuild.
        seen, targets = _seen(training, records, batch.members, stream)
        new = ~drawn[batch.members]
        drawn[batch.members] = True
        members.append(batch.members[new])
        of_new = new.repeat_interleave(training.local.multiplicity)
        images.append(seen[of_new])
        labels.append(targets[of_new])
    inside = torch.cat(members)
    others = (~drawn).nonzero().flatten()[: len(inside)]
    controls, _ = _seen(training, records, others, generator(training.seed, "audit", hospital, number))
    groups = _patients(records)
    return ReplayedBatch(torch.cat(images), torch.cat(labels), groups[inside], controls, groups[others])


def all_trained(records: Records, others: Records, *, most: int, generator: torch.Generator) -> ReplayedBatch:
    """What attacks on the final model are held against: a hospital's records, of which training saw any.

    Args:
        records: All that the hospital trained on.
        others: Records that nobody trained on, for controls.
        most: No more than this many of either, drawn at random, are compared.
        generator: For the draw.
    """
    inside, outside = (
        torch.randperm(len(part), generator=generator)[:most].sort().values for part in (records, others)
    )
    outside = outside[: len(inside)]
    return ReplayedBatch(
        images=as_floats(records.images[inside]),
        labels=records.labels[inside],
        groups=_patients(records)[inside],
        controls=as_floats(others.images[outside]),
        # Numbers of nobody among the hospital's own.
        control_groups=_patients(others, above=len(records))[outside],
    )


def _patients(records: Records, *, above: int = 0) -> Tensor:
    """Each record's patient; one without stands for itself, with a number below 0 that no patient has."""
    return records.groups if records.groups is not None else -1 - above - torch.arange(len(records))


def _seen(
    training: SimulatedTraining, records: Records, rows: Tensor, stream: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The views of these records that a hospital takes when its random stream is ``stream``."""
    return views(
        as_floats(records.images[rows]),
        records.labels[rows],
        multiplicity=training.local.multiplicity,
        augmentation=training.local.augmentation,
        generator=stream,
    )


def largest_difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """The largest absolute difference of any coordinate of two sets of weights with the same names; NaN if any is."""
    return float(torch.stack([(first[name] - second[name]).abs().max() for name in first]).max())
