"""Hyperparameters: the user's own first, then the recipe of the nearest budget."""

from __future__ import annotations

import math

import pytest

from hbdp_fed.errors import SettingError
from simulations.recipes import choose, nearest_recipe
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


def test_without_recipes_everything_has_to_be_set() -> None:
    full = TrainingConfig(rounds=1, local_steps=1, learning_rate=0.1, expected_batch=4, max_grad_norm=1.0)
    assert choose(full, [], 1.0).rounds == 1
    with pytest.raises(SettingError, match=r"training: this data set has no recipes"):
        choose(TrainingConfig(), [], 1.0)


@pytest.mark.parametrize("name", ["rounds", "local_steps", "learning_rate", "expected_batch", "max_grad_norm"])
def test_what_is_not_positive_is_named(name: str) -> None:
    with pytest.raises(SettingError, match=rf"training\.{name}: must be positive"):
        choose(TrainingConfig(**{name: 0}), RECIPES, 1.0)
