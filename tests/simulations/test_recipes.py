"""Hyperparameters: the user's own first, then the recipe of the nearest budget."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from hbdp_fed.errors import SettingError
from simulations.recipes import Hyperparameters, choose, nearest_recipe, rounds_for
from simulations.schema import Recipe, TrainingConfig


def recipe(eps: float) -> Recipe:
    return Recipe(
        eps=eps,
        rounds=2,
        local_steps=3,
        learning_rate=eps if math.isfinite(eps) else 7.0,
        expected_batch=8,
        max_grad_norm=1.0,
    )


RECIPES = [recipe(eps) for eps in (1.0, 1e6, 1e12, math.inf)]


@pytest.mark.parametrize(
    ("eps", "nearest"),
    [
        (0.2, 1.0),
        (1.0, 1.0),
        (900, 1.0),
        (1100, 1e6),
        (1e9 * 1.1, 1e12),
        (1e14, 1e12),
        (1e16, 1e12),
        (math.inf, math.inf),
    ],
)
def test_the_nearest_budget_on_a_logarithmic_scale_decides(eps: float, nearest: float) -> None:
    assert nearest_recipe(RECIPES, eps).eps == nearest


def test_the_users_own_settings_win_one_by_one() -> None:
    chosen = choose(TrainingConfig(rounds=9, learning_rate=0.5), RECIPES, 1e6)
    assert (chosen.rounds, chosen.local_steps, chosen.learning_rate, chosen.expected_batch) == (9, 3, 0.5, 8)


FULL = {"rounds": 1, "local_steps": 1, "learning_rate": 0.1, "expected_batch": 4.0, "max_grad_norm": 1.0}


def test_without_recipes_everything_has_to_be_set() -> None:
    assert choose(TrainingConfig(**FULL), [], 1.0) == Hyperparameters(**FULL, batch_per="hospital")
    with pytest.raises(SettingError, match=r"training: this data set has no recipes"):
        choose(TrainingConfig(), [], 1.0)


@pytest.mark.parametrize("name", ["rounds", "local_steps", "learning_rate", "expected_batch", "max_grad_norm"])
def test_what_is_not_positive_is_named(name: str) -> None:
    with pytest.raises(SettingError, match=rf"training\.{name}: must be positive"):
        choose(TrainingConfig(**{name: 0}), RECIPES, 1.0)


def hyper(batch: float, batch_per: str = "hospital", *, local_steps: int = 1) -> Hyperparameters:
    return Hyperparameters(
        rounds=1,
        local_steps=local_steps,
        learning_rate=0.1,
        expected_batch=batch,
        max_grad_norm=1.0,
        batch_per=batch_per,
    )


def test_a_batch_is_each_hospitals_own_or_shared_in_proportion_to_records() -> None:
    assert [hyper(32).batch_of(size, federation=400) for size in (300, 100)] == [32, 32]
    shared = [hyper(32, "federation").batch_of(size, federation=400) for size in (300, 100)]
    assert shared == [24, 8]
    # All sample at the rate of one that holds everything.
    assert [batch / size for batch, size in zip(shared, (300, 100), strict=True)] == [32 / 400, 32 / 400]


def test_whose_the_batch_is_comes_from_the_recipe_unless_it_is_set() -> None:
    recipes = [replace(recipe(1.0), batch_per="federation"), recipe(math.inf)]
    assert choose(TrainingConfig(), recipes, 1.0).batch_per == "federation"
    assert choose(TrainingConfig(), recipes, math.inf).batch_per == "hospital"
    assert choose(TrainingConfig(batch_per="hospital"), recipes, 1.0).batch_per == "hospital"
    # Setting the last of the other values changes nothing about it.
    assert choose(TrainingConfig(**FULL), recipes, 1.0).batch_per == "federation"
    with pytest.raises(SettingError, match=r"^training\.batch_per: 'site' is not known; choose one of: fed"):
        choose(TrainingConfig(batch_per="site"), recipes, 1.0)


@pytest.mark.parametrize(
    ("epochs", "chosen", "sizes", "rounds"),
    [
        # A round shows 2 x (20 + 20) of 400 records: 5 of them are an epoch.
        (1, hyper(20, local_steps=2), (200, 200), 5),
        (3, hyper(20, local_steps=2), (200, 200), 15),
        # Unequal hospitals with equal batches: 40 of 400 a step.
        (1, hyper(20), (300, 100), 10),
        # 20 of 400 a step over the whole federation.
        (1, hyper(20, "federation"), (300, 100), 20),
        (0.5, hyper(20, "federation"), (300, 100), 10),
        # A round that has been begun is a round: 7.01 steps.
        (7.01, hyper(400, "federation"), (300, 100), 8),
        # A hospital cannot show more than it holds: 100 + 50 of 150, and 100 + 50 again.
        (2, hyper(100), (100, 50), 2),
        (2, hyper(1000, "federation"), (100, 50), 2),
        # Fewer than a round's worth is one round.
        (0.001, hyper(20), (200, 200), 1),
        # The published settings: 100 epochs of 8012 records in batches of 2048, and 500 of 92 volumes one by one.
        (100, hyper(2048, "federation"), (3000, 5012), 392),
        (500, hyper(1, "federation", local_steps=25), (23, 23, 23, 23), 1840),
    ],
)
def test_epochs_become_rounds(epochs: float, chosen: Hyperparameters, sizes: tuple[int, ...], rounds: int) -> None:
    assert rounds_for(epochs, chosen, sizes) == rounds


def test_whole_epochs_are_whole_rounds_whatever_the_last_bit_says() -> None:
    """Ten batches of a tenth are one epoch, though ten tenths added up are not one."""
    for hospitals in range(1, 40):
        assert rounds_for(1, hyper(7.0 * hospitals, "federation"), [70] * hospitals) == 10


def test_epochs_take_the_place_of_rounds() -> None:
    assert choose(TrainingConfig(epochs=3), RECIPES, 1.0).rounds == 1
    assert choose(TrainingConfig(epochs=3), RECIPES, 1.0).local_steps == 3
    with pytest.raises(SettingError, match=r"^training\.epochs: takes the place of training\.rounds: set one"):
        choose(TrainingConfig(epochs=3, rounds=2), RECIPES, 1.0)


@pytest.mark.parametrize("epochs", [0.0, -1.0, math.inf, math.nan])
def test_epochs_out_of_their_range_are_refused_before_the_data_is_read(epochs: float) -> None:
    with pytest.raises(SettingError, match=r"^training\.epochs: must be positive and finite"):
        choose(TrainingConfig(epochs=epochs), RECIPES, 1.0)
    with pytest.raises(SettingError, match=r"^training\.epochs: must be positive and finite"):
        rounds_for(epochs, hyper(20), (200, 200))
