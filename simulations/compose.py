"""From a command line to a typed configuration, with errors a person can act on.

Hydra's own decorator ends with exit code 1 and two screens of text, and leaves an ``outputs`` folder behind; its
compose function does the same work without both.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from importlib import resources

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hbdp_fed.errors import SettingError, UserError, unknown_choice
from simulations import schema

_CONFIGS = "configs"


def choices(group: str) -> list[str]:
    """The names that a configuration group has, for example all data sets."""
    folder = resources.files(_CONFIGS).joinpath(group)
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def groups() -> list[str]:
    """The configuration groups."""
    root = resources.files(_CONFIGS)
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("__"))


def compose_run(arguments: Sequence[str], *, config_name: str = "run") -> DictConfig:
    """The configuration that ``arguments`` (``key=value``) ask for, resolved and checked against its types.

    Raises:
        UserError: naming the key and what it accepts.
    """
    overrides = _parse(arguments)
    _check_choices(overrides)
    chosen = [argument for argument, override in zip(arguments, overrides, strict=True) if _is_group(override)]
    known = [name for name in _leaves(_compose(config_name, chosen)) if name not in _names_of_groups()]
    for override in overrides:
        if not _is_group(override):
            _check_key(override.key_or_group, known)
    return _compose(config_name, arguments)


def typed(config: DictConfig) -> schema.RunConfig:
    """The configuration as plain dataclasses, which is all that the rest of a run sees of Hydra."""
    value = OmegaConf.to_object(config)
    assert isinstance(value, schema.RunConfig)
    return value


def _compose(config_name: str, arguments: Sequence[str]) -> DictConfig:
    schema.register()
    try:
        with initialize_config_module(config_module=_CONFIGS, version_base="1.3"):
            config = compose(config_name, overrides=list(arguments))
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error) from error
    return config


def _parse(arguments: Sequence[str]) -> list[Override]:
    for argument in arguments:
        if argument.startswith(("+", "~")):
            raise SettingError(argument, "keys cannot be added or removed, only set: key=value")
        if "=" not in argument:
            raise SettingError(argument, "expected key=value, for example eps=1e12")
    try:
        return OverridesParser.create().parse_overrides(list(arguments))
    except HydraException as error:
        raise UserError(" ".join(str(error).split())) from error


def _is_group(override: Override) -> bool:
    return override.key_or_group in groups()


def _check_choices(overrides: Sequence[Override]) -> None:
    for override in overrides:
        if _is_group(override):
            value, known = str(override.value()), choices(override.key_or_group)
            if value not in known:
                raise unknown_choice(override.key_or_group, value, known)


def _names_of_groups() -> list[str]:
    """``data.name`` and its like are set by choosing the group (``data=phantom``), never one by one."""
    return [f"{group}.name" for group in groups()]


def _check_key(key: str, known: Sequence[str]) -> None:
    if key in known:
        return
    names = [*known, *groups()]
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
        if isinstance(value, DictConfig):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _explain(error: BaseException) -> UserError:
    """One line from an exception of Hydra's, whose useful part is the innermost one."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    key = getattr(cause, "full_key", None)
    message = str(getattr(cause, "msg", None) or cause).strip().splitlines()[0]
    for theirs, ours in (
        ("Float", "a number (inf is one)"),
        ("Integer", "a whole number"),
        ("Boolean", "true or false"),
    ):
        message = message.replace(f"could not be converted to {theirs}", f"is not {ours}")
    return SettingError(str(key), message) if key else UserError(message)
