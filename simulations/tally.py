"""What one round's answers come to: the figures that are followed from round to round."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hbdp_fed.federation.codec import RoundReport


class Tally:
    """Adds up the answers of one round after the other."""

    def __init__(self) -> None:
        self._loss, self._seen, self._answers, self._failures = 0.0, 0, 0, 0

    def hear(self, report: RoundReport) -> None:
        """An answer that is used."""
        self._answers += 1
        # A hospital whose batches were all empty has no loss, and one may keep it to itself.
        if math.isfinite(report.loss) and report.records_seen is not None:
            self._loss += report.loss * report.records_seen
            self._seen += report.records_seen

    def fail(self) -> None:
        """An answer that is not."""
        self._failures += 1

    def close(self) -> Mapping[str, float]:
        """The round's figures, and begin the next one.

        Returns:
            ``training/loss``: the mean over all records of the round's batches, left out where no batch had any or no
            loss is finite; ``federation/answers`` and ``federation/failures``: how many answers were used and not.
        """
        figures: dict[str, float] = {
            "federation/answers": self._answers,
            "federation/failures": self._failures,
        }
        if self._seen:
            figures["training/loss"] = self._loss / self._seen
        self._loss, self._seen, self._answers, self._failures = 0.0, 0, 0, 0
        return figures
