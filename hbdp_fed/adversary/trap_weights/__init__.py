"""The trap weights of a malicious server."""

from hbdp_fed.adversary.trap_weights.attack import TrapWeightsAttack
from hbdp_fed.adversary.trap_weights.crafting import TrapDesign, craft_model

__all__ = ["TrapDesign", "TrapWeightsAttack", "craft_model"]
