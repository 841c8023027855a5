"""The condition that training leaves weights in, by hand for a linear model."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from hbdp_fed.adversary.final_model.stationarity import Stationarity, margins, outside

IMAGES = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]], dtype=torch.float64)
LABELS = torch.tensor([1, 0])
MULTIPLIERS = torch.tensor([0.5, 2.0], dtype=torch.float64)

# Of two logits the margin is y (z[1] - z[0]): its gradient is y x in the second row and -y x in the first.
BY_HAND = torch.tensor([[-0.5, 1.0, 6.0], [0.5, -1.0, -6.0]], dtype=torch.float64)


def linear(classes: int = 2) -> nn.Module:
    model = nn.Linear(3, classes, bias=False).double()
    nn.init.ones_(model.weight)
    return model


def condition(target: torch.Tensor, classes: int = 2) -> Stationarity:
    model = linear(classes)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    return Stationarity.of(model, weights, {"weight": target})


def test_a_linear_models_weights_are_explained_as_by_hand() -> None:
    explained = condition(BY_HAND).explained(IMAGES, LABELS, MULTIPLIERS)
    torch.testing.assert_close(explained["weight"], BY_HAND)


def test_the_error_is_the_relative_squared_distance() -> None:
    found = condition(BY_HAND)
    missing = BY_HAND.clone()
    missing[0, 2] += 3.0
    assert float(found.error({"weight": BY_HAND})) == 0
    assert float(found.error({"weight": missing})) == pytest.approx(9 / float(BY_HAND.square().sum()))
    assert float(found.error({"weight": torch.zeros_like(BY_HAND)})) == 1


def test_the_scale_is_the_best_factor_on_all_multipliers() -> None:
    found = condition(BY_HAND)
    explained = found.explained(IMAGES, LABELS, MULTIPLIERS / 4)
    assert float(found.scale(explained).detach()) == pytest.approx(4)


def test_the_error_moves_images_and_multipliers() -> None:
    images, multipliers = IMAGES.clone().requires_grad_(), (MULTIPLIERS * 0.9).requires_grad_()
    found = condition(BY_HAND)
    error = found.error(found.explained(images, LABELS, multipliers))
    gradients = torch.autograd.grad(error, [images, multipliers])
    # Of E = sum (e - t)^2 / |t|^2 with e[1] = sum lambda y x and e[0] = -e[1], and e - t = -0.1 t here.
    expected = 2 * 2 * (-0.1) * BY_HAND[1] / BY_HAND.square().sum()
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(gradients[0], (signs * multipliers.detach())[:, None] * expected)
    torch.testing.assert_close(gradients[1], signs * (IMAGES @ expected))


def test_a_margins_gradient_is_the_direction_of_the_cross_entropys() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 4, generator=draw, dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, 3, 1, 2, 3])
    (margin,) = torch.autograd.grad(margins(logits, labels).sum(), logits)
    (loss,) = torch.autograd.grad(functional.cross_entropy(logits, labels, reduction="sum"), logits)
    wrong = 1 - logits.detach().softmax(dim=1).gather(1, labels[:, None])
    torch.testing.assert_close(-wrong * margin, loss)


def test_of_large_logits_the_largest_other_one_counts() -> None:
    logits = 100 * torch.tensor([[1.0, 4.0, 2.0], [1.0, 4.0, 2.0], [3.5, 3.0, 0.0]])
    torch.testing.assert_close(margins(logits, torch.tensor([1, 2, 2])), 100 * torch.tensor([2.0, -2.0, -3.5]))


def test_of_two_classes_the_margin_is_the_signed_difference_of_logits() -> None:
    logits = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    torch.testing.assert_close(margins(logits, labels), (2 * labels - 1) * (logits[:, 1] - logits[:, 0]))


def test_pixels_cost_what_they_lie_outside_their_range() -> None:
    assert float(outside(torch.tensor([[-0.5, 0.0, 0.3], [1.0, 1.2, 0.9]]))) == pytest.approx(0.25 + 0.04)
