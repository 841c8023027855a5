"""Single records' clipped gradients: against one backward pass a record, and against the sum that a step takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hbdp_fed.dpsgd import clipped_record_gradients, flattened, make_summer, record_loss
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.seeding import generator
from hbdp_fed.types import DpSgdParams, ModelSpec

RECORDS = 5


@dataclass(frozen=True)
class Case:
    spec: ModelSpec
    size: int
    dense: bool = False
    multiplicity: int = 1


CASES: Mapping[str, Case] = {
    "cnn": Case(ModelSpec("cnn", {"in_channels": 1, "num_classes": 3, "width": 4}), 12),
    "cnn_two_views": Case(ModelSpec("cnn", {"in_channels": 1, "num_classes": 3, "width": 4}), 12, multiplicity=2),
    "mlp": Case(ModelSpec("mlp", {"in_channels": 1, "num_classes": 3, "image_size": [12, 12], "hidden": [9, 8]}), 12),
    "resnet9": Case(ModelSpec("resnet9", {"in_channels": 3, "num_classes": 2, "width": 8}), 16),
    "unet": Case(ModelSpec("unet", {"in_channels": 1, "num_classes": 2, "width": 8}), 16, dense=True),
}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    chosen: Case = request.param
    return chosen


def model_of(case: Case) -> nn.Module:
    """In float64, where two ways of computing the same agree to nearly all digits."""
    model = build_model(case.spec).train()
    initial_weights(model, generator(0, "start"))
    return model.double()


def batch_of(case: Case) -> tuple[Tensor, Tensor]:
    g = generator(0, "batch")
    rows = RECORDS * case.multiplicity
    shape = (rows, case.size, case.size) if case.dense else (rows,)
    images = torch.rand(rows, case.spec.args["in_channels"], case.size, case.size, generator=g).double()
    return images, torch.randint(case.spec.args["num_classes"], shape, generator=g)


def one_by_one(model: nn.Module, images: Tensor, labels: Tensor, *, multiplicity: int) -> Tensor:
    """A backward pass a record: the mean loss of its views, unclipped."""
    rows = []
    for start in range(0, len(labels), multiplicity):
        views = slice(start, start + multiplicity)
        model.zero_grad()
        functional.cross_entropy(model(images[views]), labels[views]).backward()
        rows.append(torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None]))
    return torch.stack(rows)


def middling_norm(case: Case) -> float:
    """A clipping norm that some of the records reach and others do not."""
    images, labels = batch_of(case)
    return float(one_by_one(model_of(case), images, labels, multiplicity=case.multiplicity).norm(dim=1).median()) * 1.01


@pytest.mark.parametrize("physical", [1, 3, 64])
def test_each_row_is_that_records_own_gradient_clipped(case: Case, physical: int) -> None:
    images, labels = batch_of(case)
    clip = middling_norm(case)
    rows = clipped_record_gradients(
        model_of(case),
        images,
        labels,
        max_grad_norm=clip,
        max_physical_batch=physical,
        multiplicity=case.multiplicity,
    )
    expected = one_by_one(model_of(case), images, labels, multiplicity=case.multiplicity)
    norms = expected.norm(dim=1, keepdim=True)
    assert bool((norms > clip).any())
    assert bool((norms < clip).any())
    expected = torch.where(norms > clip, expected * (clip / norms), expected)
    assert rows.shape == expected.shape
    assert float((rows - expected).norm(dim=1).max()) <= 1e-10 * clip


@pytest.mark.parametrize("clipped", [True, False], ids=["clipped", "unclipped"])
def test_the_rows_add_up_to_the_sum_of_a_step(case: Case, clipped: bool) -> None:
    images, labels = batch_of(case)
    clip = middling_norm(case) if clipped else math.inf
    model = model_of(case)
    mechanism = DpSgdParams(noise_multiplier=0.0, max_grad_norm=clip, sample_rate=1.0, steps=1)
    summer = make_summer(model, mechanism, max_physical_batch=4, multiplicity=case.multiplicity)
    total = flattened(summer(images, labels).total, model)
    rows = clipped_record_gradients(
        model, images, labels, max_grad_norm=clip, max_physical_batch=4, multiplicity=case.multiplicity
    )
    assert float((rows.sum(dim=0) - total).norm()) <= 1e-10 * float(rows.norm(dim=1).sum())


def test_no_row_is_longer_than_the_clipping_norm(case: Case) -> None:
    images, labels = batch_of(case)
    rows = clipped_record_gradients(
        model_of(case),
        images,
        labels,
        max_grad_norm=1e-3,
        max_physical_batch=64,
        multiplicity=case.multiplicity,
    )
    norms = rows.norm(dim=1)
    assert float(norms.max()) <= 1e-3 * (1 + 1e-12)
    # All of these are longer before they are clipped.
    assert float(norms.min()) >= 1e-3 * (1 - 1e-12)


def test_an_empty_batch_has_no_rows_of_the_full_width() -> None:
    case = CASES["cnn_two_views"]
    model = model_of(case)
    rows = clipped_record_gradients(
        model,
        torch.zeros(0, 1, 12, 12, dtype=torch.float64),
        torch.zeros(0, dtype=torch.int64),
        max_grad_norm=1.0,
        max_physical_batch=4,
        multiplicity=2,
    )
    assert rows.shape == (0, sum(value.numel() for value in model.parameters()))


def test_rows_have_the_precision_of_the_parameters(case: Case) -> None:
    images, labels = batch_of(case)
    rows = [
        clipped_record_gradients(
            model, values, labels, max_grad_norm=1.0, max_physical_batch=8, multiplicity=case.multiplicity
        )
        for model, values in ((model_of(case).float(), images.float()), (model_of(case), images))
    ]
    assert rows[0].dtype == torch.float32
    assert float((rows[0] - rows[1]).norm(dim=1).max()) <= 1e-3


def test_frozen_parameters_have_no_place_in_a_row() -> None:
    case = CASES["cnn"]
    model = model_of(case)
    whole = clipped_record_gradients(model, *batch_of(case), max_grad_norm=math.inf, max_physical_batch=8)
    frozen = next(iter(model.parameters()))
    frozen.requires_grad_(False)
    rest = clipped_record_gradients(model, *batch_of(case), max_grad_norm=math.inf, max_physical_batch=8)
    assert torch.allclose(rest, whole[:, frozen.numel() :], atol=1e-12)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    assert len(flattened(weights, model)) == rest.shape[1]


def test_the_loss_of_the_settings_is_what_is_differentiated() -> None:
    case = CASES["unet"]
    images, labels = batch_of(case)
    model = model_of(case)
    loss = record_loss("dice_cross_entropy", (1.0, 3.0))
    rows = clipped_record_gradients(model, images, labels, max_grad_norm=math.inf, max_physical_batch=8, loss=loss)
    loss(model(images[2:3]), labels[2:3]).sum().backward()
    expected = flattened(
        {name: value.grad for name, value in model.named_parameters() if value.grad is not None}, model
    )
    assert float((rows[2] - expected).norm()) <= 1e-10 * float(expected.norm())


class Tied(nn.Module):
    """Uses a layer's weight where the layer is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6, dtype=torch.float64)

    def forward(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.layer(images.flatten(start_dim=1)).tanh()
        return hidden @ self.layer.weight


def test_a_model_whose_layers_do_not_tell_all_is_differentiated_as_a_whole() -> None:
    model, images, labels = Tied(), torch.rand(4, 1, 2, 3, dtype=torch.float64), torch.arange(4) % 3
    with torch.random.fork_rng():
        torch.nn.init.uniform_(model.layer.weight, generator=generator(0, "tied"))
    rows = clipped_record_gradients(model, images, labels, max_grad_norm=math.inf, max_physical_batch=8, multiplicity=2)
    expected = one_by_one(model, images, labels, multiplicity=2)
    assert float((rows - expected).norm()) <= 1e-12 * float(expected.norm())


def test_weights_and_gradients_line_up() -> None:
    """A small step along a row lowers that record's loss by the row's squared norm times the step's length."""
    case = CASES["cnn"]
    images, labels = batch_of(case)
    model = model_of(case)
    row = clipped_record_gradients(model, images, labels, max_grad_norm=math.inf, max_physical_batch=8)[1]
    before = functional.cross_entropy(model(images[1:2]), labels[1:2])
    weights = flattened({name: value.detach() for name, value in model.named_parameters()}, model)
    with torch.no_grad():
        nn.utils.vector_to_parameters(weights - 1e-6 * row, model.parameters())
        after = functional.cross_entropy(model(images[1:2]), labels[1:2])
    assert float(before.detach() - after) == pytest.approx(1e-6 * float(row.square().sum()), rel=1e-3)
