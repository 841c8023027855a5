"""The measures by hand, on weights and gradients written down for it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hbdp_fed.screening import MEASURES, Look
from hbdp_fed.screening.measures import (
    bias_beside_weight,
    distinct_rows,
    distinct_values,
    gradient_elsewhere,
    moving,
    peak,
    shared_rows,
    size,
    tails,
)
from tests.screening.conftest import stream

NOTHING = 1e-12


def seen(weight: Tensor | None = None, energies: Tensor | None = None) -> Look:
    """One layer; where only its gradients matter, its weights are whatever fits."""
    if energies is None:
        assert weight is not None
        energies = torch.ones(2, weight.shape[0], dtype=torch.float64)
    return Look(
        {"layer.weight": torch.ones(energies.shape[1], 3) if weight is None else weight}, {"layer.weight": energies}
    )


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        ([1, 0, 0, 0], [0, 1, 0, 0], NOTHING),
        ([1, 1, 0, 0], [0, 0, 2, 2], NOTHING),
        ([4, 4, 4, 4], [1, 1, 1, 1], 1.0),
        ([1, 1, 0, 0], [0, 1, 1, 0], 0.5),
        ([0.5, 0.5, 0, 0], [1, 0, 0, 0], math.sqrt(0.5)),
    ],
)
def test_overlap_of_rows_is_the_bhattacharyya_coefficient(first, second, overlap) -> None:
    energies = torch.tensor([first, second], dtype=torch.float64)
    assert shared_rows(seen(energies=energies))["layer.weight"] == pytest.approx(overlap)


def test_image_without_gradient_has_no_part_in_the_overlap() -> None:
    energies = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.float64)
    assert shared_rows(seen(energies=energies))["layer.weight"] == pytest.approx(1.0)
    assert shared_rows(seen(energies=energies[:2])) == {}


def test_few_rows_have_no_overlap_to_judge() -> None:
    assert shared_rows(seen(energies=torch.ones(2, 3, dtype=torch.float64))) == {}


def test_share_elsewhere_counts_weight_and_bias_of_a_layer_as_one() -> None:
    weights = {name: torch.ones(1) for name in ("loud.weight", "loud.bias", "quiet.weight")}
    energies = {
        "loud.weight": torch.tensor([[8.0], [6.0], [9.0]], dtype=torch.float64),
        "loud.bias": torch.tensor([[1.0], [3.0], [0.0]], dtype=torch.float64),
        "quiet.weight": torch.tensor([[1.0], [1.0], [1.0]], dtype=torch.float64),
    }
    found = gradient_elsewhere(Look(weights, energies))
    assert found == {"loud": pytest.approx(0.1), "quiet": pytest.approx(0.9)}


def test_share_elsewhere_is_not_lost_to_rounding() -> None:
    energies = {
        "loud.weight": torch.tensor([[1e9]], dtype=torch.float64),
        "quiet.weight": torch.tensor([[1e-2]], dtype=torch.float64),
    }
    found = gradient_elsewhere(Look({name: torch.ones(1) for name in energies}, energies))
    assert found["loud"] == pytest.approx(1e-11)


def test_branch_that_is_switched_off_moves_for_no_image() -> None:
    energies = {"on": torch.ones(4, 2, dtype=torch.float64), "off": torch.zeros(4, 2, dtype=torch.float64)}
    assert moving(Look({name: torch.ones(2) for name in energies}, energies)) == {"on": 1.0, "off": NOTHING}


def test_size_is_the_root_mean_square() -> None:
    assert size(seen(torch.tensor([[3.0, -4.0]])))["layer.weight"] == pytest.approx(math.sqrt(12.5))


def test_tails_are_the_kurtosis() -> None:
    signs = torch.tensor([1.0, -1.0]).repeat(8)[None]
    assert tails(seen(signs))["layer.weight"] == pytest.approx(1.0)
    gaussian = torch.randn(100, 200, generator=stream(1))
    assert tails(seen(gaussian))["layer.weight"] == pytest.approx(3.0, abs=0.15)
    one_in_a_hundred = torch.zeros(1, 100)
    one_in_a_hundred[0, 0] = 1.0
    # A Bernoulli variable of probability p has the kurtosis (1 - 3 p (1 - p)) / (p (1 - p)).
    assert tails(seen(one_in_a_hundred))["layer.weight"] == pytest.approx((1 - 3 * 0.0099) / 0.0099)


def test_values_that_all_agree_have_no_tails() -> None:
    assert tails(seen(torch.full((4, 8), 0.3)))["layer.weight"] == 1.0


def test_peak_is_largest_over_median_magnitude() -> None:
    weight = torch.tensor([*[1.0, -1.0] * 10, 50.0])[None]
    assert peak(seen(weight))["layer.weight"] == 50.0
    assert peak(seen(torch.zeros(4, 8)))["layer.weight"] == 1.0


def test_mostly_zero_weights_have_a_huge_and_finite_peak() -> None:
    weight = torch.zeros(4, 8)
    weight[0, 0] = 1e-6
    assert peak(seen(weight))["layer.weight"] == pytest.approx(1e12)


def test_distinct_values_are_counted() -> None:
    assert distinct_values(seen(torch.arange(32.0).reshape(4, 8)))["layer.weight"] == 1.0
    assert distinct_values(seen(torch.tensor([1.0, -1.0]).repeat(16).reshape(4, 8)))["layer.weight"] == 2 / 32


def test_distinct_rows_are_all_of_orthogonal_ones_and_one_of_copies() -> None:
    assert distinct_rows(seen(torch.eye(6)))["layer.weight"] == pytest.approx(1.0)
    copies = torch.arange(1.0, 7.0)[:, None] * torch.tensor([1.0, 2.0, -1.0])
    assert distinct_rows(seen(copies))["layer.weight"] == pytest.approx(1 / 6)


def test_rows_of_zeros_do_not_count() -> None:
    weight = torch.cat([torch.eye(4), torch.zeros(4, 4)])
    assert distinct_rows(seen(weight))["layer.weight"] == pytest.approx(1.0)


def test_biases_are_compared_with_their_own_layer() -> None:
    weights = {
        "a.weight": torch.full((16, 4), 2.0), "a.bias": torch.full((16,), 6.0),
        "b.weight": torch.full((4, 4), 2.0), "head.weight": torch.full((15, 4), 2.0), "head.bias": torch.ones(15),
        "norm.weight": torch.ones(4), "norm.bias": torch.ones(4),
    }  # fmt: skip
    assert bias_beside_weight(Look(weights, {})) == {"a": 3.0}


def test_small_biases_tell_nothing() -> None:
    weights = {"a.weight": torch.ones(16, 4), "a.bias": torch.full((16,), 1e-9)}
    assert bias_beside_weight(Look(weights, {})) == {"a": 0.3}


def test_every_figure_is_positive_and_finite_even_for_dead_weights() -> None:
    weights = {"layer.weight": torch.zeros(8, 8), "layer.bias": torch.zeros(8)}
    look = Look(weights, {name: torch.zeros(4, 8, dtype=torch.float64) for name in weights})
    for name, measure in MEASURES.items():
        assert all(0 < figure < math.inf for figure in measure.of(look).values()), name


def test_large_tensors_are_judged_by_a_part() -> None:
    weight = torch.randn(300, 1000, generator=stream(2))
    look = seen(weight)
    assert tails(look)["layer.weight"] == pytest.approx(3.0, abs=0.2)
    assert distinct_rows(look)["layer.weight"] > 0.9
