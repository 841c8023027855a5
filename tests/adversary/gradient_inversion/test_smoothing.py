"""Rounded corners: near the real net, the same parameters, and smooth where it jumps."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hbdp_fed.adversary.gradient_inversion.smoothing import smoothed
from hbdp_fed.models import build_model
from hbdp_fed.types import ModelSpec
from tests.adversary.attacking import stream

NETS = {
    "cnn": ModelSpec("cnn", {"in_channels": 1, "num_classes": 3, "width": 4}),
    "cnn of volumes": ModelSpec("cnn", {"in_channels": 1, "num_classes": 3, "width": 4, "spatial_dims": 3}),
    "resnet9": ModelSpec("resnet9", {"in_channels": 1, "num_classes": 3, "width": 4}),
}


def inputs(spec: ModelSpec, side: int = 19) -> torch.Tensor:
    sides = (side,) * spec.args.get("spatial_dims", 2)
    return torch.rand(2, 1, *sides, generator=stream(1), dtype=torch.float64)


@pytest.mark.parametrize("spec", NETS.values(), ids=NETS)
def test_narrow_corners_leave_the_net_as_it_is(spec: ModelSpec) -> None:
    model, images = build_model(spec).double(), inputs(spec)
    exact = model(images)
    gaps = [float((smoothed(model, width)(images) - exact).detach().abs().max()) for width in (0.3, 1e-2, 1e-4)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-3
    torch.testing.assert_close(smoothed(model, 0.0)(images), exact, rtol=0, atol=0)


@pytest.mark.parametrize("spec", NETS.values(), ids=NETS)
def test_no_layer_with_corners_is_left(spec: ModelSpec) -> None:
    corners = nn.ReLU | nn.MaxPool2d | nn.MaxPool3d | nn.AdaptiveMaxPool2d | nn.AdaptiveMaxPool3d
    model = build_model(spec)
    assert any(isinstance(layer, corners) for layer in model.modules())
    rounded = smoothed(model, 0.1)
    assert not any(isinstance(layer, corners) for layer in rounded.modules())
    assert [name for name, _ in rounded.named_parameters()] == [name for name, _ in model.named_parameters()]
    # And the model itself was not touched.
    assert any(isinstance(layer, corners) for layer in model.modules())


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(3), nn.MaxPool2d((2, 3)), nn.MaxPool3d(2), nn.AdaptiveMaxPool2d(2), nn.AdaptiveMaxPool2d((3, 2)),
        nn.AdaptiveMaxPool3d(2), nn.ReLU(),
        # These windows overlap or are padded: they stay as they are.
        nn.MaxPool2d(3, stride=2), nn.MaxPool2d(2, padding=1), nn.MaxPool2d(2, ceil_mode=True),
    ],
    ids=str,
)  # fmt: skip
def test_each_layer_comes_near_its_own_values(layer: nn.Module) -> None:
    values = torch.randn(2, 3, *((7,) * (3 if "3d" in str(layer) else 2)), generator=stream(2), dtype=torch.float64)
    rounded = smoothed(nn.Sequential(copy.deepcopy(layer)), 1e-5)
    torch.testing.assert_close(rounded(values), layer(values), rtol=0, atol=1e-4)


def test_the_whole_model_may_be_one_layer() -> None:
    assert not isinstance(smoothed(nn.ReLU(), 0.1), nn.ReLU)


def test_what_jumps_in_the_real_net_is_a_slope_in_the_rounded_one() -> None:
    points = torch.linspace(-1, 1, 2001, dtype=torch.float64, requires_grad=True)

    def largest_jump(layer: nn.Module) -> float:
        [slope] = torch.autograd.grad(layer(points).sum(), points)
        return float(slope.diff().abs().max())

    assert largest_jump(nn.ReLU()) == 1.0
    assert largest_jump(smoothed(nn.ReLU(), 0.1)) < 0.01
