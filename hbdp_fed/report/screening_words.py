"""What a person reads of hospitals that examine the models they receive, from a summary's ``screening`` entry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def screening_lines(entry: Mapping[str, Any]) -> Iterator[str]:
    """A line a finding: of each attack that handed out a model, and of the model that was released."""
    verb = "was refused" if entry["mode"] == "refuse" else "would have been refused"
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
