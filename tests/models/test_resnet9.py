"""ResNet-9 is the paper's net: its blocks, its size, and nothing that mixes records."""

from __future__ import annotations

import pytest
import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.nn import functional as F

from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model, initial_weights, load_weights, weights_sha256
from hbdp_fed.models.resnet9 import ResNet9
from hbdp_fed.models.standardized import WeightStandardizedConv2d, WeightStandardizedConv3d, standardize
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelSpec
from tests.dpsgd.references import assert_same, clipped, randomised


def spec(**changes: int) -> ModelSpec:
    return ModelSpec("resnet9", {"in_channels": 3, "num_classes": 2, "width": 8} | changes)


def net(**changes: int) -> nn.Module:
    """A seeded net in float64, its norms and biases moved away from 1 and 0."""
    model = build_model(spec(**changes))
    stream = generator(0, "resnet9")
    load_weights(model, initial_weights(model, stream))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=stream), alpha=0.1)
    return model.double()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def count_by_hand(in_channels: int, num_classes: int, width: int, spatial_dims: int = 2) -> int:
    inputs_and_outputs = [
        (in_channels, width),
        (width, 2 * width),
        *[(2 * width, 2 * width)] * 2,
        (2 * width, 4 * width),
        *[(4 * width, 4 * width)] * 3,
    ]
    convolutions = sum(3**spatial_dims * before * after for before, after in inputs_and_outputs)
    scale_norms = 2 * (2 * width + 4 * width)
    norms = sum(2 * after for _, after in inputs_and_outputs) + scale_norms
    return convolutions + norms + (2**spatial_dims * 4 * width + 1) * num_classes


@pytest.mark.parametrize(("in_channels", "num_classes", "width"), [(3, 2, 64), (1, 9, 16), (3, 5, 12)])
def test_the_number_of_weights_is_the_papers(in_channels: int, num_classes: int, width: int) -> None:
    model = ResNet9(in_channels, num_classes, width)
    assert sum(p.numel() for p in model.parameters()) == count_by_hand(in_channels, num_classes, width)


def test_the_default_width_has_two_and_a_half_million_weights() -> None:
    assert sum(p.numel() for p in ResNet9(3, 2).parameters()) == 2_440_514


def test_the_forward_pass_is_the_papers() -> None:
    model, images = net(), draw(2, 3, 20, 24)
    weights = {name: value.detach() for name, value in model.named_parameters()}

    def norm(x: Tensor, name: str) -> Tensor:
        return F.group_norm(x, min(32, x.shape[1]), weights[f"{name}.weight"], weights[f"{name}.bias"])

    def block(x: Tensor, name: str) -> Tensor:
        x = norm(F.conv2d(x, standardize(weights[f"{name}.0.weight"], 1e-5), padding=1), f"{name}.1")
        return x * torch.tanh(torch.log1p(torch.exp(x)))  # Mish, Misra 2019

    x = F.max_pool2d(block(block(2 * images - 1, "conv1"), "conv2"), 2)
    x = norm(x + block(block(x, "res1.0"), "res1.1"), "scale_norm1")
    x = F.max_pool2d(block(x, "conv3"), 2)
    x = F.max_pool2d(block(x, "conv4"), 2)
    x = norm(x + block(block(x, "res2.0"), "res2.1"), "scale_norm2")
    x = F.adaptive_max_pool2d(x, 2).flatten(start_dim=1)
    expected = x @ weights["head.weight"].T + weights["head.bias"]
    torch.testing.assert_close(model(images), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (17, 40)])
@pytest.mark.parametrize("width", [4, 8, 12])
def test_it_has_one_logit_a_class(size: tuple[int, int], width: int) -> None:
    logits = net(in_channels=1, num_classes=5, width=width)(draw(2, 1, *size))
    assert logits.shape == (2, 5)
    assert bool(logits.isfinite().all())


