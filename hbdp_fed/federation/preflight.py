"""How much memory a hospital needs, found by a rehearsal on zeros, and how many hospitals fit beside each other."""

from __future__ import annotations

import math
import resource
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hbdp_fed.dpsgd import seeded_noise
from hbdp_fed.federation.crew import Crew, Node
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.seeding import generator, noise_stream
from hbdp_fed.training import LocalSettings, Progress, resolve_device, train_locally
from hbdp_fed.training.precision import precision_called
from hbdp_fed.types import DpSgdParams, ModelSpec, PatientCount

_SPARED = 0.1
"""The share of free memory that is left to everything else."""

_CUDA_CONTEXT = 2**29
"""Bytes of a GPU that a process takes before its first tensor: half a GiB, on the safe side for current drivers."""

_DEVIATIONS = 5.0
"""A Poisson batch is larger than its mean by more than this many standard deviations about once in 3 million steps."""


@dataclass(frozen=True)
class Rehearsal:
    """What the most demanding hospital's step is like, without its records.

    Attributes:
        architecture: The model.
        mechanism: Its clipping and noise.
        num_records: How many records it has.
        image_shape: (C, *spatial) of one.
        label_shape: Of one: (), (K,) or spatial.
        local: How it trains.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: PyTorch threads.
        patients: Its patients, where these are drawn and clipped, and not records.
    """

    architecture: ModelSpec
    mechanism: DpSgdParams
    num_records: int
    image_shape: tuple[int, ...]
    label_shape: tuple[int, ...]
    local: LocalSettings
    device: str
    threads: int
    patients: PatientCount | None = None

    @property
    def records_a_unit(self) -> int:
        """The most records that are clipped together."""
        return self.local.records_per_patient or 1

    @property
    def batch(self) -> int:
        """How many records the largest Poisson batch to count with holds."""
        units, most = self.num_records, self.num_records
        if self.patients is not None:
            units, most = self.patients.patients, self.patients.records_at_once
        mean = self.mechanism.sample_rate * units
        return max(1, min(most, math.ceil(mean + _DEVIATIONS * math.sqrt(mean)) * self.records_a_unit))

    @property
    def rehearsed(self) -> int:
        """How many of its records are differentiated: one full physical batch, where there are as many.

        A patient's records are differentiated together, even where they are more.
        """
        return min(self.batch, max(self.records_a_unit, self.local.max_physical_batch // self.local.multiplicity))


@dataclass(frozen=True)
class Need:
    """What one hospital's process takes at most.

    Attributes:
        memory: Bytes.
        gpu_memory: Bytes of a GPU; 0 where it computes without one.
        gpu_total: Bytes that this GPU has.
    """

    memory: int
    gpu_memory: int = 0
    gpu_total: int = 0


@dataclass(frozen=True)
class Sizing:
    """How many hospitals compute at the same time, and why.

    Attributes:
        workers: How many.
        gpus_per_client: Share of a GPU that each takes.
        need: What one was found to need; None where nothing was measured.
        free_memory: Bytes free for all of them, on all nodes; None where nothing was measured.
        fits: Whether at least one does.
    """

    workers: int
    gpus_per_client: float
    need: Need | None = None
    free_memory: int | None = None
    fits: bool = True


def rehearse(step: Rehearsal) -> Need:
    """Take one DP-SGD step on zeros in this process and say how much memory the process has taken at its peak.

    Only one physical batch is differentiated, since the others reuse its memory. What the rest of the batch takes
    while it waits for its turn, records and views, is added.
    """
    torch.set_num_threads(step.threads)
    device = resolve_device(step.device)
    size = step.rehearsed
    draw = generator(0, "rehearsal")
    train_locally(
        architecture=step.architecture,
        weights=initial_weights(build_model(step.architecture), draw),
        images=torch.zeros(size, *step.image_shape),
        labels=torch.zeros(size, *step.label_shape, dtype=torch.int64),
        groups=torch.arange(size) // step.records_a_unit,
        mechanism=DpSgdParams(
            noise_multiplier=step.mechanism.noise_multiplier,
            max_grad_norm=step.mechanism.max_grad_norm,
            sample_rate=1.0,
            steps=1,
        ),
        steps=1,
        settings=step.local,
        progress=Progress(0, 1),
        noise=seeded_noise(noise_stream(0, "rehearsal", 0, device)),
        batch_generator=draw,
        augmentation_generator=draw,
        device=device,
    )
    bytes_a_row = precision_called(step.local.precision).parameters.itemsize * math.prod(step.image_shape)
    waiting = (step.batch - size) * (1 + step.local.multiplicity) * bytes_a_row
    memory = peak_memory() + waiting
    if device.type != "cuda":
        return Need(memory)
    taken = torch.cuda.max_memory_reserved(device) + _CUDA_CONTEXT + waiting
    return Need(memory, taken, torch.cuda.get_device_properties(device).total_memory)


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that there is not enough memory, which PyTorch's allocator on the CPU does in words alone."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def peak_memory() -> int:
    """The most memory that this process has had resident so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def fitting(crew: Crew, nodes: Sequence[Node], need: Need | None) -> tuple[tuple[Node, ...], Sizing]:
    """Which of the crew there is memory for.

    Each node is judged by its own memory; its GPUs are taken to be like the one that was measured. A tenth is spared.

    Args:
        crew: The most workers.
        nodes: Of the cluster.
        need: Of each; None if not even one lived through its rehearsal.

    Returns:
        The nodes of the workers to keep, an entry a worker, at least one, and the account of it.
    """
    free = sum(node.memory for node in nodes)
    kept: list[Node] = []
    if need is not None:
        on = Counter[str]()
        for node in crew.nodes:
            on[node.name] += 1
            if on[node.name] <= _room(node, need):
                kept.append(node)
    fits = bool(kept)
    kept = kept or [max(crew.nodes, key=lambda node: node.memory)]
    return tuple(kept), Sizing(len(kept), crew.gpus, need, free, fits)


def _room(node: Node, need: Need) -> int:
    room = int((1 - _SPARED) * node.memory // need.memory)
    if need.gpu_memory:
        room = min(room, node.gpus * int((1 - _SPARED) * need.gpu_total // need.gpu_memory))
    return room
