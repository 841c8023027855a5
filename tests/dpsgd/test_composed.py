"""Random nets of random layers: whatever is composed, norms and clipped sums are those of torch.func and Opacus."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hbdp_fed.models import build_model
from hbdp_fed.models.standardized import WeightStandardizedConv1d, WeightStandardizedConv2d, WeightStandardizedConv3d
from hbdp_fed.types import ModelSpec
from tests.dpsgd.references import assert_same, clipped, randomised, rows

CONVOLUTIONS = {
    1: (nn.Conv1d, WeightStandardizedConv1d, nn.ConvTranspose1d, nn.InstanceNorm1d),
    2: (nn.Conv2d, WeightStandardizedConv2d, nn.ConvTranspose2d, nn.InstanceNorm2d),
    3: (nn.Conv3d, WeightStandardizedConv3d, nn.ConvTranspose3d, nn.InstanceNorm3d),
}
CHANNELS = 4


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs + torch.tanh(self.inner(inputs))


class Twice(nn.Module):
    """One layer used twice: its gradients add up before the norm is taken."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.inner(torch.tanh(self.inner(inputs)))
        return outputs


@st.composite
def layers(draw: st.DrawFn, axes: int) -> nn.Module:
    """A layer from 4 channels to 4 channels that keeps the image's size."""
    plain, standardised, transposed, instance = CONVOLUTIONS[axes]
    kernel = draw(st.sampled_from([1, 3]))
    groups = draw(st.sampled_from([1, 2, 4]))
    bias = draw(st.booleans())
    same = {"padding": kernel // 2, "groups": groups, "bias": bias}
    kinds: list[Callable[[], nn.Module]] = [
        lambda: plain(CHANNELS, CHANNELS, kernel, **same),
        lambda: standardised(CHANNELS, CHANNELS, kernel, **same),
        lambda: transposed(CHANNELS, CHANNELS, kernel, **same),
        lambda: nn.Sequential(
            plain(CHANNELS, 2 * CHANNELS, 2, stride=2), transposed(2 * CHANNELS, CHANNELS, 2, stride=2, bias=bias)
        ),
        lambda: nn.GroupNorm(groups, CHANNELS),
        lambda: instance(CHANNELS, affine=True),
        lambda: nn.LayerNorm(6, bias=True),
        lambda: nn.PReLU(draw(st.sampled_from([1, CHANNELS]))),
        lambda: nn.Linear(6, 6, bias=bias),
        nn.Mish,
        # In place behind layers whose own backward pass does not need what is overwritten.
        lambda: nn.Sequential(plain(CHANNELS, CHANNELS, 1), nn.ReLU(inplace=True)),
        lambda: nn.Sequential(standardised(CHANNELS, CHANNELS, kernel, **same), nn.LeakyReLU(0.1, inplace=True)),
    ]
    layer = draw(st.sampled_from(kinds))()
    wrapper = draw(st.sampled_from([None, Residual, Twice]))
    return layer if wrapper is None else wrapper(layer)


@st.composite
def nets(draw: st.DrawFn, axes: int) -> nn.Module:
    inner = [layer for _ in range(draw(st.integers(1, 5))) for layer in (draw(layers(axes)), nn.Tanh())]
    first, last = CONVOLUTIONS[axes][0](2, CHANNELS, 1), CONVOLUTIONS[axes][0](CHANNELS, 2, 1)
    return nn.Sequential(first, *inner, last)


@pytest.mark.parametrize(("axes", "examples"), [(1, 30), (2, 25), (3, 10)])
def test_random_nets_are_exact(axes: int, examples: int) -> None:
    @settings(max_examples=examples)
    @given(
        net=nets(axes),
        multiplicity=st.sampled_from([1, 4]),
        physical=st.sampled_from([1, 5, 64]),
        clip=st.sampled_from([1e-3, 0.3, 1e6]),
        seed=st.integers(0, 99),
    )
    def check(net: nn.Module, multiplicity: int, physical: int, clip: float, seed: int) -> None:
        model = randomised(net, seed)
        images = rows(4 * multiplicity, 2, *[6] * axes, seed=seed)
        options = {"multiplicity": multiplicity, "max_grad_norm": clip}
        found = clipped(model, images, max_physical_batch=physical, **options)
        assert_same(found, clipped(model, images, grad_mode="torch_func", **options))

    check()


@settings(max_examples=12)
@given(net=nets(2), multiplicity=st.sampled_from([1, 4]), seed=st.integers(0, 99))
def test_random_nets_agree_with_opacus(net: nn.Module, multiplicity: int, seed: int) -> None:
    # Its hooks cannot bear activations in place.
    for module in net.modules():
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            module.inplace = False
    model = randomised(net, seed)
    images = rows(3 * multiplicity, 2, 6, 6, seed=seed)
    expected = clipped(model, images, grad_mode="opacus", multiplicity=multiplicity)
    assert_same(clipped(model, images, multiplicity=multiplicity), expected)


MODELS = {
    "cnn": (ModelSpec("cnn", {"in_channels": 1, "num_classes": 3, "width": 4}), (1, 16, 16), False),
    "resnet9": (ModelSpec("resnet9", {"in_channels": 1, "num_classes": 3, "width": 4}), (1, 16, 16), False),
    "unet_2d": (ModelSpec("unet", {"in_channels": 1, "num_classes": 3, "width": 8}), (1, 16, 32), True),
    "unet_3d": (
        ModelSpec("unet", {"in_channels": 1, "num_classes": 2, "width": 8, "spatial_dims": 3}),
        (1, 16, 16, 16),
        True,
    ),
    "planted": (
        ModelSpec(
            "planted",
            {
                "base": {"name": "cnn", "args": {"in_channels": 1, "num_classes": 3, "width": 4}},
                "in_channels": 1, "num_classes": 3, "image_size": [16, 16], "rows": 8, "ceiling": 0.5,
            },
        ),
        (1, 16, 16),
        False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("reference", ["torch_func", "opacus"])
def test_every_model_of_the_registry_is_exact(name: str, reference: str) -> None:
    from hbdp_fed.dpsgd import record_losses

    spec, shape, segments = MODELS[name]
    model = randomised(build_model(spec))
    images = rows(4, *shape).sigmoid()
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (4, *shape[1:]) if segments else (4,), generator=g)
    options = {"labels": labels, "loss": record_losses, "multiplicity": 2}
    expected = clipped(model, images, grad_mode=reference, **options)
    assert_same(clipped(model, images, max_physical_batch=3, **options), expected)
