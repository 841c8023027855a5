"""What an attack is built with in a run: the keywords that its entry names, and the run's own options for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hbdp_fed.adversary import ATTACKS
from simulations.attack_options import options_of
from simulations.prepare import Prepared


def attack_settings(prepared: Prepared, attack: str) -> Mapping[str, Any]:
    """The keywords for :func:`hbdp_fed.adversary.build_attack`.

    Args:
        prepared: The run.
        attack: Which attack.
    """
    given = {
        **vars(prepared.config.adversary),
        "device": str(prepared.device),
        "shares": prepared.shares,
        "batches": tuple(plan.expected_batch for plan in prepared.plans),
    }
    own = options_of(prepared.config.adversary.options, attack)
    return {**{key: given[key] for key in ATTACKS[attack].takes}, **own}
