"""How common something is among a hospital's patients (Ateniese et al. 2015, arXiv 1306.4447)."""

from hbdp_fed.adversary.property_inference.attack import FEWEST, SHARES, PropertyInference
from hbdp_fed.adversary.property_inference.shadows import ShadowTraining, draw_population

__all__ = ["FEWEST", "SHARES", "PropertyInference", "ShadowTraining", "draw_population"]
