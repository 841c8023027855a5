"""What a consortium wants of a budget, as numbers and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hbdp_fed.errors import SettingError, unknown_choice

THREAT_MODELS = ("realistic", "relaxed")
"""Those with reconstruction attacks. The worst case's are about recognising a record, and have a bound of their own."""


@dataclass(frozen=True)
class Policy:
    """The smallest budget that meets all of it is recommended.

    Attributes:
        margin: How much utility may be lost against the control, in the metric's own unit; positive.
        metric: In which utility is judged; None takes the one that chose the sweep's released rounds.
        risk: Below which the upper limit of an attack's success rate has to lie, in (0, 1).
        least_records: How many records an attack has to have been tried on for its limit to count, at least 1.
        threat_model: One of :data:`THREAT_MODELS`: whose attacks count.
        max_worst_case_bound: Where set, what the worst-case bound of no hospital may exceed, in (0, 1).

    Raises:
        SettingError: naming the setting and what it accepts.
    """

    margin: float = 0.03
    metric: str | None = None
    risk: float = 0.01
    least_records: int = 400
    threat_model: str = "realistic"
    max_worst_case_bound: float | None = None

    def __post_init__(self) -> None:
        if not (self.margin > 0 and math.isfinite(self.margin)):
            raise SettingError("policy.margin", f"must be positive and finite, got {self.margin:g}")
        if not 0 < self.risk < 1:
            raise SettingError("policy.risk", f"must lie strictly between 0 and 1, got {self.risk:g}")
        if self.least_records < 1:
            raise SettingError("policy.least_records", f"must be at least 1, got {self.least_records}")
        if self.threat_model not in THREAT_MODELS:
            raise unknown_choice("policy.threat_model", self.threat_model, THREAT_MODELS)
        bound = self.max_worst_case_bound
        if bound is not None and not 0 < bound < 1:
            raise SettingError("policy.max_worst_case_bound", f"must lie strictly between 0 and 1, got {bound:g}")

    def in_words(self, metric: str) -> str:
        """One sentence, for people who have to agree to it.

        Args:
            metric: How the metric is called.
        """
        bound = (
            ""
            if self.max_worst_case_bound is None
            else f", and at which the worst-case bound of no hospital exceeds {self.max_worst_case_bound:.2%}"
        )
        return (
            f"The smallest budget that is allowed at every hospital, at which {metric} is non-inferior to the control "
            f"(the upper end of the 95% interval of the loss is at most {self.margin:g}), and at which the upper end "
            f"of the 95% interval of every {self.threat_model} reconstruction attack's success rate lies below "
            f"{self.risk:.2%}, over at least {self.least_records} attacked records{bound}."
        )
