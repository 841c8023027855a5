"""From a command line to the runs of a sweep: which settings vary, and over what."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override, QuotedString

from hbdp_fed.errors import SettingError, UserError
from simulations.compose import compose_run, groups, parse, setting_names, swept

BUDGET = "eps"
DEFAULT_BUDGETS = ("1", "8", "32", "1e6", "1e9", "1e12", "1e15", "inf")
"""Those of Ziller et al. (2024), from what is usually called safe to no privacy at all."""

_OWN_KEYS = {
    "seed": "a sweep takes seeds=3 (0, 1, 2) or seeds=[0,7]",
    "run_dir": "a sweep takes sweep_dir=PATH, and its runs lie in it",
    "tracking": "the runs of a sweep are told of in sweep.json; track single runs",
}


@dataclass(frozen=True)
class Axis:
    """One setting that varies.

    Attributes:
        key: Its name.
        values: As they are typed.
    """

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """What a sweep was asked for, taken apart.

    Attributes:
        own: The sweep's own settings, as ``key=value``.
        fixed: What all runs share, as ``key=value``.
        axes: What varies, budgets last.
    """

    own: tuple[str, ...]
    fixed: tuple[str, ...]
    axes: tuple[Axis, ...]

    def combinations(self) -> Iterator[Mapping[str, str]]:
        """Every combination of the axes' values, budgets fastest."""
        for values in itertools.product(*(axis.values for axis in self.axes)):
            yield dict(zip((axis.key for axis in self.axes), values, strict=True))

    def samples(self) -> Iterator[tuple[str, list[str]]]:
        """The settings of a few runs, ``key=value`` each, in which every value occurs; the first combination first.

        Each with the key of the axis along which it differs from the first; empty for that itself.
        """
        first = next(self.combinations())
        yield "", [*self.fixed, *assignments(first)]
        for axis in self.axes:
            for value in axis.values[1:]:
                yield axis.key, [*self.fixed, *assignments({**first, axis.key: value})]


def take_apart(arguments: Sequence[str]) -> Asked:
    """Tell the sweep's own settings from those of its runs, and what varies from what all share.

    A setting varies where it is given several values that it cannot take at once: ``eps=[1,8]`` or ``eps=1,8``, but not
    ``adversary.surfaces=[gradient,update]``, which is one value.

    Raises:
        UserError: for what cannot be read, and for a sweep without values. Whether runs can be had of them is told by
            :meth:`Asked.samples`.
    """
    own_names = setting_names("sweep")
    own: list[str] = []
    fixed: list[str] = []
    axes: dict[str, Axis] = {}
    overrides = parse(arguments, example="eps=[1,1e12]", sweeps=True)
    sections = _sections(arguments, overrides)
    for text, override in zip(arguments, overrides, strict=True):
        key = override.key_or_group
        if key in _OWN_KEYS:
            raise SettingError(key, _OWN_KEYS[key])
        if key in own_names:
            own.append(text)
        elif len(values := _values(override, text, sections)) > 1:
            axes[key] = Axis(key, values)
        else:
            fixed.append(f"{key}={values[0]}" if override.is_sweep_override() else text)
    given = {override.partition("=")[0] for override in fixed}
    budgets = axes.pop(BUDGET, None)
    if budgets is None and BUDGET not in given:
        budgets = Axis(BUDGET, DEFAULT_BUDGETS)
    if budgets is None:
        (text,) = (text for text in fixed if text.startswith(f"{BUDGET}="))
        fixed.remove(text)
        budgets = Axis(BUDGET, (text.partition("=")[2],))
    return Asked(tuple(own), tuple(fixed), (*axes.values(), ascending(budgets)))


def written(value: Any) -> str:
    """A value as one types it, and as folders are named by it: ``1e6``, ``inf``, ``[1,4]``."""
    if isinstance(value, QuotedString):
        return str(value.text)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return _written_float(value)
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    return str(value)


def _written_float(value: float) -> str:
    if not math.isfinite(value):
        return f"{value:g}"
    digits, exponent = f"{value:.11e}".split("e")
    if -5 < int(exponent) < 5:
        return f"{value:.12g}"
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def _values(override: Override, text: str, sections: Sequence[str]) -> tuple[str, ...]:
    """The values that a setting is to take, one unless it varies."""
    if override.is_sweep_override():
        found = [written(_plain(value)) for value in swept(override)]
    elif isinstance(value := override.value(), list) and not _is_taken(text, sections):
        found = [written(item) for item in value]
    else:
        return (text.partition("=")[2],)
    if not found:
        raise SettingError(override.key_or_group, "varies over no value at all; give at least one")
    twice = sorted({value for value in found if found.count(value) > 1})
    if twice:
        raise SettingError(override.key_or_group, f"varies over the same value twice: {', '.join(twice)}")
    return tuple(found)


def _plain(text: str) -> Any:
    """A value of a sweep by Hydra, which hands it out as text, as a number where it is one."""
    try:
        return float(text) if re.search(r"[.e]|inf", text.lower()) else int(text)
    except ValueError:
        return text


def _sections(arguments: Sequence[str], overrides: Sequence[Override]) -> list[str]:
    """The arguments that choose which settings there are, where they choose one: ``data=msd``."""
    pairs = zip(arguments, overrides, strict=True)
    return [
        text
        for text, override in pairs
        if override.key_or_group in groups() and not override.is_sweep_override() and isinstance(override.value(), str)
    ]


def _is_taken(text: str, sections: Sequence[str]) -> bool:
    """Whether a run takes this as one value."""
    try:
        compose_run([*(section for section in sections if section != text), text])
    except UserError:
        return False
    return True


def ascending(budgets: Axis) -> Axis:
    """The budgets from the smallest to ``inf``.

    Raises:
        SettingError: if one of them is no number.
    """
    try:
        return Axis(BUDGET, tuple(sorted(budgets.values, key=_number)))
    except ValueError as error:
        raise SettingError(BUDGET, f"must be positive numbers or inf, got {', '.join(budgets.values)}") from error


def _number(text: str) -> float:
    value = float(text)
    if math.isnan(value):
        raise ValueError(text)
    return value


def assignments(values: Mapping[str, str]) -> list[str]:
    """``key=value`` of each."""
    return [f"{key}={value}" for key, value in values.items()]
