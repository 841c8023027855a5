"""ReLUs that answer as ever and are differentiated by a sigmoid."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hbdp_fed.adversary.final_model.smooth_relu import SmoothReLU, with_smooth_relus
from hbdp_fed.models import build_model
from hbdp_fed.types import ModelSpec


def test_outputs_are_a_relus_and_the_derivative_is_a_sigmoid() -> None:
    values = torch.linspace(-2, 2, 41, dtype=torch.float64, requires_grad=True)
    outputs = SmoothReLU(5.0)(values)
    assert torch.equal(outputs.detach(), values.detach().relu())
    (gradient,) = torch.autograd.grad(outputs.sum(), values)
    torch.testing.assert_close(gradient, torch.sigmoid(5.0 * values.detach()))


def test_the_derivative_can_itself_be_differentiated() -> None:
    values = torch.tensor([-0.3, 0.0, 0.2], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(SmoothReLU(4.0)(values).sum(), values, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), values)
    smooth = torch.sigmoid(4.0 * values.detach())
    torch.testing.assert_close(second, 4.0 * smooth * (1 - smooth))


def test_a_steep_slope_is_the_step_itself() -> None:
    values = torch.tensor([-1e-2, 1e-2], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(SmoothReLU(1e5)(values).sum(), values)
    torch.testing.assert_close(gradient, torch.tensor([0.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("slope", [0.0, -1.0, float("nan")])
def test_a_slope_that_is_not_positive_is_refused(slope: float) -> None:
    with pytest.raises(ValueError, match="slope must be positive"):
        SmoothReLU(slope)


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("mlp", {"in_channels": 1, "num_classes": 2, "image_size": [16, 16], "hidden": [5, 4]}),
        ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4}),
    ],
    ids=lambda spec: spec.name,
)
def test_every_relu_of_a_copy_is_smooth_and_the_answers_stay(spec: ModelSpec) -> None:
    model, images = build_model(spec).eval(), torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    before = sum(isinstance(module, nn.ReLU) for module in model.modules())
    smooth = with_smooth_relus(model, 7.0)
    assert sum(isinstance(module, SmoothReLU) for module in smooth.modules()) == before > 0
    assert not any(isinstance(module, nn.ReLU) for module in smooth.modules())
    assert sum(isinstance(module, nn.ReLU) for module in model.modules()) == before
    torch.testing.assert_close(smooth(images), model(images))


def test_a_net_without_relus_stays_as_it_is() -> None:
    model = build_model(ModelSpec("resnet9", {"in_channels": 1, "num_classes": 2, "width": 8})).eval()
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    smooth = with_smooth_relus(model, 7.0)
    assert not any(isinstance(module, SmoothReLU) for module in smooth.modules())
    assert torch.equal(smooth(images), model(images))


def test_a_relu_by_itself_is_replaced_too() -> None:
    assert isinstance(with_smooth_relus(nn.ReLU(), 7.0), SmoothReLU)
