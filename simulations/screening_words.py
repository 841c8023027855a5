"""The words of ``federation.screening``: whether hospitals examine the models that they receive."""

from __future__ import annotations

NONE, REPORT, REFUSE = "none", "report", "refuse"
SCREENING = (NONE, REPORT, REFUSE)
