"""Clipped sums against plain back-propagation record by record, and against Opacus' own optimiser."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from hbdp_fed.dpsgd import clip_factors, clipped_summer, plain_summer, record_losses
from hbdp_fed.models import build_model
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelSpec

CNN = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})


def batch(records: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = generator(seed, "batch")
    return torch.rand(records, 1, 12, 12, generator=g), torch.randint(0, 2, (records,), generator=g)


def one_by_one(model: nn.Module, images: Tensor, labels: Tensor, clip: float) -> tuple[dict[str, Tensor], list[float]]:
    """The definition: differentiate each record alone, clip, add."""
    names = [name for name, _ in model.named_parameters()]
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in model.named_parameters()}
    norms = []
    for i in range(len(labels)):
        loss = record_losses(model(images[i : i + 1]), labels[i : i + 1]).sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
        norms.append(norm)
        for name, g in zip(names, gradients, strict=True):
            total[name] += g.double() * min(1.0, clip / norm)
    return total, norms


@pytest.mark.parametrize("clip", [1e-3, 0.5, 1e3])
def test_the_clipped_sum_is_what_its_definition_says(clip: float) -> None:
    model = build_model(CNN).double()
    images, labels = batch(9)
    expected, norms = one_by_one(model, images.double(), labels, clip)
    found = clipped_summer(copy.deepcopy(model), max_grad_norm=clip, max_physical_batch=64)(images.double(), labels)
    assert found.norms.tolist() == pytest.approx(norms, rel=1e-10)
    for name, value in expected.items():
        torch.testing.assert_close(found.total[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_the_clipped_sum_agrees_with_opacus_optimizer() -> None:
    model = build_model(CNN).double()
    images, labels = batch(8)
    reference = GradSampleModule(copy.deepcopy(model), loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(reference.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=0.3,
        expected_batch_size=8,
        loss_reduction="sum",
    )
    record_losses(reference(images.double()), labels).sum().backward()
    optimizer.clip_and_accumulate()
    found = clipped_summer(model, max_grad_norm=0.3, max_physical_batch=3)(images.double(), labels)
    for name, parameter in reference._module.named_parameters():
        # Opacus adds 1e-6 to every norm before it divides.
        torch.testing.assert_close(found.total[name], parameter.summed_grad, rtol=1e-4, atol=1e-6)


@settings(max_examples=15)
@given(records=st.integers(1, 12), clip=st.floats(1e-4, 10.0), seed=st.integers(0, 100))
def test_removing_a_record_changes_the_sum_by_at_most_the_clipping_norm(records: int, clip: float, seed: int) -> None:
    images, labels = batch(records, seed)
    summer = clipped_summer(build_model(CNN), max_grad_norm=clip, max_physical_batch=64)
    whole, without = summer(images, labels).total, summer(images[1:], labels[1:]).total
    change = math.sqrt(sum(float((whole[name] - without[name]).square().sum()) for name in whole))
    assert change <= clip * (1 + 1e-4)


@pytest.mark.parametrize("physical", [1, 3, 7, 100])
def test_micro_batches_change_nothing(physical: int) -> None:
    model = build_model(CNN)
    images, labels = batch(7)
    whole = clipped_summer(copy.deepcopy(model), max_grad_norm=0.1, max_physical_batch=7)(images, labels)
    split = clipped_summer(copy.deepcopy(model), max_grad_norm=0.1, max_physical_batch=physical)(images, labels)
    for name, value in whole.total.items():
        torch.testing.assert_close(split.total[name], value, rtol=1e-4, atol=1e-7)
    assert split.num_records == whole.num_records == 7


def test_an_empty_batch_sums_to_zero() -> None:
    for summer in (
        clipped_summer(build_model(CNN), max_grad_norm=1.0, max_physical_batch=8),
        plain_summer(build_model(CNN), max_physical_batch=8),
    ):
        found = summer(torch.zeros(0, 1, 12, 12), torch.zeros(0, dtype=torch.int64))
        assert found.num_records == 0
        assert all(not value.any() and value.dtype == torch.float64 for value in found.total.values())


def test_without_clipping_the_sum_is_the_batch_gradient() -> None:
    # In float64: a sum by micro-batches and one by the whole batch differ by roundings of the largest summands.
    model = build_model(CNN).double()
    images, labels = batch(10)
    images = images.double()
    found = plain_summer(copy.deepcopy(model), max_physical_batch=4)(images, labels)
    record_losses(model(images), labels).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found.total[name].double(), parameter.grad, rtol=1e-9, atol=1e-12)


def test_a_record_whose_gradient_overflows_is_left_out_not_let_through() -> None:
    images, labels = batch(4)
    broken = images.clone()
    broken[2] = math.inf
    model = build_model(CNN)
    found = clipped_summer(copy.deepcopy(model), max_grad_norm=1.0, max_physical_batch=8)(broken, labels)
    kept = [0, 1, 3]
    expected = clipped_summer(copy.deepcopy(model), max_grad_norm=1.0, max_physical_batch=8)(images[kept], labels[kept])
    for name, value in expected.total.items():
        torch.testing.assert_close(found.total[name], value, rtol=1e-4, atol=1e-7)


def test_clip_factors_are_one_at_and_below_the_norm() -> None:
    factors = clip_factors(torch.tensor([0.0, 0.5, 1.0, 4.0, math.inf, math.nan]), 1.0)
    assert factors.tolist() == [1.0, 1.0, 1.0, 0.25, 0.0, 0.0]


def test_a_layer_that_mixes_records_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(400, 2))
    with pytest.raises(ValueError, match="per-record clipping"):
        clipped_summer(model, max_grad_norm=1.0, max_physical_batch=8)
