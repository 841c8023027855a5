"""The distances and the total variation against computations by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hbdp_fed.adversary.gradient_inversion.objectives import OBJECTIVES, total_variation

DUMMY = [torch.tensor([[3.0, 0.0]]).double(), torch.tensor([4.0]).double()]
RELEASED = [torch.tensor([[0.0, 0.0]]).double(), torch.tensor([2.0]).double()]


@pytest.mark.parametrize(
    ("name", "expected"),
    # <d, g> = 8, |d| = 5, |g| = 2; and |d - g|^2 = 9 + 4, relative to 4.
    [("cosine", 1 - 8 / 10), ("euclidean", 13 / 4)],
)
def test_objective_is_what_one_computes_by_hand(name: str, expected: float) -> None:
    assert float(OBJECTIVES[name](DUMMY, RELEASED)) == pytest.approx(expected)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective_is_zero_where_releases_agree(name: str) -> None:
    assert float(OBJECTIVES[name](RELEASED, RELEASED)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("factor", [0.01, 7.0])
def test_cosine_knows_no_scale_and_euclidean_does(factor: float) -> None:
    scaled = [factor * value for value in RELEASED]
    assert float(OBJECTIVES["cosine"](scaled, RELEASED)) == pytest.approx(0.0, abs=1e-12)
    assert float(OBJECTIVES["euclidean"](scaled, RELEASED)) == pytest.approx((factor - 1) ** 2)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective_of_zeros_is_a_number(name: str) -> None:
    zeros = [torch.zeros_like(value).requires_grad_() for value in DUMMY]
    value = OBJECTIVES[name](zeros, zeros)
    assert math.isfinite(float(value.detach()))
    assert all(bool(slope.isfinite().all()) for slope in torch.autograd.grad(value, zeros))


def test_total_variation_adds_up_the_axes() -> None:
    image = torch.tensor([[0.0, 0.4], [0.2, 1.0]]).double().view(1, 1, 2, 2)
    # Down: 0.2 and 0.6, across: 0.4 and 0.8. Each is less by the rounding of the corner, about 0.001.
    assert float(total_variation(image)) == pytest.approx(0.4 + 0.6, abs=3e-3)


def test_total_variation_of_a_volume_has_three_axes() -> None:
    ramp = torch.arange(4.0).double()
    volume = (0.1 * ramp[:, None, None] + 0.2 * ramp[:, None] + 0.3 * ramp).view(1, 1, 4, 4, 4)
    assert float(total_variation(volume)) == pytest.approx(0.6, abs=3e-3)
    assert float(total_variation(torch.full((2, 1, 5, 5), 0.3))) == 0.0
