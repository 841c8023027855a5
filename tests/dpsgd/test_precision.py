"""Short numbers: no record above the clipping norm in float32 and bfloat16, and bfloat16 near the float32 result."""

from __future__ import annotations

import pytest
import torch

from hbdp_fed.dpsgd import clipped_summer, plain_summer, record_losses
from hbdp_fed.models import build_model, initial_weights, load_weights
from hbdp_fed.seeding import generator
from hbdp_fed.types import ModelSpec
from tests.dpsgd.references import clipped, flat

MODELS = {
    "cnn": (ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 8}), (1, 16, 16), False),
    "resnet9": (ModelSpec("resnet9", {"in_channels": 1, "num_classes": 2, "width": 8}), (1, 16, 16), False),
    "unet": (ModelSpec("unet", {"in_channels": 1, "num_classes": 2, "width": 8}), (1, 32, 32), True),
}


@pytest.fixture(params=MODELS)
def case(request: pytest.FixtureRequest) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    spec, shape, segments = MODELS[request.param]
    model = build_model(spec)
    load_weights(model, initial_weights(model, generator(0, "weights")))
    g = generator(0, "batch")
    labels = torch.randint(2, (6, *shape[1:]) if segments else (6,), generator=g)
    return model, torch.rand(6, *shape, generator=g), labels


@pytest.mark.parametrize("compute_dtype", [None, torch.bfloat16])
def test_the_sum_of_one_clipped_record_is_no_longer_than_the_clipping_norm(case, compute_dtype) -> None:
    """Norm and sum are of the same gradient to float32's rounding, however coarse the gradient itself is."""
    model, images, labels = case
    for i in range(len(labels)):
        found = clipped(
            model, images[i : i + 1], labels=labels[i : i + 1], loss=record_losses, max_grad_norm=1e-3,
            compute_dtype=compute_dtype,
        )  # fmt: skip
        assert float(found.norms) > 1e-3
        assert float(flat(found).norm()) == pytest.approx(1e-3, rel=2e-5)


def cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.dot(first, second) / (first.norm() * second.norm()))


def test_the_sum_is_as_near_to_that_of_float32_as_ordinary_bfloat16_training_is(case) -> None:
    """Without clipping, so that PyTorch's own autocast computes the same thing; deep random nets are rough in it."""
    model, images, labels = case
    exact = flat(plain_summer(model, max_physical_batch=4)(images, labels))
    autocast = flat(plain_summer(model, max_physical_batch=4, compute_dtype=torch.bfloat16)(images, labels))
    found = flat(
        clipped(model, images, labels=labels, loss=record_losses, max_grad_norm=1e6, compute_dtype=torch.bfloat16)
    )
    assert not torch.equal(autocast, exact)
    assert cosine(found, exact) > 0.9
    assert 1 - cosine(found, exact) < 2 * (1 - cosine(autocast, exact)) + 1e-3


def test_sums_are_not_rounded_to_bfloat16(case) -> None:
    model, images, labels = case
    found = flat(clipped(model, images, labels=labels, loss=record_losses, compute_dtype=torch.bfloat16))
    rounded = found.bfloat16().double()
    assert float((found != rounded).double().mean()) > 0.5


@pytest.mark.parametrize("grad_mode", ["opacus", "torch_func"])
def test_references_compute_in_the_parameters_precision_only(grad_mode: str) -> None:
    model = build_model(MODELS["cnn"][0])
    with pytest.raises(ValueError, match="own precision only"):
        clipped_summer(
            model, max_grad_norm=1.0, max_physical_batch=4, grad_mode=grad_mode, compute_dtype=torch.bfloat16
        )


def test_a_plain_gradient_of_one_volume_is_that_of_float32() -> None:
    """On a CPU, bfloat16 weight gradients of 3D convolutions over few voxels are garbage, so they must not be taken."""
    model = build_model(ModelSpec("unet", {"in_channels": 1, "num_classes": 3, "width": 16, "spatial_dims": 3}))
    load_weights(model, initial_weights(model, generator(0, "weights")))
    g = generator(0, "volume")
    image, labels = torch.rand(1, 1, 32, 48, 32, generator=g), torch.randint(3, (1, 32, 48, 32), generator=g)
    short, full = (
        plain_summer(model, max_physical_batch=1, compute_dtype=dtype)(image, labels)
        for dtype in (torch.bfloat16, None)
    )
    difference = flat(short) - flat(full)
    assert float(difference.norm() / flat(full).norm()) < 0.05
