"""The server's averaging rule, as a Flower strategy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from hbdp_fed.federation.codec import RoundReport, TrainRequest, from_arrays, request_message, to_arrays
from hbdp_fed.federation.roster import Roster
from hbdp_fed.federation.server_step import ServerStep
from hbdp_fed.types import ModelSpec, ModelUpdate, UpdateTap, Weights

logger = logging.getLogger(__name__)

Weighting = Callable[[int], float]

WEIGHTINGS: Mapping[str, Weighting] = {
    "records": float,
    "equal": lambda _: 1.0,
}
"""From a hospital's number of records to its weight in the average, before normalisation."""


def mean_shares(records: Sequence[int], weighting: str) -> tuple[float, ...]:
    """Each hospital's weight in the average, adding up to 1.

    Args:
        records: How many each of them holds.
        weighting: A key of :data:`WEIGHTINGS`.
    """
    weights = [WEIGHTINGS[weighting](count) for count in records]
    return tuple(weight / sum(weights) for weight in weights)


def average(updates: Sequence[ModelUpdate], weighting: str) -> Weights:
    """The weighted mean of the deltas, float64, summed in the order given.

    Floating-point addition is not associative: the caller fixes the order, or reruns differ.
    """
    shares = mean_shares([update.num_records for update in updates], weighting)
    return {
        name: sum(
            (update.delta[name].double() * share for update, share in zip(updates[1:], shares[1:], strict=True)),
            start=updates[0].delta[name].double() * shares[0],
        )
        for name in updates[0].delta
    }


class PrivateFedAvg(Strategy):
    """Federated averaging of updates (McMahan et al. 2017) that every hospital has to answer.

    The global weights are kept in float64 and travel to the hospitals in float32; the updates travel back in float64.

    Args:
        roster: Who is who.
        architecture: The model being trained.
        local_steps: DP-SGD steps a hospital takes in a round.
        weighting: A key of :data:`WEIGHTINGS`.
        server_step: What moves the global weights by the mean of the updates.
        on_updates: The tap: sees exactly the updates that travelled, before they are averaged.
        on_reports: Gets the hospitals' reports of a round.
    """

    def __init__(
        self,
        *,
        roster: Roster,
        architecture: ModelSpec,
        local_steps: int,
        weighting: str,
        server_step: ServerStep,
        on_updates: UpdateTap,
        on_reports: Callable[[int, Sequence[RoundReport]], None],
    ) -> None:
        self._roster = roster
        self._architecture = architecture
        self._local_steps = local_steps
        self._weighting = weighting
        self._server_step = server_step
        self._on_updates = on_updates
        self._on_reports = on_reports
        self._global: Weights = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One request a hospital, in the roster's order."""
        self._global = from_arrays(arrays)
        request = TrainRequest(
            round=server_round, steps=self._local_steps, architecture=self._architecture, weights=self._global
        )
        return [request_message(request, node_id=node_id) for node_id in self._roster.node_ids]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hand the updates to the tap, then move the global weights by their average."""
        updates, reports = self._roster.collect(server_round, replies)
        self._on_reports(server_round, reports)
        self._on_updates(server_round, updates)
        mean = average(updates, self._weighting)
        return to_arrays(self._server_step.take(self._global, mean, round=server_round)), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: what hospitals would measure on private records is outside the guarantee. The server evaluates."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing, see :meth:`configure_evaluate`."""
        return None

    def summary(self) -> None:
        """Log the strategy's settings."""
        logger.info("PrivateFedAvg over %d hospitals, %d local steps", len(self._roster.node_ids), self._local_steps)
