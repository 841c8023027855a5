"""What an attack that rebuilds images is built with beyond a run's common settings: ``adversary.options``.

An attack's own keywords are the fields of its dataclass, where they are explained. They are checked before anything is
trained, by their types and by the attack itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError

from hbdp_fed.adversary import ATTACKS, REBUILDING, build_attack
from hbdp_fed.errors import SettingError, unknown_choice

KEY = "adversary.options"

_NEVER = ("name", "device")


def checked_options(wanted: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """By attack, its keywords, with the types that it takes.

    Args:
        wanted: As they were written: ``{gradient_inversion: {iterations: 300}}``.

    Raises:
        SettingError: naming the attack and the keyword, and what is accepted.
    """
    return {attack: _checked(attack, given) for attack, given in wanted.items()}


def options_of(wanted: Mapping[str, Any], attack: str) -> Mapping[str, Any]:
    """One attack's keywords; none where none were given."""
    return _checked(attack, wanted[attack]) if attack in wanted else {}


def _checked(attack: str, given: Any) -> Mapping[str, Any]:
    able = [name for name, entry in ATTACKS.items() if entry.kind in REBUILDING]
    if attack not in able:
        raise unknown_choice(KEY, attack, able)
    if not isinstance(given, Mapping):
        raise SettingError(f"{KEY}.{attack}", f"must be a mapping of its keywords, got {given!r}")
    build, taken = ATTACKS[attack].build, {*ATTACKS[attack].takes, *_NEVER}
    types, known = get_type_hints(build), [item.name for item in fields(cast(type, build)) if item.name not in taken]
    options = {}
    for name, value in given.items():
        if name not in known:
            raise unknown_choice(f"{KEY}.{attack}", str(name), known)
        try:
            options[str(name)] = TypeAdapter(types[name]).validate_python(value)
        except ValidationError as error:
            raise SettingError(f"{KEY}.{attack}.{name}", f"{error.errors()[0]['msg']}, got {value!r}") from error
    try:
        build_attack(attack, **options)
    except SettingError as error:
        # Attacks name their keywords as if they were the adversary's own.
        raise SettingError(f"{KEY}.{attack}.{error.key.rpartition('.')[2]}", error.problem) from error
    except ValueError as error:
        raise SettingError(f"{KEY}.{attack}", str(error)) from error
    return options
