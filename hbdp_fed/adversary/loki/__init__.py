"""LOKI: an imprint layer for each hospital, that keeps them apart in a sum."""

from hbdp_fed.adversary.loki.attack import LokiAttack
from hbdp_fed.adversary.loki.blocks import first_block, of_one_hospital, repeated, split

__all__ = ["LokiAttack", "first_block", "of_one_hospital", "repeated", "split"]
