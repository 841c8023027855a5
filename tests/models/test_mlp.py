"""The fully connected net: homogeneous in its weights, clipped exactly, and nothing in it mixes records."""

from __future__ import annotations

import pytest
import torch
from opacus.validators import ModuleValidator

from hbdp_fed.models import build_model, fitting_spec, initial_weights
from hbdp_fed.models.mlp import Mlp
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelSpec
from tests.dpsgd.references import REFERENCES, assert_same, clipped, randomised

SPEC = ModelSpec("mlp", {"in_channels": 2, "num_classes": 3, "image_size": [4, 5], "hidden": [7, 6]})


def test_the_mlp_has_one_logit_a_class_and_nothing_that_mixes_records() -> None:
    model, images = build_model(SPEC), torch.rand(4, 2, 4, 5)
    assert model(images).shape == (4, 3)
    assert ModuleValidator.validate(model, strict=False) == []
    torch.testing.assert_close(model(images), torch.cat([model(images[i : i + 1]) for i in range(4)]))
    assert dict(model.named_buffers()) == {}


def test_the_first_layer_alone_has_a_bias_and_every_parameter_a_start() -> None:
    shapes = {name: tuple(value.shape) for name, value in initial_weights(build_model(SPEC), generator(0)).items()}
    assert shapes == {
        "features.0.weight": (7, 40),
        "features.0.bias": (7,),
        "features.2.weight": (6, 7),
        "head.weight": (3, 6),
    }


@pytest.mark.parametrize("hidden", [[7], [7, 6], [5, 5, 5]], ids=str)
def test_the_logits_grow_with_all_weights_to_the_power_of_the_layers(hidden: list[int]) -> None:
    model = randomised(build_model(ModelSpec("mlp", {**SPEC.args, "hidden": hidden})))
    images = torch.rand(6, 2, 4, 5, dtype=torch.float64, generator=generator(0))
    before = model(images).detach()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.7)
    torch.testing.assert_close(model(images).detach(), before * 1.7 ** (len(hidden) + 1))


@pytest.mark.parametrize("reference", REFERENCES)
def test_the_mlp_is_clipped_exactly(reference: str) -> None:
    model, images = randomised(build_model(SPEC)), torch.rand(5, 2, 4, 5, dtype=torch.float64)
    assert_same(clipped(model, images, max_physical_batch=3), clipped(model, images, grad_mode=reference))


def test_the_mlp_is_built_for_the_images_size() -> None:
    spec = fitting_spec("mlp", in_channels=2, num_classes=3, image_size=(4, 5), settings={"hidden": [7, 6]})
    assert spec == SPEC


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images must have shape \(2, 4, 5\) each, got \(2, 5, 4\)"):
        build_model(SPEC)(torch.rand(3, 2, 5, 4))


def test_the_centre_is_taken_off_every_pixel() -> None:
    pixels = torch.rand(40, generator=generator(1)).tolist()
    centred = randomised(build_model(ModelSpec("mlp", {**SPEC.args, "centre": pixels})))
    plain = randomised(build_model(ModelSpec("mlp", {**SPEC.args, "centre": 0.0})))
    images = torch.rand(3, 2, 4, 5, dtype=torch.float64, generator=generator(2))
    off = torch.tensor(pixels, dtype=torch.float64).reshape(2, 4, 5)
    torch.testing.assert_close(centred(images), plain(images - off))


WRONG = ({"image_size": [4]}, {"image_size": [4, 0]}, {"image_size": [4, 4, 4]}, {"hidden": []}, {"hidden": [3, 0]})


@pytest.mark.parametrize("wrong", [*WRONG, {"centre": [0.5, 0.5]}], ids=str)
def test_a_bad_argument_is_refused_by_name(wrong: dict[str, list[int]]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Mlp(**{"in_channels": 1, "num_classes": 2, "image_size": [4, 4], **wrong})  # type: ignore[arg-type]
