"""What a server can do that wants the images. Nothing here can reach the truth."""

from hbdp_fed.adversary.recording import (
    load_observation,
    load_reconstruction,
    recorded_names,
    save_observation,
    save_reconstruction,
)
from hbdp_fed.adversary.registry import (
    ATTACKS,
    CANDIDATES,
    MEANS,
    REBUILDING,
    SURFACES,
    AttackEntry,
    ProbingAttack,
    TailoredAttack,
    build_attack,
)
from hbdp_fed.adversary.surfaces import public_of_mean, record_scales, seen_on
from hbdp_fed.adversary.threat_models import REALISTIC, RELAXED, THREAT_MODELS, WORST_CASE, threat_model

__all__ = [
    "ATTACKS",
    "CANDIDATES",
    "MEANS",
    "REALISTIC",
    "REBUILDING",
    "RELAXED",
    "SURFACES",
    "THREAT_MODELS",
    "WORST_CASE",
    "AttackEntry",
    "ProbingAttack",
    "TailoredAttack",
    "build_attack",
    "load_observation",
    "load_reconstruction",
    "public_of_mean",
    "record_scales",
    "recorded_names",
    "save_observation",
    "save_reconstruction",
    "seen_on",
    "threat_model",
]
