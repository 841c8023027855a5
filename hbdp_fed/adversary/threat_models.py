"""The three threat models of Ziller et al. (Nat. Mach. Intell. 6, 764-774, 2024), by name."""

from __future__ import annotations

from collections.abc import Mapping

from hbdp_fed.errors import unknown_choice
from hbdp_fed.types import ThreatModel

WORST_CASE = ThreatModel(
    name="worst_case", knows_candidates=True, perfect_algorithm=True, malicious_server=True, surface="gradient"
)
"""What differential privacy is defined against: the record is one of a candidate set that the adversary holds."""

RELAXED = ThreatModel(
    name="relaxed", knows_candidates=False, perfect_algorithm=True, malicious_server=True, surface="gradient"
)
"""The adversary does not hold the record, and only the noise is in the way of its reconstruction."""

REALISTIC = ThreatModel(
    name="realistic", knows_candidates=False, perfect_algorithm=False, malicious_server=True, surface="gradient"
)
"""A malicious server that hands out a model of its own making, with the attacks that people have published."""

THREAT_MODELS: Mapping[str, ThreatModel] = {model.name: model for model in (WORST_CASE, RELAXED, REALISTIC)}
"""The threat models by name, from the strongest adversary to the weakest."""


def threat_model(name: str) -> ThreatModel:
    """The threat model called ``name``.

    Raises:
        SettingError: if there is none.
    """
    if name not in THREAT_MODELS:
        raise unknown_choice("adversary.threat_model", name, THREAT_MODELS)
    return THREAT_MODELS[name]
