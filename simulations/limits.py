"""How large a run's numbers may be: far above what anybody trains with, and below what no computer could begin."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from hbdp_fed.errors import SettingError
from simulations.recipes import Hyperparameters
from simulations.schema import RunConfig

LARGEST_BUDGET = 1e20
"""Far beyond what the accountants are made for (1e15); who asks for more means ``inf``."""

_LARGEST = 1e30
_MOST: Mapping[str, float] = {
    "clients": 100_000,
    "data.num_train": 100_000_000,
    "data.num_val": 100_000_000,
    "data.num_test": 100_000_000,
    "data.image_size": 4096,
    "model.width": 4096,
    "model.hidden": 65_536,
    "model.levels": 10,
    "model.res_units": 100,
    "engine.workers": 10_000,
    "engine.threads_per_client": 1024,
    "training.rounds": 100_000,
    "training.epochs": 1e6,
    "training.local_steps": 1_000_000,
    "training.expected_batch": 1e9,
    "training.multiplicity": 10_000,
    "privacy.steps": 1e12,
    "adversary.probes": 10_000,
    "adversary.bins": 1_000_000,
    "adversary.candidates": 1_000_000,
    "adversary.targets": 1_000_000,
    "evaluation.bootstrap": 1_000_000,
    "federation.round_timeout_s": 1e9,
}
"""By setting. All others end at 1e30, which no figure of a run comes near to, and whole numbers at 2^53."""

_LEAST: Mapping[str, float] = {
    "training.learning_rate": 1e-20,
    "training.max_grad_norm": 1e-20,
    "training.expected_batch": 0.01,
}
"""What is positive and below rounds to nothing on the way."""


def check_limits(config: RunConfig) -> None:
    """Refuse numbers that nothing could be computed with.

    Raises:
        SettingError: naming the key and what it accepts.
    """
    if LARGEST_BUDGET < config.eps < math.inf:
        raise SettingError("eps", f"must be at most {LARGEST_BUDGET:g}, or inf for no privacy, got {config.eps:g}")
    for key, value in _numbers("", config):
        _check(key, value)


def check_training(hyper: Hyperparameters) -> None:
    """The same of what recipes and ``training.epochs`` have filled in.

    Raises:
        SettingError: naming the key and what it accepts.
    """
    for key, value in _numbers("training", hyper):
        _check(key, value)


def _check(key: str, value: float) -> None:
    most, least = _MOST.get(key, _LARGEST), _LEAST.get(key, 0)
    if math.isnan(value):
        raise SettingError(key, "must be a number, got nan")
    if most < abs(value) < math.inf:
        raise SettingError(key, f"must be at most {most:.15g}, got {value:g}")
    if 0 < value < least:
        raise SettingError(key, f"must be at least {least:g}, got {value:g}")


def _numbers(key: str, value: Any) -> Iterator[tuple[str, float]]:
    """Every number in a configuration by its setting's name. Those in lists and mappings go by the whole's."""
    if is_dataclass(value):
        for item in fields(value):
            yield from _numbers(f"{key}.{item.name}".lstrip("."), getattr(value, item.name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from _numbers(key, item)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(key, item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value
