"""What the server learns in a round under secure aggregation, and all that it learns of the updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hbdp_fed.federation.secure_sum import FixedPoint
from hbdp_fed.types import ModelUpdate


@dataclass(frozen=True)
class RevealedSum:
    """The sum of a round's updates, once its masks are off.

    Attributes:
        update: The weighted mean of the hospitals that are in it, float64, under
            :data:`hbdp_fed.types.ALL_HOSPITALS`.
        weights: By hospital in it, in their order, what its update was multiplied by before it was masked.
        asked: How many were asked.
        threshold: How many had to give their shares.
        grid: What the summands were rounded to.
        largest_error: What rounding can have changed a coordinate of the mean by, at most.
    """

    update: ModelUpdate
    weights: Mapping[str, float]
    asked: int
    threshold: int
    grid: FixedPoint
    largest_error: float

    @property
    def hospitals(self) -> tuple[str, ...]:
        """Those that are in the sum."""
        return tuple(self.weights)
