"""What kinds of sites a federation has: ``sites=`` in the settings, whose figures stand in ``configs/sites/``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from hbdp_fed.data.checks import check_number
from hbdp_fed.training.pace import SiteProfile
from simulations.schema import RunConfig, SiteKindConfig

KEY = "sites.kinds"

_PROFILE = tuple(item.name for item in fields(SiteProfile))


@dataclass(frozen=True)
class Kind:
    """What a hospital is like by its kind.

    Attributes:
        name: Of the kind.
        share: Of all records, this hospital's.
        scanner_shift: How far its scanner may stray, in [0, 1].
        profile: Its computer, line and outages, as fields of :class:`~hbdp_fed.training.pace.SiteProfile`.
    """

    name: str
    share: float
    scanner_shift: float
    profile: Mapping[str, float]


def kinds_of_sites(config: RunConfig) -> tuple[Kind, ...]:
    """The kind of each site, in their order; nothing where all sites are alike.

    Raises:
        SettingError: if a figure cannot be used.
    """
    return _dealt_out(config.sites.kinds, config.clients)


def scanner_shifts(config: RunConfig) -> float | list[float]:
    """How far each site's scanner may stray: ``data.scanner_shift``, or where that is null what its kind says."""
    if config.data.scanner_shift is not None:
        return config.data.scanner_shift
    return [kind.scanner_shift for kind in kinds_of_sites(config)] or 0.0


def _dealt_out(kinds: Sequence[SiteKindConfig], sites: int) -> tuple[Kind, ...]:
    found: list[Kind] = []
    for place, kind in enumerate(kinds):
        _check(kind)
        left = sites - len(found)
        last = place == len(kinds) - 1
        count = left if last else min(left, max(1, math.floor(kind.hospitals * sites + 0.5)))
        profile = {name: float(getattr(kind, name)) for name in _PROFILE}
        found += [Kind(kind.kind, kind.records / max(count, 1), kind.scanner_shift, profile)] * count
    return tuple(found)


def _check(kind: SiteKindConfig) -> None:
    check_number(f"{KEY}: hospitals of {kind.kind}", kind.hospitals, low=0.0, high=1.0)
    check_number(f"{KEY}: scanner_shift of {kind.kind}", kind.scanner_shift, low=0.0, high=1.0)
    # Shares are compared with each other: beyond these ends nothing would be left of the smaller one.
    check_number(f"{KEY}: records of {kind.kind}", kind.records, low=1e-9, high=1e9)
