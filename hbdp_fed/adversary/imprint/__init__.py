"""The imprint attack of a malicious server."""

from hbdp_fed.adversary.imprint.attack import ImprintAttack
from hbdp_fed.adversary.imprint.crafting import ImprintDesign, craft_model

__all__ = ["ImprintAttack", "ImprintDesign", "craft_model"]