def test_no_record_changes_anothers_logits() -> None:
    model, images = net(), draw(4, 3, 18, 16)
    alone = torch.cat([model(images[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(model(images), alone, rtol=1e-12, atol=1e-12)


def test_training_and_evaluation_are_the_same_function() -> None:
    model, images = net(), draw(2, 3, 16, 16)
    assert torch.equal(model.train()(images), model.eval()(images))


def test_it_has_no_buffers_and_no_convolution_with_a_bias() -> None:
    model = net()
    assert dict(model.named_buffers()) == {}
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 8
    assert all(type(module) is WeightStandardizedConv2d and module.bias is None for module in convolutions)


@pytest.mark.parametrize(("width", "groups"), [(64, [32]), (16, [16, 32]), (4, [4, 8, 16]), (12, [4, 8, 16])])
def test_norms_have_32_groups_or_as_many_as_divide_their_channels(width: int, groups: list[int]) -> None:
    found = {module.num_groups for module in ResNet9(1, 2, width).modules() if isinstance(module, nn.GroupNorm)}
    assert sorted(found) == groups


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_opacus_accepts_it_and_gives_every_parameter_a_gradient_per_record() -> None:
    model, images = net(), draw(2, 3, 16, 16)
    assert ModuleValidator.validate(model, strict=False) == []
    alone = []
    for record in range(2):
        model.zero_grad()
        model(images[record : record + 1]).square().sum().backward()
        alone.append({name: value.grad.clone() for name, value in model.named_parameters()})
    GradSampleModule(model, loss_reduction="sum", strict=True)(images).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad_sample, torch.stack([each[name] for each in alone]), msg=name)


def test_initial_weights_repeat_and_follow_the_seed() -> None:
    first, again, other = (initial_weights(build_model(spec()), generator(seed, "w")) for seed in (0, 0, 1))
    assert weights_sha256(first) == weights_sha256(again) != weights_sha256(other)


def test_standardised_convolutions_start_with_hes_variance() -> None:
    kernel = initial_weights(build_model(spec(width=32)), generator(0))["conv4.0.weight"]  # 128 x 128 x 3 x 3
    assert float(kernel.var()) == pytest.approx(2 / (128 * 9), rel=0.05)


@pytest.mark.parametrize("width", [-4, 0, 2, 6])
def test_a_bad_width_is_refused_by_name(width: int) -> None:
    with pytest.raises(SettingError, match=rf"model\.resnet9: width must be a positive multiple of 4, got {width}"):
        build_model(spec(width=width))


@pytest.mark.parametrize("spatial_dims", [0, 1, 4])
def test_another_number_of_dimensions_is_refused_by_name(spatial_dims: int) -> None:
    with pytest.raises(SettingError, match=rf"model\.resnet9: spatial_dims must be 2 or 3, got {spatial_dims}"):
        build_model(spec(spatial_dims=spatial_dims))


@pytest.mark.parametrize(("spatial_dims", "size"), [(2, (15, 16)), (2, (64, 8)), (2, (16, 16, 16)), (3, (16, 16, 15))])
def test_an_image_of_another_shape_or_too_small_is_refused(spatial_dims: int, size: tuple[int, ...]) -> None:
    expected = rf"images must have {spatial_dims} spatial dimensions of at least 16 .* got shape \(1, 3, "
    with pytest.raises(ValueError, match=expected):
        net(spatial_dims=spatial_dims)(draw(1, 3, *size))


@pytest.mark.parametrize("size", [(16, 16, 16), (17, 28, 20)])
def test_a_volume_has_one_logit_a_class(size: tuple[int, ...]) -> None:
    model = net(in_channels=1, num_classes=5, spatial_dims=3)
    logits = model(draw(2, 1, *size))
    assert logits.shape == (2, 5)
    assert bool(logits.isfinite().all())
    assert dict(model.named_buffers()) == {}
    assert sum(p.numel() for p in model.parameters()) == count_by_hand(1, 5, 8, spatial_dims=3)
    assert sum(isinstance(module, WeightStandardizedConv3d) for module in model.modules()) == 8


def test_no_volume_changes_anothers_logits() -> None:
    model, volumes = net(spatial_dims=3), draw(3, 3, 16, 18, 16)
    alone = torch.cat([model(volumes[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(volumes), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reference", ["torch_func", "opacus"])
@pytest.mark.parametrize("weight_standardization", [True, False])
def test_volumes_are_clipped_exactly(reference: str, weight_standardization: bool) -> None:
    model = randomised(build_model(spec(width=4, spatial_dims=3, weight_standardization=weight_standardization)))
    volumes = draw(3, 3, 16, 17, 16)
    assert_same(clipped(model, volumes, max_physical_batch=2), clipped(model, volumes, grad_mode=reference))
