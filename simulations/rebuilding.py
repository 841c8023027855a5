"""Attacks that rebuild images, from what a run recorded to how close they came."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hbdp_fed.adversary import ATTACKS, build_attack
from hbdp_fed.audit import GrantedRecord, ReplayedBatch, grant_step_knowledge
from hbdp_fed.seeding import generator
from hbdp_fed.types import Observation, Reconstruction, Surface
from simulations.sources import Source


@dataclass(frozen=True)
class RebuildTask:
    """One attack on one observation; names what it needs on disk, so that a worker process can load it.

    Attributes:
        attack: Its name.
        settings: What it is built with.
        surface: What it sees.
        source: Where that comes from.
        scales: By hospital that is seen or in the mean, what one of its records counts in it.
        batches: What each of them drew, where the threat model is granted something of it; else empty.
        multiplicity: Views of a record.
        max_physical_batch: Rows differentiated at once.
        seed: The run's.
        label: Names the attack's random stream: the hospital and the round.
    """

    attack: str
    settings: Mapping[str, Any]
    surface: Surface
    source: Source
    scales: Mapping[str, float]
    batches: tuple[ReplayedBatch, ...]
    multiplicity: int
    max_physical_batch: int
    seed: int
    label: tuple[str, int]

    def __call__(self) -> Rebuilt:
        """Run the attack."""
        started = time.perf_counter()
        observation = self.source.observe()
        attack = build_attack(self.attack, **self.settings)
        stream = generator(self.seed, "adversary", self.attack, *self.label)
        granted: list[GrantedRecord] = []
        if ATTACKS[self.attack].threat_model.perfect_algorithm:
            granted = self._granted(observation)
            attack = attack.prepared(observation.public.images)
            parts = [attack.reconstruct(record.observation, stream) for record in granted]
            reconstruction = _together(parts, observation)
        else:
            reconstruction = attack.reconstruct(observation, stream)
        return Rebuilt(
            reconstruction=reconstruction,
            noise_multiplier=observation.public.mechanism.noise_multiplier,
            scales=torch.tensor([record.scale for record in granted], dtype=torch.float64),
            images=torch.stack([record.image for record in granted]) if granted else None,
            clipped=torch.tensor([record.clipped for record in granted]),
            seconds=time.perf_counter() - started,
        )

    def _granted(self, observation: Observation) -> list[GrantedRecord]:
        counts = [len(batch.labels) // self.multiplicity for batch in self.batches]
        records = grant_step_knowledge(
            observation,
            torch.cat([batch.images for batch in self.batches]),
            torch.cat([batch.labels for batch in self.batches]),
            scales=[self.scales[name] for name, count in zip(self.scales, counts, strict=True) for _ in range(count)],
            multiplicity=self.multiplicity,
            max_physical_batch=self.max_physical_batch,
        )
        # Of a black image there is nothing to rebuild.
        return [record for record in records if record.observation.knowledge and record.observation.knowledge.factor]


@dataclass(frozen=True)
class Rebuilt:
    """What an attack made of one observation.

    Attributes:
        reconstruction: Its claim.
        noise_multiplier: sigma in what it saw.
        scales: float64, what each granted record counts in it; its own sigma is that divided by this.
        images: What each granted record's gradient was about, in the reconstruction's order; None without grants.
        clipped: Whether that gradient reached the clipping norm.
        seconds: How long it took.
    """

    reconstruction: Reconstruction
    noise_multiplier: float
    scales: Tensor
    images: Tensor | None
    clipped: Tensor
    seconds: float


def _together(parts: Sequence[Reconstruction], observation: Observation) -> Reconstruction:
    """The reconstructions of single records as one; figures are averaged."""
    if not parts:
        shape = observation.public.images.shape[1:]
        return Reconstruction(images=torch.zeros(0, *shape), scores=torch.zeros(0), unprocessed=torch.zeros(0, *shape))
    raw = [part.unprocessed for part in parts if part.unprocessed is not None]
    return Reconstruction(
        images=torch.cat([part.images for part in parts]),
        scores=torch.cat([part.scores for part in parts]),
        details={key: sum(part.details[key] for part in parts) / len(parts) for key in parts[0].details},
        unprocessed=torch.cat(raw) if len(raw) == len(parts) else None,
    )
