"""The words of ``federation.screening``, and what a person reads of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

NONE, REPORT, REFUSE = "none", "report", "refuse"
SCREENING = (NONE, REPORT, REFUSE)
"""Whether hospitals examine the models that they receive; what ``federation.screening`` may say."""


def screening_lines(entry: Mapping[str, Any]) -> Iterator[str]:
    """A summary's entry in words."""
    verb = "was refused" if entry["mode"] == REFUSE else "would have been refused"
    for attack in entry["attacks"]:
        name, deeper = attack["name"].replace("_", " "), attack["with_layer_agreed"]
        if attack["flagged"]:
            yield f"{name} {verb}: {'; '.join(attack['reasons'])}"
        else:
            yield f"{name} would have passed"
        by = ", ".join(deeper["measures"]) or "nothing"
        yield f"{name}, had its architecture been agreed to, is caught by {by}"
    released = entry["released"]
    verdict = (
        f"would have been refused, a false alarm: {'; '.join(released['reasons'])}" if released["flagged"] else "passes"
    )
    yield f"the released model {verdict}"
