"""How loud a planted layer is made, and what is refused before."""

from __future__ import annotations

import math

import pytest
import torch

from hbdp_fed.adversary.planted.checks import check_planting, check_settings
from hbdp_fed.adversary.planted.code import fit_code
from hbdp_fed.adversary.planted.crafting import Layer, Loudness, loudnesses, plant, unplanted
from hbdp_fed.adversary.planted.search import best_of, search
from hbdp_fed.errors import SettingError
from hbdp_fed.models import build_model, load_weights

GOOD = {"bins": 2, "rank": 0, "max_logit_change": 0.1, "gains": (1.0,), "whitenings": (0.0,)}


@pytest.mark.parametrize(("clip", "unit"), [(0.1, 1.0), (1.0, 1.0), (30.0, 30.0), (math.inf, 1.0)])
def test_loudness_grows_with_the_clipping_norm_and_silencing_the_base_comes_last(clip: float, unit: float) -> None:
    assert loudnesses((10.0, 100.0), max_grad_norm=clip) == [
        Loudness(10.0 * unit),
        Loudness(100.0 * unit),
        Loudness(100.0 * unit, base_scale=0.0),
    ]


@pytest.mark.parametrize("ceiling", [None, 0.5])
def test_the_base_comes_out_of_a_planted_model_as_it_went_in(world, ceiling: float | None) -> None:
    code = fit_code(world.public_images, whitening=0.25)
    layer = Layer(weight=torch.zeros(3, 784), bias=torch.zeros(3), ceiling=ceiling)
    architecture, weights = plant(world.base, world.weights, code, layer, Loudness(10.0, base_scale=0.5))
    base, inside = unplanted(architecture, weights)
    assert base == world.base
    assert inside.keys() == world.weights.keys()
    assert all(torch.equal(inside[name], world.weights[name]) for name in inside)
    # The weights are the model's, all of them, and not shared with the base's.
    load_weights(build_model(architecture), weights)
    assert all(value.dtype == torch.float32 for value in weights.values())
    weights["base.head.weight"].zero_()
    assert bool(world.weights["head.weight"].any())
    assert float(weights["readout.weight"].abs().max()) == 10.0
    assert architecture.args["base_scale"] == 0.5


@pytest.mark.parametrize(
    "wrong",
    [
        {"bins": 1},
        {"rank": -1},
        {"max_logit_change": 0.0},
        {"max_logit_change": math.inf},
        {"max_logit_change": math.nan},
        {"gains": ()},
        {"gains": (1.0, 0.0)},
        {"gains": (math.nan,)},
        {"whitenings": ()},
        {"whitenings": (-0.1,)},
        {"whitenings": (math.inf,)},
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_used_is_refused_by_name(wrong: dict[str, object]) -> None:
    check_settings(**GOOD)
    with pytest.raises(SettingError, match=rf"adversary\.{next(iter(wrong))}"):
        check_settings(**GOOD | wrong)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((7, 1, 11, 11), "at least 8 public .* there are 7"),
        ((0, 1, 11, 11), "at least 8 public"),
        ((8, 1, 10, 11), "at least 11 pixels .* 10x11"),
        ((8, 1, 11, 11, 10), "at least 11 pixels .* 11x11x10"),
        ((8, 1, 11), "two or three dimensions, these have 1"),
        ((8, 1, 11, 11, 11, 11), "two or three dimensions, these have 4"),
    ],
    ids=str,
)
def test_public_images_that_do_not_suffice_are_refused_with_the_way_out(shape: tuple[int, ...], reason: str) -> None:
    check_planting(torch.zeros(8, 1, 11, 11), attack="any")
    with pytest.raises(SettingError, match=rf"adversary\.attack: any needs .*{reason}.*adversary\.attack=none"):
        check_planting(torch.zeros(shape), attack="any")


def test_the_search_changes_one_setting_after_the_other_and_keeps_the_best() -> None:
    asked = []

    def score(design: tuple[int, int]) -> float:
        asked.append(design)
        return -abs(design[0] - 2) - abs(design[1] - 5)

    settings = (
        lambda design: [(first, design[1]) for first in (1, 2, 3)],
        lambda design: [(design[0], second) for second in (4, 5)],
    )
    assert search((0, 0), settings, score) == (2, 5)
    # No full grid.
    assert set(asked) == {(1, 0), (2, 0), (3, 0), (2, 4), (2, 5)}


def test_of_two_designs_that_are_equally_good_the_less_conspicuous_one_is_taken() -> None:
    assert best_of(["quiet", "loud"], {"quiet": 0.5, "loud": 0.5 + 5e-4}.__getitem__) == "quiet"
    assert best_of(["quiet", "loud"], {"quiet": 0.5, "loud": 0.5 + 5e-3}.__getitem__) == "loud"
