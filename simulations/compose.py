"""From a command line to a typed configuration, with errors a person can act on.

Hydra's own decorator ends with exit code 1 and two screens of text, and leaves an ``outputs`` folder behind; its
compose function does the same work without both.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, OverrideType, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hbdp_fed.errors import SettingError, UserError, unknown_choice
from simulations import schema

_CONFIGS = "configs"
INTERPOLATION = "${"
"""How OmegaConf marks what is to be looked up elsewhere."""

_FREE = ("federation.elsewhere", "federation.profiles", "model.args", "adversary.options", "options")
"""Settings that are mappings with names of the user's own."""

MOST_RUNS = 10_000
"""Of one sweep. Runs that take a minute each take a week."""

_LONGEST, _DEEPEST = 30_000, 20
"""Letters of one setting, and brackets within each other: Hydra's parser takes seconds for as many, and ends by running
out of stack for more."""

_LARGEST_WHOLE = 2**53
_SHOWN = 20

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class _Root:
    """A program's configuration: the type of its settings, and one that shows how they are written.

    Attributes:
        kind: The type.
        example: One setting.
        presets: Groups whose members set many sections at once; none is chosen unless one is asked for.
    """

    kind: type
    example: str
    presets: tuple[str, ...] = ()


_ROOTS: Mapping[str, _Root] = {
    "run": _Root(schema.RunConfig, "eps=1e12", presets=("experiment",)),
    "budget": _Root(schema.BudgetConfig, "budgets=[1,1e12]"),
    "attack": _Root(schema.AttackConfig, "attack=imprint"),
    "sweep": _Root(schema.SweepConfig, "eps=[1,1e12]"),
    "compare": _Root(schema.CompareConfig, "format=md"),
    "predict": _Root(schema.PredictConfig, "format=csv"),
    "plan": _Root(schema.PlanConfig, "consortium=chest_xray_7"),
}
"""The programs by the name of their configuration file."""


def choices(group: str) -> list[str]:
    """The names that a configuration group has, for example all data sets."""
    folder = resources.files(_CONFIGS).joinpath(group)
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def groups(config_name: str = "run") -> list[str]:
    """The configuration groups of a program: some of its sections, and its presets."""
    root = _ROOTS[config_name]
    sections = {*(section.name for section in fields(root.kind)), *root.presets}
    return sorted(
        entry.name for entry in resources.files(_CONFIGS).iterdir() if entry.is_dir() and entry.name in sections
    )


def compose_run(arguments: Sequence[str], *, config_name: str = "run") -> DictConfig:
    """The configuration that ``arguments`` (``key=value``) ask for, resolved and checked against its types.

    Raises:
        UserError: naming the key and what it accepts.
    """
    overrides = parse(arguments, example=_ROOTS[config_name].example)
    grouped = groups(config_name)
    _check_choices([override for override in overrides if override.key_or_group in grouped])
    chosen = [
        argument for argument, override in zip(arguments, overrides, strict=True) if override.key_or_group in grouped
    ]
    known = _settable(config_name, tuple(chosen))
    for override in overrides:
        if override.key_or_group not in grouped:
            _check_key(override.key_or_group, known, grouped)
    config = _compose(config_name, arguments, overrides)
    check_values(config)
    return config


def check_values(config: DictConfig) -> None:
    """Refuse values that no setting takes: one that is missing, and whole numbers that are no longer exact.

    Raises:
        SettingError: naming its key.
    """
    for key in sorted(OmegaConf.missing_keys(config)):
        raise SettingError(key, "is missing, which ??? stands for; give it a value")
    for key, value in _values("", OmegaConf.to_container(config)):
        if isinstance(value, int) and abs(value) > _LARGEST_WHOLE:
            raise SettingError(key, f"must be a whole number up to 2^53, got {str(value)[:_SHOWN]}")


