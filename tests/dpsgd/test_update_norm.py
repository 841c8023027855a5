"""The longest update that honest training can send: never exceeded, and not much longer than what is seen."""

from __future__ import annotations

import math

import pytest
import torch

from hbdp_fed.dpsgd import largest_update_norm, seeded_noise
from hbdp_fed.dpsgd.noise import noise_like
from hbdp_fed.dpsgd.optimizers import build_optimizer
from hbdp_fed.seeding import generator
from hbdp_fed.types import DpSgdParams, OptimizerSettings

SIZE, RECORDS, STEPS = 500, 40, 12


def longest_seen(mechanism: DpSgdParams, optimizer: OptimizerSettings, *, aligned: bool) -> float:
    """The length of an update whose records all pull as hard as clipping allows, in one direction or in any."""
    draw = generator(0, "update-norm", optimizer.name)
    weights = torch.randn(SIZE, generator=draw, dtype=torch.float64)
    start = weights.clone()
    step = build_optimizer([weights], optimizer)
    direction = torch.randn(SIZE, generator=draw, dtype=torch.float64)
    for _ in range(STEPS):
        if not aligned:
            direction = torch.randn(SIZE, generator=draw, dtype=torch.float64)
        pull = direction / direction.norm() * mechanism.max_grad_norm * RECORDS
        noise = torch.randn(SIZE, generator=draw, dtype=torch.float64)
        noisy = pull + noise * mechanism.noise_multiplier * mechanism.max_grad_norm
        weights.grad = noisy / (mechanism.sample_rate * RECORDS)
        step.step()
    return float((weights - start).norm())


def bound(mechanism: DpSgdParams, optimizer: OptimizerSettings) -> float:
    start = float(torch.randn(SIZE, generator=generator(0, "update-norm", optimizer.name), dtype=torch.float64).norm())
    return largest_update_norm(
        mechanism, optimizer, num_units=RECORDS, num_parameters=SIZE, steps=STEPS, start_norm=start
    )


@pytest.mark.parametrize("name", ["sgd", "nadam", "adamw"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("sigma", [0.0, 0.5, 20.0])
@pytest.mark.parametrize("aligned", [True, False])
def test_no_honest_update_is_longer(name: str, decay: float, sigma: float, aligned: bool) -> None:
    mechanism = DpSgdParams(noise_multiplier=sigma, max_grad_norm=0.7, sample_rate=1.0, steps=STEPS)
    optimizer = OptimizerSettings(name, 0.1, 0.9, weight_decay=decay)
    assert longest_seen(mechanism, optimizer, aligned=aligned) <= bound(mechanism, optimizer)


def test_plain_sgd_whose_records_agree_comes_within_a_rounding_of_it() -> None:
    mechanism = DpSgdParams(noise_multiplier=0.0, max_grad_norm=0.7, sample_rate=1.0, steps=STEPS)
    optimizer = OptimizerSettings("sgd", 0.1, 0.0)
    assert longest_seen(mechanism, optimizer, aligned=True) == pytest.approx(bound(mechanism, optimizer), rel=1e-12)
    assert bound(mechanism, optimizer) == pytest.approx(0.1 * STEPS * 0.7, rel=1e-12)


def test_a_batch_is_no_larger_than_chance_allows() -> None:
    mechanism = DpSgdParams(noise_multiplier=0.0, max_grad_norm=1.0, sample_rate=0.01, steps=1)
    found = largest_update_norm(
        mechanism, OptimizerSettings("sgd", 1.0, 0.0), num_units=10_000, num_parameters=10, steps=1, start_norm=0.0
    )
    # 100 records are expected with a standard deviation of 10; more than 175 in one of 1e12 steps.
    assert 1.6 < found < 1.8


def test_without_clipping_plain_sgd_has_no_longest_update() -> None:
    mechanism = DpSgdParams(noise_multiplier=0.0, max_grad_norm=math.inf, sample_rate=0.5, steps=1)
    assert bound(mechanism, OptimizerSettings("sgd", 0.1)) == math.inf
    assert math.isfinite(bound(mechanism, OptimizerSettings("adamw", 0.1)))


def test_the_noise_alone_exceeds_its_share_next_to_never() -> None:
    mechanism = DpSgdParams(noise_multiplier=2.0, max_grad_norm=1.0, sample_rate=1e-9, steps=1)
    found = largest_update_norm(
        mechanism, OptimizerSettings("sgd", 1.0, 0.0), num_units=1, num_parameters=SIZE, steps=1, start_norm=0.0
    )
    draw = generator(1, "noise")
    source = seeded_noise(draw)
    lengths = [float(noise_like(torch.empty(SIZE), std=2.0, source=source).norm()) / 1e-9 for _ in range(200)]
    assert max(lengths) < found < 1.5 * max(lengths)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_no_corrected_update_is_longer_and_the_longest_comes_within_a_rounding(momentum: float, sigma: float) -> None:
    """Every gradient as long as it can be, the hospital's control variate against it, everybody's along it."""
    mechanism = DpSgdParams(noise_multiplier=sigma, max_grad_norm=0.7, sample_rate=1.0, steps=STEPS)
    optimizer = OptimizerSettings("sgd", 0.1, momentum)
    draw = generator(0, "corrected")
    direction = torch.randn(SIZE, generator=draw, dtype=torch.float64)
    direction /= direction.norm()

    def gradient(sign: float) -> torch.Tensor:
        noise = torch.randn(SIZE, generator=draw, dtype=torch.float64) * sigma * 0.7
        return (sign * 0.7 * RECORDS * direction + noise) / RECORDS

    own = torch.stack([gradient(-1.0) for _ in range(STEPS)]).mean(dim=0)
    weights = torch.zeros(SIZE, dtype=torch.float64)
    step = build_optimizer([weights], optimizer)
    for _ in range(STEPS):
        weights.grad = gradient(1.0) - own + 3.0 * direction
        step.step()
    allowed = largest_update_norm(
        mechanism, optimizer, num_units=RECORDS, num_parameters=SIZE, steps=STEPS, start_norm=0.0, control_norm=3.0
    )
    found = float(weights.norm())
    assert found <= allowed * (1 + 1e-12)
    if momentum == sigma == 0:
        assert found == pytest.approx(allowed, rel=1e-12)
        assert allowed == pytest.approx(0.1 * STEPS * (0.7 + 0.7 + 3.0), rel=1e-12)
