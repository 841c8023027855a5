"""Hospitals' profiles as they are written in the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from hbdp_fed.errors import SettingError
from hbdp_fed.training.pace import SiteProfile

KEY = "federation.profiles"
DEFAULT = "default"
"""The name under which all hospitals without a profile of their own have theirs."""


def site_profiles(
    wanted: Mapping[str, Any],
    hospitals: Sequence[str],
    *,
    known: Sequence[str] | None = None,
    by_kind: Mapping[str, Mapping[str, float]] | None = None,
) -> tuple[SiteProfile, ...]:
    """Every hospital's profile, in their order: its own fields, then those of ``default``, of its kind, plausible ones.

    Args:
        wanted: By hospital, or :data:`DEFAULT`, the fields of :class:`SiteProfile` that differ.
        hospitals: Those that take part.
        known: The names that may have a profile; None for those of ``hospitals``.
        by_kind: By hospital what its kind of site says, where it has one.

    Raises:
        SettingError: for a hospital or a field that does not exist, or a value that cannot be used.
    """
    named = tuple(dict.fromkeys(hospitals if known is None else known))
    there = [item.name for item in fields(SiteProfile)]
    for name, given in wanted.items():
        if name != DEFAULT and name not in named:
            raise SettingError(KEY, f"there is no hospital '{name}'; name {DEFAULT} or: {', '.join(named)}")
        if not isinstance(given, Mapping):
            raise SettingError(KEY, f"{name} needs a mapping of: {', '.join(there)}; got {given}")
        for field, value in given.items():
            if field not in there:
                raise SettingError(KEY, f"{name} has no field '{field}'; the fields are: {', '.join(there)}")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise SettingError(KEY, f"{name}: {field} must be a number, got {value}")
    kinds = by_kind or {}
    return tuple(
        _profile(name, {**kinds.get(name, {}), **wanted.get(DEFAULT, {}), **wanted.get(name, {})}) for name in hospitals
    )


def _profile(name: str, given: Mapping[str, float]) -> SiteProfile:
    try:
        return SiteProfile(**{field: float(value) for field, value in given.items()})
    except ValueError as error:
        raise SettingError(KEY, f"{name}: {error}") from error
