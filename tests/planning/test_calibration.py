"""Timing this machine: what is fitted, what is predicted of it, and that real steps are timed."""

from __future__ import annotations

import numpy as np
import pytest

from hbdp_fed.planning import CalibrationJob, Throughput, local_settings, model_size, read_consortium, simulation
from hbdp_fed.planning.calibration import _Trial, fit, mean_throughput, prepare_measuring
from hbdp_fed.planning.simulating import ENDS_PER_IMPORT, MESSAGE_S, STARTS_PER_IMPORT, makespan
from tests.planning.consortia import small

PACE = Throughput(call_s=0.1, step_s=0.02, gradient_s=0.003, judged_s=0.001)


def test_the_fit_finds_the_constants_that_made_the_times() -> None:
    draws = np.random.default_rng(0)
    trials = []
    for steps, batch in ((1, 4), (4, 4), (1, 32), (4, 32)) * 10:
        gradients = int(draws.poisson(steps * batch))
        seconds = (0.1 + 0.02 * steps + 0.003 * gradients) * float(draws.uniform(0.98, 1.02))
        trials.append(_Trial(steps, gradients, seconds))
    assert fit(trials) == pytest.approx((0.1, 0.02, 0.003), rel=0.05)


@pytest.mark.parametrize(
    "trials",
    [
        # Many records took no longer than few, or even less long.
        [_Trial(1, 2, 0.10), _Trial(1, 32, 0.10), _Trial(4, 8, 0.40), _Trial(4, 128, 0.40)],
        [_Trial(1, 2, 0.30), _Trial(1, 32, 0.10), _Trial(4, 8, 0.50), _Trial(4, 128, 0.20)],
    ],
)
def test_where_noise_hides_what_a_gradient_costs_it_still_costs_something(trials: list[_Trial]) -> None:
    call, step, gradient = fit(trials)
    assert gradient > 0
    assert min(call, step) >= 0


def test_a_rate_counts_everything_that_a_round_takes() -> None:
    assert PACE.round_seconds(steps=10, batch=32, views=2) == pytest.approx(0.1 + 10 * (0.02 + 64 * 0.003))
    assert PACE.records_per_s(steps=10, batch=32, views=2) == pytest.approx(640 / 2.22)


def test_the_mean_of_processes_is_taken_field_by_field() -> None:
    other = Throughput(0.3, 0.04, 0.005, 0.003)
    assert vars(mean_throughput([PACE, other])) == pytest.approx(vars(Throughput(0.2, 0.03, 0.004, 0.002)))


def test_works_are_begun_in_their_order_by_whoever_is_free() -> None:
    assert makespan([3, 1, 1, 1], 2) == 3
    assert makespan([1, 1, 3], 2) == 4
    assert makespan([5, 1, 1, 1], 1) == 8
    assert makespan([1, 2], 7) == 2


def test_a_simulation_is_its_start_its_rounds_and_its_end() -> None:
    judging = {"validation_records": 100, "test_records": 200, "every": 2}
    consortium = read_consortium(small(judging=judging))
    own = MESSAGE_S + 0.1 + 5 * (0.02 + 20 * 0.003)
    found = simulation(consortium, PACE, workers=2, processors=2, import_s=2.0)
    # Three equal works over two workers, and half of the rounds' judging in both processors' time.
    assert found.rounds_s == pytest.approx(10 * (2 * own + 0.1 / 2 / 2))
    assert found.startup_s == pytest.approx(2 * STARTS_PER_IMPORT)
    assert found.judging_s == pytest.approx(2 * ENDS_PER_IMPORT + 0.1 + 4 * 0.2)
    assert found.seconds == pytest.approx(found.startup_s + found.rounds_s + found.judging_s)
    # With a processor to spare, judging goes on beside the next round.
    spare = simulation(consortium, PACE, workers=2, processors=3, import_s=2.0)
    assert spare.rounds_s == pytest.approx(10 * 2 * own)


@pytest.mark.parametrize(
    ("changes", "batch"),
    [
        ({}, 20.0),
        ({"training__multiplicity": 2, "training__augmentation": "flip"}, 3.0),
        ({"task": "segmentation", "image": {"size": [16, 16, 16]}, "model": {"name": "unet", "width": 8}}, 1.0),
        ({"task": "multilabel", "classes": 3, "training__optimizer": "nadam"}, 2.0),
    ],
)
def test_real_steps_are_timed_for_every_task(changes: dict[str, object], batch: float) -> None:
    consortium = read_consortium(small(**changes))
    job = CalibrationJob(
        architecture=model_size(consortium).architecture,
        image_shape=consortium.image.shape,
        task=consortium.task,
        classes=consortium.classes,
        local=local_settings(consortium),
        batch=batch,
        steps=3,
        seconds=0.1,
        device="cpu",
        threads=1,
    )
    found = prepare_measuring(job)()
    assert min(vars(found).values()) >= 0
    assert found.judged_s > 0
    assert found.round_seconds(steps=3, batch=batch, views=1) > 0
