"""Ways down, on costs whose lowest point is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hbdp_fed.adversary.gradient_inversion.descent import DESCENTS, Pace
from tests.adversary.attacking import stream

GOAL = torch.rand(3, 5, generator=stream(1), dtype=torch.float64)


def bowl(values: Tensor) -> Tensor:
    return ((values - GOAL).square() * torch.arange(1, 16).view(3, 5)).sum()


@pytest.mark.parametrize(("name", "within"), [("lbfgs", 1e-6), ("adam", 1e-2), ("signed_adam", 1e-2)])
def test_every_descent_finds_the_bottom_of_a_bowl(name: str, within: float) -> None:
    reached = DESCENTS[name](bowl, torch.zeros_like(GOAL), Pace(iterations=400, learning_rate=0.05))
    torch.testing.assert_close(reached, GOAL, rtol=0, atol=within)


@pytest.mark.parametrize("name", DESCENTS)
def test_the_best_point_on_the_way_is_kept(name: str) -> None:
    # Steps far too long: Adam ends higher than it has been.
    reached = DESCENTS[name](bowl, GOAL + 0.01, Pace(iterations=5, learning_rate=3.0))
    assert float(bowl(reached)) <= float(bowl(GOAL + 0.01))


@pytest.mark.parametrize("name", DESCENTS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_cost_that_is_no_number_is_turned_back_from(name: str, bad: float) -> None:
    def cliff(values: Tensor) -> Tensor:
        return torch.where(values.sum() > 3.0, bad, bowl(values))

    reached = DESCENTS[name](cliff, torch.zeros_like(GOAL), Pace(iterations=50, learning_rate=0.2))
    assert bool(reached.isfinite().all())
    assert float(cliff(reached)) <= float(cliff(torch.zeros_like(GOAL)))


@pytest.mark.parametrize("name", DESCENTS)
def test_a_start_that_is_beyond_the_cliff_is_given_back(name: str) -> None:
    reached = DESCENTS[name](lambda values: values.sum() * math.nan, GOAL, Pace(iterations=5, learning_rate=0.1))
    torch.testing.assert_close(reached, GOAL, rtol=0, atol=0)
