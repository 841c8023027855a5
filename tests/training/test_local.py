"""Local training against a hand-written loop, and what its delta keeps of the noise."""

from __future__ import annotations

import math

import pytest
import torch

from hbdp_fed.dpsgd import clipped_summer, gaussian_noise, poisson_batches
from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model, initial_weights, load_weights
from hbdp_fed.seeding import generator
from hbdp_fed.training import LocalResult, OptimizerSettings, train_locally
from hbdp_fed.types import DpSgdParams, ModelSpec

SPEC = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
IMAGES = torch.rand(30, 1, 12, 12, generator=generator(0, "images"))
LABELS = torch.randint(0, 2, (30,), generator=generator(0, "labels"))
WEIGHTS = initial_weights(build_model(SPEC), generator(0, "weights"))
SGD = OptimizerSettings("sgd", learning_rate=0.2, momentum=0.9)


def train(mechanism: DpSgdParams, steps: int, optimizer: OptimizerSettings = SGD, physical: int = 64) -> LocalResult:
    return train_locally(
        architecture=SPEC,
        weights=WEIGHTS,
        images=IMAGES,
        labels=LABELS,
        mechanism=mechanism,
        steps=steps,
        optimizer=optimizer,
        max_physical_batch=physical,
        batch_generator=generator(0, "b"),
        noise_generator=generator(0, "n"),
        device=torch.device("cpu"),
    )


def test_the_delta_is_momentum_sgd_on_the_noisy_gradients() -> None:
    mechanism = DpSgdParams(noise_multiplier=0.3, max_grad_norm=0.5, sample_rate=0.4, steps=3)
    model = build_model(SPEC)
    load_weights(model, WEIGHTS)
    summer = clipped_summer(model, max_grad_norm=0.5, max_physical_batch=64)
    master = {name: value.double() for name, value in WEIGHTS.items()}
    velocity = {name: torch.zeros_like(value) for name, value in master.items()}
    noise_generator = generator(0, "n")
    for indices in poisson_batches(num_records=30, sample_rate=0.4, steps=3, generator=generator(0, "b")):
        total = summer(IMAGES[indices], LABELS[indices]).total
        noise = gaussian_noise(total, std=0.3 * 0.5, generator=noise_generator)
        for name in master:
            velocity[name] = 0.9 * velocity[name] + (total[name] + noise[name]) / 12.0
            master[name] = master[name] - 0.2 * velocity[name]
        load_weights(model, master)
    found = train(mechanism, steps=3).delta
    for name, value in master.items():
        torch.testing.assert_close(found[name], value - WEIGHTS[name].double(), rtol=1e-9, atol=1e-13)


def test_the_noise_of_a_huge_budget_arrives_whole() -> None:
    """At sigma 4.7e-6 float32 weights would round one step's noise; the delta keeps it to one part in a thousand."""
    sigma, clip, rate = 4.7e-6, 1.0, 0.4
    noisy = train(DpSgdParams(sigma, clip, rate, 1), steps=1).delta
    clean = train(DpSgdParams(0.0, clip, rate, 1), steps=1).delta
    expected = gaussian_noise(WEIGHTS, std=sigma * clip, generator=generator(0, "n"))
    for name, noise in expected.items():
        scaled = -0.2 * noise / 12.0
        torch.testing.assert_close(noisy[name] - clean[name], scaled, rtol=1e-3, atol=1e-3 * float(scaled.std()))
    # The trap that this avoids: weights sent in float32 carry noise that is rounded by more than a thousandth.
    name = "head.weight"
    start = WEIGHTS[name].double()
    rounded = (start + noisy[name]).float().double() - (start + clean[name]).float().double()
    assert float((rounded - (noisy[name] - clean[name])).abs().max()) > 0.05 * 0.2 * sigma / 12.0


def test_without_privacy_it_is_plain_sgd_on_the_batch_sum() -> None:
    mechanism = DpSgdParams(noise_multiplier=0.0, max_grad_norm=math.inf, sample_rate=1.0, steps=1)
    model = build_model(SPEC)
    load_weights(model, WEIGHTS)
    torch.nn.functional.cross_entropy(model(IMAGES), LABELS).backward()
    found = train(mechanism, steps=1).delta
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(found[name].float(), -0.2 * parameter.grad, rtol=1e-4, atol=1e-6)


def test_the_physical_batch_changes_nothing() -> None:
    mechanism = DpSgdParams(noise_multiplier=1e-4, max_grad_norm=0.5, sample_rate=0.5, steps=4)
    whole, split = train(mechanism, steps=4).delta, train(mechanism, steps=4, physical=4).delta
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, rtol=1e-3, atol=1e-6)


def test_empty_batches_train_on_noise_alone() -> None:
    mechanism = DpSgdParams(noise_multiplier=1.0, max_grad_norm=1.0, sample_rate=1e-6, steps=2)
    found = train(mechanism, steps=2)
    assert found.records_seen == 0
    assert math.isnan(found.loss)
    assert all(bool(value.any()) for value in found.delta.values())


def test_an_unknown_optimizer_names_the_setting() -> None:
    mechanism = DpSgdParams(noise_multiplier=0.0, max_grad_norm=math.inf, sample_rate=1.0, steps=1)
    with pytest.raises(SettingError, match=r"training\.optimizer: 'lion' is not known; choose one of: sgd"):
        train(mechanism, steps=1, optimizer=OptimizerSettings("lion", 0.1, 0.0))
