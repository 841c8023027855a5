"""Which hyperparameters a run uses: the user's where given, else the data set's recipe for the nearest budget."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from hbdp_fed.errors import SettingError
from simulations.schema import Recipe, TrainingConfig


@dataclass(frozen=True)
class Hyperparameters:
    """What training needs to know besides the budget.

    Attributes:
        rounds: Training rounds.
        local_steps: DP-SGD steps a hospital takes in a round.
        learning_rate: Of the local optimiser.
        expected_batch: Wanted expected batch of a hospital.
        max_grad_norm: Clipping norm; unused without privacy.
    """

    rounds: int
    local_steps: int
    learning_rate: float
    expected_batch: float
    max_grad_norm: float


def nearest_recipe(recipes: Sequence[Recipe], eps: float) -> Recipe:
    """The recipe whose budget is nearest on a logarithmic scale.

    ``inf`` has a recipe of its own: without clipping, another learning rate is right. It serves a finite budget only
    where there is no other, and the other way round.

    Raises:
        SettingError: if there is no recipe at all.
    """
    if not recipes:
        raise SettingError("training", "this data set has no recipes: set all of training.* yourself")
    alike = [recipe for recipe in recipes if math.isinf(recipe.eps) == math.isinf(eps)] or recipes
    return min(alike, key=lambda recipe: abs(_log(recipe.eps) - _log(eps)))


def _log(eps: float) -> float:
    """log10, with infinity as large as the largest number."""
    return math.log10(min(eps, sys.float_info.max))


def choose(training: TrainingConfig, recipes: Sequence[Recipe], eps: float) -> Hyperparameters:
    """Merge the user's settings with the nearest recipe and check the ranges.

    Raises:
        SettingError: naming the key that is out of its range.
    """
    names = ("rounds", "local_steps", "learning_rate", "expected_batch", "max_grad_norm")
    given = {name: getattr(training, name) for name in names}
    if None in given.values():
        recipe = nearest_recipe(recipes, eps)
        given = {name: getattr(recipe, name) if value is None else value for name, value in given.items()}
    for name, value in given.items():
        if not (value > 0 and math.isfinite(value)):
            raise SettingError(f"training.{name}", f"must be positive and finite, got {value:g}")
    return Hyperparameters(**given)
