"""How quick this machine is at a consortium's training: DP-SGD steps on noise, timed for a few seconds.

The steps are those of a hospital (:func:`~hbdp_fed.training.train_locally`), with its model, image size, optimiser and
precision; only the images are noise, which take as long. A round of S steps at an expected batch of b records and K
views costs

    call_s + S (step_s + b K gradient_s),

of which the three constants are fitted to trials that differ in steps and batch, by least squares of relative errors
with no negative constant (Lawson and Hanson 1974). A trial's step takes all of so many records, so that nothing is left
to chance. Where one full step would take too long, the trials are smaller and the line is followed beyond them.
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

_LONGEST = 0.25
"""Of the time, for one step of the largest batch."""

_SMALLER = 4
"""How much smaller the small batch is than the large one."""

_STEPS = 4
"""Of the longer trials: enough to tell a step from a round."""

_MOST = 256
"""Records in a batch."""

_MOST_NUMBERS = 2**24
"""Numbers in all images together: 64 MiB."""


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
    bench.trial(steps=1, records=1)
    return lambda: _measured(job, bench)


def _measured(job: CalibrationJob, bench: _Bench) -> Throughput:
    trials = [trial for turn in _turns(job, bench) for trial in turn]
    call, step, gradient = fit(trials)
    return Throughput(call_s=call, step_s=step, gradient_s=gradient, judged_s=bench.judged_seconds())


def _turns(job: CalibrationJob, bench: _Bench) -> Iterator[list[_Trial]]:
    """Ever larger single steps as far as time allows, then short and long rounds in turn until it is up."""
    started = time.perf_counter()
    wanted = min(max(2, math.ceil(job.batch)), len(bench.labels))
    records = 2
    latest = bench.trial(steps=1, records=records)
    while records < wanted and latest.seconds < job.seconds * _LONGEST:
        records = min(2 * records, wanted)
        latest = bench.trial(steps=1, records=records)
    # Near the batch that is asked for: small ones go other ways, and the line to them is not straight.
    small, steps = max(1, records // _SMALLER), min(job.steps, _STEPS)
    if (1 + steps) * latest.seconds > job.seconds:
        steps = 1
    turns = 0
    while turns == 0 or time.perf_counter() - started < job.seconds:
        yield [bench.trial(steps=some, records=count) for count in (small, records) for some in sorted({1, steps})]
        turns += 1


def fit(trials: Sequence[_Trial]) -> tuple[float, float, float]:
    """Seconds of a call, a step and a gradient that describe the trials best.

    A gradient never costs nothing: where a machine was so busy that few records seem to take as long as many, what a
    step takes is laid to its records, and larger batches are thought slower rather than free.
    """
    rows = np.array([[1.0, trial.steps, trial.gradients] for trial in trials])
    seconds = np.array([trial.seconds for trial in trials])
    for among in ([0, 1, 2], [0, 2], [2]):
        found = np.zeros(3)
        found[among], _ = nnls(rows[:, among] / seconds[:, None], np.ones(len(trials)))
        if found[2] > 0:
            break
    call, step, gradient = map(float, found)
    return call, step, gradient


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
        count = max(2, min(math.ceil(job.batch), _MOST, _MOST_NUMBERS // math.prod(job.image_shape)))
        device = resolve_device(job.device)
        return cls(
            job=job,
            images=torch.rand(count, *job.image_shape, generator=draw),
            labels=_labels(job, count, draw),
            weights=initial_weights(build_model(job.architecture), draw),
            device=device,
            draw=draw,
        )

    def trial(self, *, steps: int, records: int) -> _Trial:
        started = time.perf_counter()
        result = train_locally(
            architecture=self.job.architecture,
            weights=self.weights,
            images=self.images[:records],
            labels=self.labels[:records],
            mechanism=DpSgdParams(noise_multiplier=1.0, max_grad_norm=1.0, sample_rate=1.0, steps=steps),
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
        """Of one record, by batches of a tenth of the time."""
        model = build_model(self.job.architecture).to(self.device)
        judge = task_called(self.job.task).judge
        started, judged, count = time.perf_counter(), 0, 1
        while judged == 0 or time.perf_counter() - started < self.job.seconds / 10:
            records = Records(self.images[:count], self.labels[:count])
            judge(model, records, device=self.device, thorough=False)
            judged, count = judged + count, min(2 * count, len(self.labels))
        return (time.perf_counter() - started) / judged


def _labels(job: CalibrationJob, count: int, draw: torch.Generator) -> Tensor:
    shapes = {"segmentation": (count, *job.image_shape[1:]), "multilabel": (count, job.classes)}
    most = 2 if job.task == "multilabel" else job.classes
    return torch.randint(most, shapes.get(job.task, (count,)), generator=draw)
