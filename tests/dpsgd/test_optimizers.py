"""Optimisers against hand-written steps, and the way back from a first step to its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hbdp_fed.dpsgd.optimizers import OPTIMIZERS, build_optimizer, first_gradient
from hbdp_fed.errors import SettingError
from hbdp_fed.types import OptimizerSettings

WEIGHT_DECAYS = (0.0, 0.05)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wide_gradients(count: int = 500) -> Tensor:
    """float64 (count,): both signs, from 1e-12 to 1, and an exact zero."""
    generator = stream()
    magnitudes = 10 ** (-12 * torch.rand(count, dtype=torch.float64, generator=generator))
    gradients = magnitudes * torch.randn(count, generator=generator).sign()
    gradients[0] = 0.0
    return gradients


def stepped(settings: OptimizerSettings, start: Tensor, *gradients: Tensor) -> Tensor:
    weight = start.double().clone()
    optimizer = build_optimizer([weight], settings)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight


def torchs_own(settings: OptimizerSettings, weight: Tensor) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.name == "sgd":
        return torch.optim.SGD([weight], lr=rate, momentum=settings.momentum, weight_decay=decay)
    betas = (settings.momentum, 0.999)
    if settings.name == "adamw":
        return torch.optim.AdamW([weight], lr=rate, betas=betas, weight_decay=decay)
    return torch.optim.NAdam([weight], lr=rate, betas=betas, weight_decay=decay, decoupled_weight_decay=True)


@pytest.mark.parametrize("weight_decay", WEIGHT_DECAYS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_step_is_torchs_own(name: str, weight_decay: float) -> None:
    settings = OptimizerSettings(name, 0.02, 0.8, weight_decay)
    start = torch.randn(50, generator=stream(1), dtype=torch.float64)
    gradients = [torch.randn(50, generator=stream(i), dtype=torch.float64) for i in (2, 3, 4)]
    expected = start.clone()
    optimizer = torchs_own(settings, expected)
    for gradient in gradients:
        expected.grad = gradient.clone()
        optimizer.step()
    assert torch.equal(stepped(settings, start, *gradients), expected)


@pytest.mark.parametrize("weight_decay", WEIGHT_DECAYS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("learning_rate", [0.3, 1e-3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_first_step_gives_its_gradient_back(
    name: str, learning_rate: float, momentum: float, weight_decay: float
) -> None:
    settings = OptimizerSettings(name, learning_rate, momentum, weight_decay)
    gradient = wide_gradients()
    # As a server hands them out; exact in float64.
    start = 0.1 * torch.randn(len(gradient), generator=stream(5))
    delta = stepped(settings, start, gradient) - start.double()
    found = first_gradient({"w": delta}, {"w": start, "another": start}, settings)
    assert found.keys() == {"w"}
    assert found["w"].dtype == torch.float64
    # What float64 keeps of a step beside the weight: sgd's is linear, the others are nearly all of one length.
    lost = 1e-15 * (1 + start.double().abs() / learning_rate)
    if name != "sgd":
        lost = 10 * (1 + start.double().abs() / learning_rate) * 2.0**-53 * (gradient.abs() + 1e-8) ** 2 / 1e-8
    assert bool(((found["w"] - gradient).abs() <= lost).all())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_from_weights_of_zero_the_relative_error_is_below_a_millionth_and_zero_stays_zero(name: str) -> None:
    settings = OptimizerSettings(name, 1e-3, 0.9)
    gradient, start = wide_gradients(), torch.zeros(500)
    found = first_gradient({"w": stepped(settings, start, gradient)}, {"w": start}, settings)["w"]
    assert float(found[0]) == 0.0
    assert float(((found - gradient).abs() / gradient.abs())[1:].max()) < 1e-6


@pytest.mark.parametrize("name", ["nadam", "adamw"])
def test_the_longest_step_is_a_large_finite_gradient(name: str) -> None:
    settings = OptimizerSettings(name, 1e-3, 0.9)
    start, gradient = torch.zeros(2), torch.tensor([1e12, -1e12], dtype=torch.float64)
    found = first_gradient({"w": stepped(settings, start, gradient)}, {"w": start}, settings)["w"]
    assert bool(torch.isfinite(found).all())
    assert found.sign().tolist() == [1, -1]
    assert float(found.abs().min()) > 1e6


def test_nadams_first_step_has_the_length_that_its_paper_gives() -> None:
    """Dozat 2016 in PyTorch's form; agreement to the float32 in which PyTorch keeps the product of the momenta."""
    beta, mu = 0.9, [0.9 * (1 - 0.5 * 0.96 ** (t * 4e-3)) for t in (1, 2)]
    expected = 1 + mu[1] * (1 - beta) / (1 - mu[0] * mu[1])
    step = stepped(OptimizerSettings("nadam", 1.0, beta), torch.zeros(1), torch.full((1,), 1e3, dtype=torch.float64))
    assert float(step) == pytest.approx(-expected, rel=1e-7)
    assert not math.isclose(expected, 1.0, rel_tol=0.05)


def test_an_unknown_optimizer_names_the_setting() -> None:
    unknown = OptimizerSettings("lion", 0.1, 0.0)
    for use in (lambda: build_optimizer([torch.zeros(1)], unknown), lambda: first_gradient({}, {}, unknown)):
        with pytest.raises(SettingError, match=r"training\.optimizer: 'lion' is not known; .*: adamw, nadam, sgd"):
            use()
