"""A weight-standardised convolution is the plain one with filters of mean 0 and variance 1, and trains like one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from hbdp_fed.models.standardized import (
    WeightStandardizedConv1d,
    WeightStandardizedConv2d,
    WeightStandardizedConv3d,
    standardize,
)

LAYERS = {1: WeightStandardizedConv1d, 2: WeightStandardizedConv2d, 3: WeightStandardizedConv3d}
PLAIN = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
DIMENSIONS = pytest.mark.parametrize("dims", [1, 2, 3])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layer(dims: int, *args: Any, **options: Any) -> nn.Module:
    """A layer in float64 whose weights come from a stream of their own."""
    built = LAYERS[dims](*args, **options, dtype=torch.float64)
    with torch.no_grad():
        for seed, parameter in enumerate(built.parameters(), start=1):
            parameter.copy_(0.3 * draw(*parameter.shape, seed=seed) + 0.1)
    return built


def by_hand(weight: Tensor, eps: float) -> Tensor:
    """Filter by filter, in NumPy."""
    filters = weight.detach().numpy()
    rows = [(each - each.mean()) / np.sqrt(np.mean((each - each.mean()) ** 2) + eps) for each in filters]
    return torch.from_numpy(np.stack(rows))


@DIMENSIONS
def test_every_filter_has_mean_zero_and_variance_one_over_its_inputs(dims: int) -> None:
    weight = 7 * draw(5, 4, *[3] * dims) - 2
    filters = standardize(weight, 1e-5).numpy().reshape(5, -1)
    np.testing.assert_allclose(filters.mean(axis=1), 0, atol=1e-14)
    np.testing.assert_allclose(filters.var(axis=1), 1, rtol=1e-6)


def test_eps_stands_under_the_root() -> None:
    weight = 0.02 * draw(3, 2, 3, 3)
    variance = weight.numpy().reshape(3, -1).var(axis=1)
    filters = standardize(weight, 1e-3).numpy().reshape(3, -1)
    np.testing.assert_allclose(filters.var(axis=1), variance / (variance + 1e-3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_precision_stays(dtype: torch.dtype) -> None:
    assert standardize(draw(3, 2, 3).to(dtype), 1e-5).dtype == dtype


@DIMENSIONS
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1},
        {"groups": 2, "bias": False},
        {"dilation": 2, "padding": 2},
        {"stride": 3, "dilation": 2, "groups": 2, "padding": 1},
    ],
)
def test_it_is_the_plain_convolution_with_standardised_filters(dims: int, options: dict[str, Any]) -> None:
    built = layer(dims, 4, 6, kernel_size=3, **options)
    inputs = draw(2, 4, *[9] * dims, seed=9)
    functional_options = {key: value for key, value in options.items() if key != "bias"}
    expected = CONVOLVE[dims](inputs, by_hand(built.weight, 1e-5), built.bias, **functional_options)
    torch.testing.assert_close(built(inputs), expected, rtol=1e-12, atol=1e-12)


@DIMENSIONS
@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_padding_modes_keep_working(dims: int, mode: str) -> None:
    built = layer(dims, 2, 3, kernel_size=3, padding=1, stride=2, padding_mode=mode)
    inputs = draw(2, 2, *[6] * dims, seed=9)
    padded = F.pad(inputs, [1] * (2 * dims), mode=mode)
    expected = CONVOLVE[dims](padded, by_hand(built.weight, 1e-5), built.bias, stride=2)
    torch.testing.assert_close(built(inputs), expected, rtol=1e-12, atol=1e-12)


@DIMENSIONS
def test_gradients_agree_with_finite_differences(dims: int) -> None:
    built = layer(dims, 2, 4, kernel_size=2, groups=2, stride=2)
    names = [name for name, _ in built.named_parameters()]

    def call(inputs: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(built, dict(zip(names, parameters, strict=True)), (inputs,))

    arguments = [draw(2, 2, *[4] * dims, seed=9), *(value.detach().clone() for value in built.parameters())]
    assert torch.autograd.gradcheck(call, [value.requires_grad_() for value in arguments])


def test_a_filters_shift_is_lost_and_gets_no_gradient() -> None:
    built = layer(2, 2, 3, kernel_size=3)
    inputs = draw(2, 2, 5, 5, seed=9)
    before = built(inputs)
    before.square().sum().backward()
    torch.testing.assert_close(built.weight.grad.sum(dim=(1, 2, 3)), torch.zeros(3, dtype=torch.float64))
    with torch.no_grad():
        built.weight += draw(3, 1, 1, 1, seed=10)
    torch.testing.assert_close(built(inputs), before)


def test_a_constant_filter_gives_the_bias_and_a_finite_gradient() -> None:
    built = layer(2, 2, 3, kernel_size=3)
    with torch.no_grad():
        built.weight.fill_(0.5)
    outputs = built(draw(2, 2, 5, 5, seed=9))
    torch.testing.assert_close(outputs, built.bias[None, :, None, None].expand_as(outputs))
    outputs.square().sum().backward()
    assert bool(built.weight.grad.isfinite().all())


@DIMENSIONS
def test_it_is_stored_as_a_plain_convolution(dims: int) -> None:
    built, plain = layer(dims, 2, 3, kernel_size=3), PLAIN[dims](2, 3, kernel_size=3)
    assert isinstance(built, PLAIN[dims])
    assert built.state_dict().keys() == plain.state_dict().keys() == {"weight", "bias"}


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@DIMENSIONS
def test_opacus_accepts_it_and_gives_each_records_own_gradient(dims: int) -> None:
    built, inputs = layer(dims, 2, 3, kernel_size=3, padding=1), draw(3, 2, *[5] * dims, seed=9)
    assert ModuleValidator.validate(built, strict=False) == []
    alone = []
    for record in range(3):
        built.zero_grad()
        built(inputs[record : record + 1]).square().sum().backward()
        alone.append(built.weight.grad.clone())
    wrapped = GradSampleModule(built, loss_reduction="sum", strict=True)
    wrapped(inputs).square().sum().backward()
    torch.testing.assert_close(built.weight.grad_sample, torch.stack(alone))
