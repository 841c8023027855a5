"""Attacks on nothing but the final global model."""

from hbdp_fed.adversary.final_model.inversion import ModelInversionAttack
from hbdp_fed.adversary.final_model.kkt import KktAttack

__all__ = ["KktAttack", "ModelInversionAttack"]
