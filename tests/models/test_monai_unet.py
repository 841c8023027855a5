"""MONAI's residual U-Net takes images of any size from 2**(levels - 1) on, keeps records apart, and trains exactly."""

from __future__ import annotations

import pytest
import torch
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model, initial_weights, load_weights, weights_sha256
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelSpec
from tests.dpsgd.references import assert_same, clipped, flat, randomised


def spec(**changes: int) -> ModelSpec:
    return ModelSpec("monai_unet", {"in_channels": 1, "num_classes": 3, "width": 8} | changes)


def net(**changes: int) -> nn.Module:
    """A seeded net in float64."""
    model = build_model(spec(**changes))
    load_weights(model, initial_weights(model, generator(0, "monai_unet")))
    return model.double()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


BOTH = pytest.mark.parametrize("spatial", [(32, 17), (16, 16, 19)])


@pytest.mark.parametrize("spatial", [(16, 16), (32, 48), (28, 17), (16, 16, 32), (16, 18, 19)])
def test_every_pixel_or_voxel_has_one_logit_a_class(spatial: tuple[int, ...]) -> None:
    logits = net(in_channels=2, spatial_dims=len(spatial))(draw(2, 2, *spatial))
    assert logits.shape == (2, 3, *spatial)
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize("changes", [{"levels": 2}, {"levels": 3, "res_units": 0}, {"levels": 4, "res_units": 1}])
@pytest.mark.parametrize("num_classes", [1, 2, 8])
def test_any_depth_and_number_of_classes_works(changes: dict[str, int], num_classes: int) -> None:
    side = 2 ** (changes["levels"] - 1)
    logits = net(num_classes=num_classes, **changes)(draw(1, 1, side, side + 1))
    assert logits.shape == (1, num_classes, side, side + 1)


def test_it_is_monais_net_where_no_border_is_needed() -> None:
    from monai.networks.nets import UNet

    model, images = net(), draw(2, 1, 32, 48)
    monai = UNet(
        spatial_dims=2, in_channels=1, out_channels=3, channels=(8, 16, 32, 64, 128), strides=(2,) * 4,
        num_res_units=2, norm=("group", {"num_groups": 1}),
    ).double()  # fmt: skip
    weights = {name.removeprefix("net."): value for name, value in model.state_dict().items()}
    monai.load_state_dict(weights)
    for module in monai.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = 1 if module.num_channels == 3 else 8
    torch.testing.assert_close(model(images), monai(2 * images - 1))


@BOTH
def test_no_record_changes_anothers_logits(spatial: tuple[int, ...]) -> None:
    model, images = net(spatial_dims=len(spatial)), draw(3, 1, *spatial)
    alone = torch.cat([model(images[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(images), alone, rtol=1e-12, atol=1e-12)


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
    # The last level has a channel a class, three here.
    assert {(norm.num_groups, norm.affine) for norm in norms} == {(8, True), (1, True)}
    assert [norm.num_channels for norm in norms if norm.num_groups == 1] == [3]
    assert any(isinstance(module, nn.PReLU) for module in model.modules())
    transposed = nn.ConvTranspose2d if spatial_dims == 2 else nn.ConvTranspose3d
    assert sum(isinstance(module, transposed) for module in model.modules()) == 4


@pytest.mark.parametrize("reference", ["torch_func", "opacus"])
@pytest.mark.parametrize(
    ("changes", "spatial"),
    [
        ({}, (16, 16)),
        ({"levels": 3}, (12, 17)),
        ({"levels": 3, "res_units": 0}, (8, 8)),
        ({"levels": 3, "spatial_dims": 3}, (8, 9, 8)),
    ],
)
def test_it_is_clipped_exactly(reference: str, changes: dict[str, int], spatial: tuple[int, ...]) -> None:
    model, images = randomised(build_model(spec(**changes))), draw(4, 1, *spatial)
    expected = clipped(model, images, grad_mode=reference, multiplicity=2)
    assert_same(clipped(model, images, max_physical_batch=3, multiplicity=2), expected)


def test_bfloat16_is_close() -> None:
    model, images = net(levels=3).float(), draw(4, 1, 16, 18).float()
    exact, found = (flat(clipped(model, images, compute_dtype=dtype)) for dtype in (None, torch.bfloat16))
    assert float((found - exact).norm()) < 0.1 * float(exact.norm())


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_initial_weights_repeat_and_follow_the_seed(spatial_dims: int) -> None:
    models = [build_model(spec(spatial_dims=spatial_dims)) for _ in range(3)]
    first, again, other = (
        initial_weights(model, generator(seed, "w")) for model, seed in zip(models, (0, 0, 1), strict=True)
    )
    assert weights_sha256(first) == weights_sha256(again) != weights_sha256(other)
    assert first.keys() == dict(models[0].named_parameters()).keys()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 12}, "width must be a positive multiple of 8, got 12"),
        ({"width": 0}, "width must be a positive multiple of 8, got 0"),
        ({"spatial_dims": 1}, "spatial_dims must be 2 or 3, got 1"),
        ({"levels": 1}, "levels must lie between 2 and 7, got 1"),
        ({"levels": 8}, "levels must lie between 2 and 7, got 8"),
        ({"res_units": -1}, "res_units must not be negative, got -1"),
        ({"depth": 3}, "depth"),
    ],
)
def test_a_bad_argument_is_refused_by_name(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(SettingError, match=rf"^model\.monai_unet: .*{message}"):
        build_model(spec(**wrong))


@pytest.mark.parametrize(("levels", "smallest"), [(5, 16), (3, 4)])
def test_images_of_another_shape_are_refused(levels: int, smallest: int) -> None:
    for sides in ((smallest, smallest - 1), (smallest,) * 3, (smallest,)):
        with pytest.raises(ValueError, match=rf"must have 2 spatial dimensions of at least {smallest} .* got shape"):
            net(levels=levels)(draw(1, 1, *sides))
