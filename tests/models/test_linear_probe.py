from __future__ import annotations

import pytest
import torch
from opacus import GradSampleModule
from torch import Tensor
from torch.func import functional_call, grad, vmap

from hbdp_fed.dpsgd import RecordLoss, clipped_summer, record_loss
from hbdp_fed.models import initial_weights
from hbdp_fed.models.linear_probe import LinearProbeModel

GAIN = 30.0


def at_zero(channels: int, classes: int, size: list[int], *, dense: bool = False) -> LinearProbeModel:
    model = LinearProbeModel(channels, classes, size, GAIN, dense=dense)
    torch.nn.init.zeros_(model.probe.weight)
    return model


def draw(shape: tuple[int, ...], *, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def per_record(model: LinearProbeModel, loss: RecordLoss, images: Tensor, labels: Tensor) -> Tensor:
    """Each record's gradient, (b, D), by torch.func."""
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def of_one(weights: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return loss(functional_call(model, weights, (image[None],)), label[None])[0]

    return vmap(grad(of_one), in_dims=(None, 0, 0))(parameters, images, labels)["probe.weight"].flatten(start_dim=1)


KINDS = pytest.mark.parametrize(
    ("channels", "classes", "size", "loss", "weights"),
    [
        (1, 2, [7, 9], "cross_entropy", None),
        (3, 7, [6, 5], "cross_entropy", (0.5, 1.0, 2.0, 1.0, 3.0, 1.0, 1.0)),
        (1, 3, [4, 5, 6], "cross_entropy", None),
        (1, 6, [5, 5], "binary_cross_entropy", (4.0, 1.0, 1.0, 1.0, 1.0, 1.0)),
        (1, 1, [5, 5], "binary_cross_entropy", None),
    ],
    ids=["grey", "colour weighted", "volume", "findings weighted", "one finding"],
)


def labels_for(loss: str, classes: int, count: int) -> Tensor:
    """Every label comes up; of findings none, all and some."""
    rows = torch.arange(count)
    if loss == "cross_entropy":
        return rows % classes
    return ((rows[:, None] >> torch.arange(classes)) & 1).long()


@KINDS
def test_a_records_gradient_is_the_image_times_the_factor_that_the_formula_gives(
    channels: int, classes: int, size: list[int], loss: str, weights: tuple[float, ...] | None
) -> None:
    images, labels = draw((16, channels, *size)), labels_for(loss, classes, 16)
    gradients = per_record(at_zero(channels, classes, size), record_loss(loss, weights), images, labels)
    weight = torch.tensor(weights or (1.0,) * classes)
    if loss == "cross_entropy":
        factors = GAIN * weight[labels] * (1 / classes - (labels == 0).float())
    else:
        factors = GAIN * (1 - labels[:, 0] - weight[0] * labels[:, 0]) / (2 * classes)
    assert float(factors.abs().min()) > 0
    torch.testing.assert_close(gradients, factors[:, None] * images.flatten(start_dim=1))


@KINDS
def test_the_clipped_sum_is_of_images_scaled_to_the_clipping_norm(
    channels: int, classes: int, size: list[int], loss: str, weights: tuple[float, ...] | None
) -> None:
    images, labels, model = draw((5, channels, *size)), labels_for(loss, classes, 5), at_zero(channels, classes, size)
    compute = record_loss(loss, weights)
    summed = clipped_summer(model, max_grad_norm=0.3, max_physical_batch=2, loss=compute)(images, labels)
    assert float(summed.norms.min()) > 0.3
    flat = images.flatten(start_dim=1)
    signs = per_record(model, compute, images, labels).sum(dim=1).sign()
    expected = (0.3 * signs[:, None] * flat / flat.norm(dim=1, keepdim=True)).sum(dim=0, keepdim=True)
    torch.testing.assert_close(summed.total["probe.weight"], expected.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", "dice_cross_entropy"])
@pytest.mark.parametrize("size", [[6, 7], [4, 5, 6]], ids=["image", "volume"])
def test_a_segmentations_gradient_is_a_multiple_of_the_image_too(loss: str, size: list[int]) -> None:
    images = draw((6, 1, *size))
    labels = torch.randint(3, (6, *size), generator=torch.Generator().manual_seed(1))
    model = at_zero(1, 3, size, dense=True)
    assert model(images).shape == (6, 3, *size)
    gradients, flat = per_record(model, record_loss(loss), images, labels), images.flatten(start_dim=1)
    factors = (gradients * flat).sum(dim=1) / flat.square().sum(dim=1)
    assert float(factors.abs().min()) > GAIN / (4 * flat.shape[1])
    torch.testing.assert_close(gradients, factors[:, None] * flat)


def test_the_first_logit_alone_answers_in_the_models_own_precision() -> None:
    model = LinearProbeModel(2, 4, [3, 5], GAIN).double()
    images = draw((6, 2, 3, 5)).double()
    logits = model(images)
    torch.testing.assert_close(logits[:, :1], GAIN * images.flatten(start_dim=1) @ model.probe.weight.T)
    assert float(logits[:, 1:].detach().abs().max()) == 0
    assert logits.dtype == torch.float64


def test_the_weight_is_all_that_travels_and_has_a_rule_to_start() -> None:
    model = LinearProbeModel(1, 2, [8, 8], GAIN)
    assert list(model.state_dict()) == ["probe.weight"]
    assert initial_weights(model, torch.Generator().manual_seed(0))["probe.weight"].shape == (1, 64)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_opacus_accepts_the_model() -> None:
    wrapped = GradSampleModule(LinearProbeModel(1, 2, [4, 4], GAIN), loss_reduction="sum", strict=True)
    wrapped(draw((3, 1, 4, 4))).square().sum().backward()
    assert next(wrapped.parameters()).grad_sample.shape == (3, 1, 16)


@pytest.mark.parametrize(
    "wrong",
    [{"in_channels": 0}, {"num_classes": 0}, {"image_size": [4]}, {"image_size": [4, 0]}, {"gain": 0.0}],
    ids=str,
)
def test_a_bad_argument_is_refused_by_name(wrong: dict[str, object]) -> None:
    args: dict[str, object] = {"in_channels": 1, "num_classes": 2, "image_size": [4, 4], "gain": 1.0}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LinearProbeModel(**args | wrong)