def _values(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _values(f"{key}.{name}".lstrip("."), item)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _values(f"{key}[{place}]", item)
    else:
        yield key, value


def typed(config: DictConfig) -> schema.RunConfig:
    """The configuration as plain dataclasses, which is all that the rest of a run sees of Hydra."""
    return typed_as(schema.RunConfig, config)


def typed_as(kind: type[Kind], config: DictConfig) -> Kind:
    """As :func:`typed`, for any program's type of settings."""
    value = OmegaConf.to_object(config)
    assert isinstance(value, kind)
    return value


def _compose(config_name: str, arguments: Sequence[str], overrides: Sequence[Override] = ()) -> DictConfig:
    """The configuration with these settings, resolved.

    Hydra takes two tenths of a second to read all files again, and programs and tests compose many times. What the
    groups lead to is read once; single settings are then updated in a copy, as Hydra does it. Whatever goes wrong in
    that, Hydra is asked itself, so that its word is what people are told.

    Args:
        config_name: The program's.
        arguments: ``key=value`` each.
        overrides: The same, parsed.
    """
    grouped = groups(config_name)
    chosen = tuple(
        text for text, override in zip(arguments, overrides, strict=True) if override.key_or_group in grouped
    )
    config = deepcopy(_composed(config_name, chosen))
    try:
        for override in overrides:
            key = override.key_or_group
            if key not in grouped:
                OmegaConf.update(config, key, override.value(), merge=True, force_add=key in _FREE)
        return _resolved(config)
    except (HydraException, OmegaConfBaseException):
        return _resolved_or_explained(config_name, arguments)


@cache
def _composed(config_name: str, arguments: tuple[str, ...]) -> DictConfig:
    """The same as :func:`_asked_of_hydra`, kept. Nobody may change it."""
    return _asked_of_hydra(config_name, arguments)


def _asked_of_hydra(config_name: str, arguments: Sequence[str]) -> DictConfig:
    """What Hydra makes of these arguments, unresolved."""
    schema.register()
    try:
        with initialize_config_module(config_module=_CONFIGS, version_base="1.3"):
            # Hydra has a sign of its own for what may add keys; people need not know it.
            signed = [f"++{text}" if text.split("=")[0] in _FREE else text for text in arguments]
            return compose(config_name, overrides=signed)
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error) from error


def _resolved(config: DictConfig) -> DictConfig:
    OmegaConf.resolve(config)
    for name in _FREE:
        free = OmegaConf.select(config, name)
        if free is not None:
            OmegaConf.set_struct(free, False)
    return config


def _resolved_or_explained(config_name: str, arguments: Sequence[str]) -> DictConfig:
    config = _asked_of_hydra(config_name, arguments)
    try:
        return _resolved(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error) from error


@cache
def _settable(config_name: str, chosen: tuple[str, ...]) -> list[str]:
    """The settings that there are with these groups chosen."""
    # ``data.name`` and its like are set by choosing the group (``data=phantom``), never one by one.
    names_of_groups = {f"{group}.name" for group in groups(config_name)}
    settings = _leaves(_resolved(deepcopy(_composed(config_name, chosen))))
    return [name for name in settings if name not in names_of_groups]


def setting_names(config_name: str) -> list[str]:
    """All settings of a program with its default groups."""
    return list(_leaves(_compose(config_name, ())))


def parse(arguments: Sequence[str], *, example: str, sweeps: bool = False) -> list[Override]:
    """Command line arguments as Hydra understands them.

    Args:
        arguments: ``key=value`` each.
        example: One of the program's, for messages.
        sweeps: Whether a setting may be given several values, ``key=1,2``.

    Raises:
        UserError: for what is no ``key=value``, or several values where one is wanted.
    """
    return [_parsed(argument, example=example, sweeps=sweeps) for argument in arguments]


def _parsed(argument: str, *, example: str, sweeps: bool) -> Override:
    key = argument.partition("=")[0]
    if argument.startswith(("+", "~")):
        raise SettingError(key, "keys cannot be added or removed, only set: key=value")
    if "=" not in argument:
        raise SettingError(key, f"expected key=value, for example {example}")
    _check_shape(key, argument)
    try:
        (override,) = OverridesParser.create().parse_overrides([argument])
    except (HydraException, ValueError) as error:  # the second is a number of thousands of digits
        raise SettingError(key, f"cannot be read: {_told_by_parser(error)}") from error
    if override.type is not OverrideType.CHANGE or override.package is not None:
        raise SettingError(key, "keys can only be set as they are: key=value")
    if override.is_sweep_override() and not sweeps:
        raise SettingError(key, "takes one value; a list is written in brackets: key=[1,2]")
    return override


