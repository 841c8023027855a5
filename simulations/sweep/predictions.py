"""What a finished run's model said of each test record, as it was written down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hbdp_fed.audit import comparison
from hbdp_fed.training.bootstrap import Judged
from hbdp_fed.training.metrics import IntArray
from simulations.run_folder import RunFolder


def read_predictions(folder: RunFolder, summary: Mapping[str, Any]) -> tuple[Judged, IntArray | None]:
    """The evidence with the run's operating point, and the groups of the test records.

    Raises:
        DataFileError: if ``predictions.npz`` is not there or cannot be read.
    """
    arrays = comparison.read_predictions(folder.predictions_file)
    found = comparison.judgement_of(arrays, summary["utility"]["point"])
    return (found.evidence, found.point), found.records.get("groups")
