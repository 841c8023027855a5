"""How quick this machine is at a consortium's training: DP-SGD steps on noise, timed for a few seconds.

The steps are those of a hospital (:func:`~hbdp_fed.training.train_locally`), with its model, image size, optimiser and
precision; only the images are noise, which take as long. A round of S steps at an expected batch of b records and K
views costs

    call_s + S (step_s + b K gradient_s),

of which the three constants are fitted to trials that differ in steps and batch, by least squares of relative errors
with no negative constant (Lawson and Hanson 1974). Where one full step would take too long, the trials are smaller and
the line is followed beyond them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from hbdp_fed.data.contract import Records
from hbdp_fed.dpsgd import seeded_noise
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.seeding import generator, noise_stream
from hbdp_fed.training import LocalSettings, Progress, resolve_device, train_locally
from hbdp_fed.training.tasks import task_called
from hbdp_fed.types import DpSgdParams, ModelSpec, Weights

_LEAST_TURNS = 2
_SMALL_BATCH = 4
_MOST_JUDGED = 256


@dataclass(frozen=True)
class CalibrationJob:
    """What is timed.

    Attributes:
        architecture: The model.
        image_shape: (C, *spatial) of a record.
        task: A key of :data:`hbdp_fed.training.tasks.TASKS`.
        classes: Of its answers.
        local: How hospitals train.
        batch: The largest expected batch of a hospital, in records.
        steps: Of a round.
        seconds: How long to time, about.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: PyTorch's.
    """

    architecture: ModelSpec
    image_shape: tuple[int, ...]
    task: str
    classes: int
    local: LocalSettings
    batch: float
    steps: int
    seconds: float
    device: str
    threads: int


@dataclass(frozen=True)
class Throughput:
    """What one process of this machine takes, in seconds.

    Attributes:
        call_s: A round's beginning and end.
        step_s: A step without any record: noise, optimiser, copies.
        gradient_s: One view of one record in a step.
        judged_s: Running the model over one record of validation or test.
    """

    call_s: float
    step_s: float
    gradient_s: float
    judged_s: float

    def round_seconds(self, *, steps: int, batch: float, views: int) -> float:
        """A hospital's computing in a round, of so many steps at this expected batch."""
        return self.call_s + steps * (self.step_s + batch * views * self.gradient_s)

    def records_per_s(self, *, steps: int, batch: float, views: int) -> float:
        """Record gradients a second, every view counted, with everything that a round takes besides."""
        return steps * batch * views / self.round_seconds(steps=steps, batch=batch, views=views)


def mean_throughput(found: Sequence[Throughput]) -> Throughput:
    """The mean of several processes that were timed at the same time."""
    means = {item.name: float(np.mean([getattr(own, item.name) for own in found])) for item in fields(Throughput)}
    return Throughput(**means)


@dataclass(frozen=True)
class _Trial:
    """One timed call: how many steps it took, how many views it differentiated, and its seconds."""

    steps: int
    gradients: int
    seconds: float


def prepare_measuring(job: CalibrationJob) -> Callable[[], Throughput]:
    """Build everything and take the first, slow step; what is returned does the timing.

    Raises:
        SettingError: if the model cannot be built.
    """
    torch.set_num_threads(job.threads)
    bench = _Bench.of(job)
    bench.trial(steps=1, batch=min(job.batch, _SMALL_BATCH))
    return lambda: _measured(job, bench)


def _measured(job: CalibrationJob, bench: _Bench) -> Throughput:
    trials = [trial for turn in _turns(job, bench) for trial in turn]
    call, step, gradient = fit(trials)
    return Throughput(call_s=call, step_s=step, gradient_s=gradient, judged_s=bench.judged_seconds())


def _turns(job: CalibrationJob, bench: _Bench) -> Iterator[list[_Trial]]:
    """Rounds of one step and of several, with a small and a large batch, in turn until the time is up."""
    small = min(job.batch, _SMALL_BATCH)
    first = bench.trial(steps=1, batch=small)
    # A turn takes five steps of the large batch, and there are to be two of them at least.
    affordable = job.seconds / (6 * _LEAST_TURNS) / (first.seconds / max(1, first.gradients))
    large = min(job.batch, max(small, affordable / job.local.multiplicity))
    steps = min(job.steps, 4) if job.steps > 1 else 1
    until = time.perf_counter() + job.seconds
    turns = 0
    while turns < _LEAST_TURNS or time.perf_counter() < until:
        yield [
            bench.trial(steps=1, batch=small),
            bench.trial(steps=steps, batch=small),
            bench.trial(steps=1, batch=large),
            bench.trial(steps=steps, batch=large),
        ]
        turns += 1


def fit(trials: Sequence[_Trial]) -> tuple[float, float, float]:
    """Seconds of a call, a step and a gradient that describe the trials best."""
    rows = np.array([[1.0, trial.steps, trial.gradients] for trial in trials])
    seconds = np.array([trial.seconds for trial in trials])
    found, _ = nnls(rows / seconds[:, None], np.ones(len(trials)))
    return float(found[0]), float(found[1]), float(found[2])


@dataclass(frozen=True)
class _Bench:
    """Records of noise and a model, ready to be trained."""

    job: CalibrationJob
    images: Tensor
    labels: Tensor
    weights: Weights
    device: torch.device
    draw: torch.Generator

    @classmethod
    def of(cls, job: CalibrationJob) -> _Bench:
        draw = generator(0, "calibration")
        # Twice the batch, so that Poisson sampling has something to choose from.
        count = max(2, min(math.ceil(2 * job.batch), _MOST_JUDGED))
        device = resolve_device(job.device)
        return cls(
            job=job,
            images=torch.rand(count, *job.image_shape, generator=draw),
            labels=_labels(job, count, draw),
            weights=initial_weights(build_model(job.architecture), draw),
            device=device,
            draw=draw,
        )

    def trial(self, *, steps: int, batch: float) -> _Trial:
        rate = min(1.0, batch / len(self.labels))
        started = time.perf_counter()
        result = train_locally(
            architecture=self.job.architecture,
            weights=self.weights,
            images=self.images,
            labels=self.labels,
            mechanism=DpSgdParams(noise_multiplier=1.0, max_grad_norm=1.0, sample_rate=rate, steps=steps),
            steps=steps,
            settings=self.job.local,
            progress=Progress(0, steps),
            noise=seeded_noise(noise_stream(0, "calibration", 0, self.device)),
            batch_generator=self.draw,
            augmentation_generator=self.draw,
            device=self.device,
        )
        seconds = time.perf_counter() - started
        return _Trial(steps, result.records_seen * self.job.local.multiplicity, seconds)

    def judged_seconds(self) -> float:
        """Of one record."""
        model = build_model(self.job.architecture).to(self.device)
        records = Records(self.images, self.labels)
        started, runs = time.perf_counter(), 0
        while runs < _LEAST_TURNS or time.perf_counter() - started < self.job.seconds / 10:
            task_called(self.job.task).judge(model, records, device=self.device, thorough=False)
            runs += 1
        return (time.perf_counter() - started) / (runs * len(records))


def _labels(job: CalibrationJob, count: int, draw: torch.Generator) -> Tensor:
    shapes = {"segmentation": (count, *job.image_shape[1:]), "multilabel": (count, job.classes)}
    most = 2 if job.task == "multilabel" else job.classes
    return torch.randint(most, shapes.get(job.task, (count,)), generator=draw)