def _check_shape(key: str, argument: str) -> None:
    """Refuse what is not even to be parsed."""
    if len(argument) > _LONGEST:
        raise SettingError(key, f"must have at most {_LONGEST} letters, got {len(argument)}")
    if INTERPOLATION in argument:
        # The environment could be looked up by it, and would be written into the run's folder and reports.
        raise SettingError(key, "must not hold ${...}: values stand for themselves; let the shell put in others")
    depth = 0
    for letter in argument:
        depth += (letter in "[{(") - (letter in "]})")
        if depth > _DEEPEST:
            raise SettingError(key, f"must have at most {_DEEPEST} brackets within each other")


def _told_by_parser(error: Exception) -> str:
    """What Hydra's parser found, without the text that it was given and the page that it recommends."""
    lines = [
        line for line in str(error).splitlines() if not line.startswith(("Error parsing override", "See https://"))
    ]
    told = lines[0].partition(" expecting ")[0]
    # Of a letter that it does not know it tells only where it stands.
    where = "it has a character that" if told.startswith("LexerNoViable") else f"{told}; text with such signs"
    return f"{where} needs quotes of its own, as in \"key='a!b'\""


def swept(override: Override) -> list[str]:
    """The values that ``key=a,b``, ``key=choice(a,b)`` or ``key=range(1,4)`` stands for, as they are typed.

    Raises:
        SettingError: if it stands for none that can be counted, or for more than :data:`MOST_RUNS`.
    """
    key, value = override.key_or_group, override.value()
    if isinstance(value, IntervalSweep | Glob):
        raise SettingError(key, "cannot vary over an interval or a pattern; write its values: key=1,2")
    if isinstance(value, RangeSweep):
        start, stop, step = (float(number or 0) for number in (value.start, value.stop, value.step))
        if step == 0 or not (stop - start) / step <= MOST_RUNS:
            raise SettingError(key, f"must stand for at most {MOST_RUNS} values")
    return list(override.sweep_string_iterator())


def _check_choices(chosen: Sequence[Override]) -> None:
    for override in chosen:
        value, known = str(override.value()), choices(override.key_or_group)
        if value not in known:
            raise unknown_choice(override.key_or_group, value, known)


def _check_key(key: str, known: Sequence[str], grouped: Sequence[str]) -> None:
    if key in known:
        return
    names = [*known, *grouped]
    inside = [name for name in names if name.startswith(f"{key}.")]
    if inside:
        raise SettingError(key, f"is a section; set one of: {', '.join(inside)}")
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    # A last part that is right in another section is a likelier slip than a similar spelling.
    near = [name for name in names if name.rpartition(".")[2] == key.rpartition(".")[2]] or near
    hint = f"did you mean '{near[0]}'?" if near else f"the settings are: {', '.join(names)}"
    raise SettingError(key, f"there is no such setting; {hint}")


def _leaves(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in map(str, config):
        value = OmegaConf.select(config, name, throw_on_missing=False)
        # A mapping of free names is one setting.
        if isinstance(value, DictConfig) and OmegaConf.get_type(value) is not dict:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _explain(error: BaseException) -> UserError:
    """One line from an exception of Hydra's, whose useful part is the innermost one."""
    cause: BaseException = error
    # Hydra raises some of its exceptions while it handles the useful one, without naming it as the cause.
    while (inner := cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)) is not None:
        cause = inner
    key = getattr(cause, "full_key", None)
    message = str(getattr(cause, "msg", None) or cause).strip().splitlines()[0]
    for theirs, ours in (
        ("Float", "a number (inf is one)"),
        ("Integer", "a whole number"),
        ("Boolean", "true or false"),
    ):
        message = message.replace(f"could not be converted to {theirs}", f"is not {ours}")
    message = message.replace("is not a ListConfig, list or tuple.", "is not a list, which is written as [1,2]")
    message = message.replace("Incompatible key type 'NoneType'", "the keys of a mapping must be names, got null")
    if key in _FREE:
        message = "must be a mapping by name, which is written as {name: {field: value}}"
    return SettingError(str(key), message) if key else UserError(message)
