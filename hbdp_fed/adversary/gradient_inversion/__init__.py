"""Gradient inversion by an honest-but-curious server."""

from hbdp_fed.adversary.gradient_inversion.attack import GradientInversionAttack

__all__ = ["GradientInversionAttack"]
