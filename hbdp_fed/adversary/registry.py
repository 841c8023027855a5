"""The attacks, by name. Another one is another file and another line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from hbdp_fed.adversary.final_model import KktAttack, ModelInversionAttack
from hbdp_fed.adversary.gradient_inversion import GradientInversionAttack
from hbdp_fed.adversary.imprint import ImprintAttack
from hbdp_fed.adversary.linear_probe import LinearProbeAttack
from hbdp_fed.adversary.linear_reconstruction import LinearReconstruction
from hbdp_fed.adversary.loki import LokiAttack
from hbdp_fed.adversary.property_inference import PropertyInference
from hbdp_fed.adversary.threat_models import REALISTIC, RELAXED, WORST_CASE
from hbdp_fed.adversary.trap_weights import TrapWeightsAttack
from hbdp_fed.adversary.worst_case import CandidateMatching, MembershipInference
from hbdp_fed.errors import SettingError, unknown_choice
from hbdp_fed.types import Attack, ModelSpec, PublicSideInformation, Surface, ThreatModel, Weights

SURFACES: tuple[Surface, ...] = ("gradient", "update", "aggregate", "global_model")
"""What an adversary can see, from the most to the least."""

MEANS: tuple[Surface, ...] = SURFACES[2:]
"""Those that show the hospitals' mean, and no hospital alone."""

_RELEASED: tuple[Surface, ...] = SURFACES[3:]

Kind = Literal["probe", "round", "model", "identification", "membership", "property", "queries"]

REBUILDING: tuple[Kind, ...] = ("probe", "round", "model")
"""The kinds that rebuild images: each an :class:`hbdp_fed.types.Attack`."""

CANDIDATES: tuple[Kind, ...] = ("identification", "membership")
"""The kinds that play the candidate games, all of them the same ones."""


class ProbingAttack(Attack, Protocol):
    """An attack by a server that hands out a model of its own making first."""

    def check_public(self, images: Tensor) -> None:
        """Raise ``SettingError`` if the attack cannot work with these public images (P, C, *spatial)."""
        ...

    def craft(
        self, base: ModelSpec, weights: Weights, public: PublicSideInformation, generator: torch.Generator
    ) -> tuple[ModelSpec, Weights]:
        """The model to hand out instead of ``base`` with ``weights``."""
        ...


@runtime_checkable
class TailoredAttack(ProbingAttack, Protocol):
    """A probing attack on a mean that hands every hospital other weights of one architecture.

    What ``craft`` makes, for the mean, is the model that the server reads it by; nobody is handed that one.
    """

    def for_hospital(self, weights: Weights, place: int) -> Weights:
        """What the hospital of this place, from 0, is handed of the crafted model with these weights."""
        ...


@dataclass(frozen=True)
class AttackEntry:
    """One attack of the registry.

    Attributes:
        threat_model: What its adversary is granted.
        kind: ``probe``: a :class:`ProbingAttack` that rebuilds images from the answers to its own model. ``round``
            rebuilds them from what an ordinary training round released, ``model`` from the final model alone.
            ``identification`` and ``membership``: games about the training rounds themselves. ``property`` is a game
            about a hospital's population, and ``queries`` one about its answers to counting queries.
        build: Makes it from keywords of its own, all with defaults.
        takes: Which of these keywords a run gives it: ``bins``, ``shadows`` and their like are settings of the
            adversary's, ``device`` is where to compute, ``shares`` and ``batches`` are the hospitals' weights in the
            mean and expected batches.
        surfaces: Where its adversary may stand; elsewhere it is another attack. Of the kind ``model`` the released
            model alone, which everybody sees, wherever they stand.
        of_classes: Whether it needs two-dimensional images and a model that names one class of each.
        of_records: Whether it works only where the unit of privacy is a record, and not a patient with several.
        tailored: Whether it hands every hospital a model of its own (:class:`TailoredAttack`).
        slow: Whether it takes minutes, so that it is left out where nobody asks for it.
    """

    threat_model: ThreatModel
    kind: Kind
    build: Callable[..., Any]
    takes: tuple[str, ...] = ()
    surfaces: tuple[Surface, ...] = SURFACES
    of_classes: bool = False
    of_records: bool = False
    tailored: bool = False
    slow: bool = False


_PLANTED = ("bins", "device")

ATTACKS: Mapping[str, AttackEntry] = {
    "imprint": AttackEntry(REALISTIC, "probe", ImprintAttack, takes=_PLANTED, of_classes=True),
    "trap_weights": AttackEntry(REALISTIC, "probe", TrapWeightsAttack, takes=_PLANTED, of_classes=True),
    "loki": AttackEntry(
        REALISTIC,
        "probe",
        LokiAttack,
        takes=(*_PLANTED, "shares", "batches"),
        surfaces=MEANS,
        of_classes=True,
        tailored=True,
    ),
    "gradient_inversion": AttackEntry(
        REALISTIC, "round", GradientInversionAttack, takes=("device",), of_classes=True, slow=True
    ),
    "kkt": AttackEntry(
        REALISTIC, "model", KktAttack, takes=("device",), surfaces=_RELEASED, of_classes=True, slow=True
    ),
    "model_inversion": AttackEntry(
        REALISTIC, "model", ModelInversionAttack, takes=("device",), surfaces=_RELEASED, of_classes=True, slow=True
    ),
    "linear_probe": AttackEntry(RELAXED, "probe", LinearProbeAttack, of_records=True),
    "candidate_matching": AttackEntry(WORST_CASE, "identification", CandidateMatching),
    "membership": AttackEntry(WORST_CASE, "membership", MembershipInference),
    "property_inference": AttackEntry(REALISTIC, "property", PropertyInference, takes=("shadows",), of_records=True),
    "linear_reconstruction": AttackEntry(REALISTIC, "queries", LinearReconstruction),
}
"""The attacks by name, in the order in which their probes are sent."""


def build_attack(name: str, **settings: Any) -> Any:
    """The attack called ``name`` with these settings.

    Raises:
        SettingError: if there is no such attack, or it refuses a setting.
    """
    if name not in ATTACKS:
        raise unknown_choice("adversary.attack", name, ATTACKS)
    try:
        return ATTACKS[name].build(**settings)
    except TypeError as error:
        raise SettingError(f"adversary.{name}", str(error)) from error
