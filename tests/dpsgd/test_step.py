"""The step: what is added to the clipped sum is the noise asked for, and nothing else."""

from __future__ import annotations

import math

import pytest
import torch

from hbdp_fed.dpsgd import (
    clipped_summer,
    dp_sgd_gradient,
    gaussian_noise,
    make_summer,
    noise_to_resolution,
    poisson_batches,
    seeded_noise,
)
from hbdp_fed.models import build_model
from hbdp_fed.seeding import generator
from hbdp_fed.types import DpSgdParams, ModelSpec

CNN = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
MECHANISM = DpSgdParams(noise_multiplier=4.7e-6, max_grad_norm=0.8, sample_rate=0.1, steps=10)


def test_the_step_is_clipped_sum_plus_noise_over_the_expected_batch() -> None:
    images, labels = torch.rand(5, 1, 12, 12), torch.tensor([0, 1, 1, 0, 1])
    model = build_model(CNN)
    summer = clipped_summer(model, max_grad_norm=0.8, max_physical_batch=8)
    step = dp_sgd_gradient(
        summer, images, labels, mechanism=MECHANISM, expected_batch=6.0, noise=seeded_noise(generator(0, "n"))
    )
    summed = summer(images, labels).total
    noise = gaussian_noise(summed, std=4.7e-6 * 0.8, source=seeded_noise(generator(0, "n")))
    for name, value in step.gradient.items():
        assert value.dtype == torch.float64
        assert torch.equal(value, (summed[name] + noise[name]) / 6.0)
    assert step.batch_size == 5
    largest = max(float((summed[name] + noise[name]).abs().max()) for name in summed)
    ratio = noise_to_resolution(noise_std=4.7e-6 * 0.8, magnitude=largest, dtype=torch.float32)
    assert step.noise_to_resolution == ratio


def test_an_empty_batch_still_adds_noise() -> None:
    summer = make_summer(build_model(CNN), MECHANISM, max_physical_batch=8)
    step = dp_sgd_gradient(
        summer,
        torch.zeros(0, 1, 12, 12),
        torch.zeros(0, dtype=torch.int64),
        mechanism=MECHANISM,
        expected_batch=6.0,
        noise=seeded_noise(generator(0, "n")),
    )
    pooled = torch.cat([value.flatten() for value in step.gradient.values()])
    assert float(pooled.std()) == pytest.approx(4.7e-6 * 0.8 / 6.0, rel=0.1)
    assert math.isnan(step.loss)
    # Nothing but noise: as many digits as float32 has.
    assert step.noise_to_resolution > 1e5


def test_without_noise_there_is_no_ratio_to_report() -> None:
    plain = DpSgdParams(noise_multiplier=0.0, max_grad_norm=math.inf, sample_rate=0.1, steps=1)
    step = dp_sgd_gradient(
        make_summer(build_model(CNN), plain, max_physical_batch=8),
        torch.rand(2, 1, 12, 12),
        torch.tensor([0, 1]),
        mechanism=plain,
        expected_batch=2.0,
        noise=seeded_noise(generator(0, "n")),
    )
    assert math.isnan(step.noise_to_resolution)


def test_poisson_batches_include_every_record_independently_at_the_sample_rate() -> None:
    n, q, steps = 50, 0.2, 4000
    drawn = torch.zeros(steps, n)
    for row, indices in zip(
        drawn, poisson_batches(num_records=n, sample_rate=q, steps=steps, generator=generator(0, "b")), strict=True
    ):
        row[indices] = 1
    standard_error = math.sqrt(q * (1 - q) / steps)
    assert float((drawn.mean(dim=0) - q).abs().max()) < 5 * standard_error
    # Independent inclusions: the batch size has the binomial variance, not a fixed size.
    assert float(drawn.sum(dim=1).var()) == pytest.approx(n * q * (1 - q), rel=0.1)


def test_a_full_sample_rate_takes_everybody_and_a_small_one_can_take_nobody() -> None:
    everybody = list(poisson_batches(num_records=7, sample_rate=1.0, steps=2, generator=generator(0, "b")))
    assert [len(batch) for batch in everybody] == [7, 7]
    rare = list(poisson_batches(num_records=3, sample_rate=0.01, steps=200, generator=generator(0, "b")))
    assert any(len(batch) == 0 for batch in rare)
