"""The layers whose per-record gradients are computed by hand: a rule a type, and two ways to clip what has weights."""

from hbdp_fed.dpsgd.layers.contribution import Contribution, Ghost, PerRecord
from hbdp_fed.dpsgd.layers.registry import RULES, rule_of
from hbdp_fed.dpsgd.layers.rule import Call, LayerRule

__all__ = ["RULES", "Call", "Contribution", "Ghost", "LayerRule", "PerRecord", "rule_of"]
