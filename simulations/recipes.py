"""Which hyperparameters a run uses: the user's where given, else the data set's recipe for the nearest budget."""

from __future__ import annotations

import math
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


_LOG10_OF_INFINITY = 18.0
"""Where a budget of ``inf`` stands among the others: as far above the largest usual one, 1e15, as that above 1e12."""


def nearest_recipe(recipes: Sequence[Recipe], eps: float) -> Recipe:
    """The recipe whose budget is nearest on a logarithmic scale.

    Raises:
        SettingError: if there is no recipe at all.
    """
    if not recipes:
        raise SettingError("training", "this data set has no recipes: set all of training.* yourself")

    def position(budget: float) -> float:
        return _LOG10_OF_INFINITY if math.isinf(budget) else math.log10(budget)

    return min(recipes, key=lambda recipe: abs(position(recipe.eps) - position(eps)))


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
