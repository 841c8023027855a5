"""The attacks, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from hbdp_fed.adversary.imprint import ImprintAttack
from hbdp_fed.errors import SettingError, unknown_choice
from hbdp_fed.types import Attack, ModelSpec, PublicSideInformation, Weights


class ProbingAttack(Attack, Protocol):
    """An attack by a server that hands out a model of its own making first."""

    def check_public(self, images: Tensor) -> None:
        """Raise ``SettingError`` if the attack cannot work with these public images (P, C, H, W)."""
        ...

    def craft(
        self, base: ModelSpec, weights: Weights, public: PublicSideInformation, generator: torch.Generator
    ) -> tuple[ModelSpec, Weights]:
        """The model to hand out instead of ``base`` with ``weights``."""
        ...


ATTACKS: Mapping[str, Callable[..., ProbingAttack]] = {
    "imprint": ImprintAttack,
}
"""Builders by name; each takes keywords of its own, all with defaults."""


def build_attack(name: str, **settings: Any) -> ProbingAttack:
    """The attack called ``name`` with these settings.

    Raises:
        SettingError: if there is no such attack, or it refuses a setting.
    """
    if name not in ATTACKS:
        raise unknown_choice("adversary.attack", name, ATTACKS)
    try:
        return ATTACKS[name](**settings)
    except TypeError as error:
        raise SettingError(f"adversary.{name}", str(error)) from error
