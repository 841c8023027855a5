"""Which hyperparameters a run uses: the user's where given, else the data set's recipe for the nearest budget."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from hbdp_fed.dpsgd.sampling import BATCH_PER
from hbdp_fed.errors import SettingError, unknown_choice
from simulations.schema import Recipe, TrainingConfig


@dataclass(frozen=True)
class Hyperparameters:
    """What training needs to know besides the budget.

    Attributes:
        rounds: Training rounds.
        local_steps: DP-SGD steps a hospital takes in a round.
        learning_rate: Of the local optimiser.
        expected_batch: Wanted expected batch, of one hospital or of all together, in units of privacy.
        max_grad_norm: Clipping norm; unused without privacy.
        batch_per: A key of :data:`hbdp_fed.dpsgd.sampling.BATCH_PER`: whose ``expected_batch`` is.
    """

    rounds: int
    local_steps: int
    learning_rate: float
    expected_batch: float
    max_grad_norm: float
    batch_per: str = "hospital"

    def batch_of(self, units: int, *, federation: int) -> float:
        """The wanted expected batch of a hospital with so many records (or patients) of so many in the federation."""
        return BATCH_PER[self.batch_per](self.expected_batch, units / federation)


def rounds_for(epochs: float, hyper: Hyperparameters, sizes: Sequence[int]) -> int:
    """How many rounds it takes until every unit was in ``epochs`` batches, on average over all hospitals' units.

    Args:
        epochs: Positive.
        hyper: Everything but the rounds.
        sizes: The hospitals' records, or their patients where these are the units.

    Raises:
        SettingError: if ``epochs`` is not positive and finite.
    """
    _check_positive("epochs", epochs)
    total = sum(sizes)
    a_step = sum(min(size, hyper.batch_of(size, federation=total)) for size in sizes)
    return max(1, math.ceil(epochs * total / (a_step * hyper.local_steps) - 1e-9))


def nearest_recipe(recipes: Sequence[Recipe], eps: float) -> Recipe:
    """The recipe whose budget is nearest on a logarithmic scale.

    ``inf`` has a recipe of its own: without clipping, another learning rate is right. It serves a finite budget only
    where there is no other, and the other way round.

    Raises:
        SettingError: if there is no recipe at all, or one of them is for no budget.
    """
    if not recipes:
        raise SettingError("training", "this data set has no recipes: set all of training.* yourself")
    if not all(recipe.eps > 0 for recipe in recipes):
        raise SettingError("data.recipes", "eps must be a positive number or inf in each of them")
    alike = [recipe for recipe in recipes if math.isinf(recipe.eps) == math.isinf(eps)] or recipes
    return min(alike, key=lambda recipe: abs(_log(recipe.eps) - _log(eps)))


def _log(eps: float) -> float:
    """log10, with infinity as large as the largest number."""
    return math.log10(min(eps, sys.float_info.max))


def choose(training: TrainingConfig, recipes: Sequence[Recipe], eps: float) -> Hyperparameters:
    """Merge the user's settings with the nearest recipe and check the ranges.

    Where ``training.epochs`` is set, the rounds follow from it (see :func:`rounds_for`) and are 1 until then. Without
    any recipe, the batch is a hospital's.

    Raises:
        SettingError: naming the key that is out of its range.
    """
    if training.rounds is not None and training.epochs is not None:
        raise SettingError("training.epochs", "takes the place of training.rounds: set one of the two to null")
    names = ("rounds", "local_steps", "learning_rate", "expected_batch", "max_grad_norm", "batch_per")
    given = {name: getattr(training, name) for name in names}
    if training.epochs is not None:
        _check_positive("epochs", training.epochs)
        given["rounds"] = 1  # until the hospitals' sizes are known
    # Whose the batch is says the recipe even where it says nothing else, or one more setting would change its meaning.
    if any(given[name] is None for name in (names if recipes else names[:-1])):
        recipe = nearest_recipe(recipes, eps)
        given = {name: getattr(recipe, name) if value is None else value for name, value in given.items()}
    given["batch_per"] = given["batch_per"] or "hospital"
    if given["batch_per"] not in BATCH_PER:
        raise unknown_choice("training.batch_per", given["batch_per"], BATCH_PER)
    for name in names[:-1]:
        _check_positive(name, given[name])
    return Hyperparameters(**given)


def _check_positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise SettingError(f"training.{name}", f"must be positive and finite, got {value:g}")
