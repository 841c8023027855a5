"""The U-Net gives each pixel or voxel its logits, keeps records apart, and costs nothing where it is not used."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model, initial_weights, load_weights, weights_sha256
from hbdp_fed.models.unet import UNet
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelSpec


def spec(**changes: int) -> ModelSpec:
    return ModelSpec("unet", {"in_channels": 1, "num_classes": 3, "width": 8} | changes)


def net(**changes: int) -> nn.Module:
    """A seeded net in float64."""
    model = build_model(spec(**changes))
    load_weights(model, initial_weights(model, generator(0, "unet")))
    return model.double()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


BOTH = pytest.mark.parametrize("spatial", [(32, 16), (16, 16, 16)])


@pytest.mark.parametrize("spatial", [(16, 16), (32, 48), (28, 17), (16, 16, 32), (16, 18, 19)])
def test_every_pixel_or_voxel_has_one_logit_a_class(spatial: tuple[int, ...]) -> None:
    logits = net(in_channels=2, spatial_dims=len(spatial))(draw(2, 2, *spatial))
    assert logits.shape == (2, 3, *spatial)
    assert bool(logits.isfinite().all())


@BOTH
def test_no_record_changes_anothers_logits(spatial: tuple[int, ...]) -> None:
    model, images = net(spatial_dims=len(spatial)), draw(3, 1, *spatial)
    alone = torch.cat([model(images[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(images), alone, rtol=1e-12, atol=1e-12)


def test_images_are_brought_from_zero_one_to_minus_one_one() -> None:
    seen: list[Tensor] = []

    class Keep(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.append(inputs)
            return inputs

    images = draw(1, 1, 16, 16)
    UNet(Keep(), spatial_dims=2)(images)
    torch.testing.assert_close(seen[0], 2 * images - 1)


class Positions(nn.Module):
    """Gives back its input: what comes out has to be what went in."""

    def forward(self, inputs: Tensor) -> Tensor:
        assert all(side % 4 == 0 for side in inputs.shape[2:])
        assert float(inputs.min()) >= -1
        self.seen = inputs
        return inputs


@pytest.mark.parametrize("spatial", [(5, 8), (6, 7), (4, 8), (5, 6, 7)])
def test_a_border_is_black_and_cut_off_again(spatial: tuple[int, ...]) -> None:
    net, images = Positions(), draw(2, 1, *spatial)
    found = UNet(net, spatial_dims=len(spatial), smallest_side=4, multiple_of=4)(images)
    torch.testing.assert_close(found, 2 * images - 1)
    # All that was added is black.
    torch.testing.assert_close((net.seen + 1).sum(), (2 * images).sum())


@BOTH
def test_training_and_evaluation_are_the_same_function(spatial: tuple[int, ...]) -> None:
    model, images = net(spatial_dims=len(spatial)), draw(1, 1, *spatial)
    assert torch.equal(model.train()(images), model.eval()(images))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_its_parts_are_those_that_dp_sgd_can_train(spatial_dims: int) -> None:
    model = net(spatial_dims=spatial_dims)
    assert dict(model.named_buffers()) == {}
    assert ModuleValidator.validate(model, strict=False) == []
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    assert {(norm.num_groups, norm.affine) for norm in norms} == {(8, True)}
    assert {m.negative_slope for m in model.modules() if isinstance(m, nn.LeakyReLU)} == {0.1}
    transposed = nn.ConvTranspose2d if spatial_dims == 2 else nn.ConvTranspose3d
    assert sum(isinstance(module, transposed) for module in model.modules()) == 4


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_number_of_weights_follows_from_the_levels(spatial_dims: int) -> None:
    w, classes = 8, 3

    def two_convolutions(before: int, after: int) -> int:
        # Kernels, biases, and the two parameters of each norm.
        return 3**spatial_dims * (before + after) * after + 2 * 3 * after

    def up(below: int, beside: int, after: int, *, upsampled: int) -> int:
        return (2**spatial_dims * below + 1) * upsampled + two_convolutions(beside + upsampled, after)

    encoder = sum(two_convolutions(*pair) for pair in [(1, w), (w, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w)])
    decoder = (
        up(8 * w, 4 * w, 4 * w, upsampled=4 * w)
        + up(4 * w, 2 * w, 2 * w, upsampled=2 * w)
        + up(2 * w, w, w, upsampled=w)
        + up(w, w, w, upsampled=w)
    )
    found = sum(parameter.numel() for parameter in net(spatial_dims=spatial_dims).parameters())
    assert found == encoder + decoder + (w + 1) * classes


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("spatial", [(16, 16), (16, 17)])
def test_opacus_gives_every_parameter_each_records_own_gradient(spatial: tuple[int, ...]) -> None:
    model, images = net(), draw(2, 1, *spatial)
    alone = []
    for record in range(2):
        model.zero_grad()
        model(images[record : record + 1]).square().sum().backward()
        alone.append({name: value.grad.clone() for name, value in model.named_parameters()})
    GradSampleModule(model, loss_reduction="sum", strict=True)(images).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad_sample, torch.stack([each[name] for each in alone]), msg=name)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_initial_weights_repeat_and_follow_the_seed(spatial_dims: int) -> None:
    first, again, other = (
        initial_weights(build_model(spec(spatial_dims=spatial_dims)), generator(seed, "w")) for seed in (0, 0, 1)
    )
    assert weights_sha256(first) == weights_sha256(again) != weights_sha256(other)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 12}, "width must be a positive multiple of 8, got 12"),
        ({"width": 0}, "width must be a positive multiple of 8, got 0"),
        ({"spatial_dims": 1}, "spatial_dims must be 2 or 3, got 1"),
        ({"depth": 3}, "depth"),
    ],
)
def test_a_bad_argument_is_refused_by_name(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(SettingError, match=rf"^model\.unet: .*{message}"):
        build_model(spec(**wrong))


@pytest.mark.parametrize("shape", [(1, 1, 15, 16), (1, 1, 16, 16, 16), (1, 16, 16)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images must have 2 spatial dimensions of at least 16 .* got shape"):
        net()(draw(*shape))


def test_models_are_imported_without_monai() -> None:
    code = "import sys, hbdp_fed.models; sys.exit('monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
