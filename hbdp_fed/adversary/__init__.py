"""What a server can do that wants the images. Nothing here can reach the truth."""

from hbdp_fed.adversary.recording import (
    load_observation,
    load_reconstruction,
    recorded_names,
    save_observation,
    save_reconstruction,
)
from hbdp_fed.adversary.registry import ATTACKS, ProbingAttack, build_attack
from hbdp_fed.adversary.threat_models import REALISTIC, RELAXED, THREAT_MODELS, WORST_CASE, threat_model

__all__ = [
    "ATTACKS",
    "REALISTIC",
    "RELAXED",
    "THREAT_MODELS",
    "WORST_CASE",
    "ProbingAttack",
    "build_attack",
    "load_observation",
    "load_reconstruction",
    "recorded_names",
    "save_observation",
    "save_reconstruction",
    "threat_model",
]
