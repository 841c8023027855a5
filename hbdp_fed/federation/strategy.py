"""The server's averaging rule, as a Flower strategy."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from hbdp_fed.errors import TrainingDiverged
from hbdp_fed.federation.aggregation import combine
from hbdp_fed.federation.clock import Attendance
from hbdp_fed.federation.codec import TrainRequest
from hbdp_fed.federation.control import ServerControl
from hbdp_fed.federation.rounds import Listener, RoundTable, participants
from hbdp_fed.federation.secure_rounds import OpenSum, SecureRounds
from hbdp_fed.federation.server_step import ServerStep
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.federation.wire import from_arrays, to_arrays
from hbdp_fed.training import gradient_weights, round_progress
from hbdp_fed.types import ModelSpec, ModelUpdate, Weights

logger = logging.getLogger(__name__)


class PrivateFedAvg(Strategy):
    """Federated averaging of updates (McMahan et al. 2017), of all hospitals or some of them in each round.

    The global weights are kept in float64 and travel to the hospitals in float32; the updates travel back in float64.

    Args:
        table: Asks the hospitals and examines their answers.
        settings: The federation's.
        architecture: The model being trained.
        server_step: What moves the global weights by the mean of the updates.
        rounds_before: How many rounds are done already: Flower counts from 1.
        listener: Who is told of the answers.
        control: SCAFFOLD's c; None where local steps are not corrected.
        secure: Asks for sums of masked updates in place of the table; None where updates travel as they are.
    """

    def __init__(
        self,
        *,
        table: RoundTable,
        settings: AppSettings,
        architecture: ModelSpec,
        server_step: ServerStep,
        rounds_before: int,
        listener: Listener,
        control: ServerControl | None = None,
        secure: SecureRounds | None = None,
    ) -> None:
        self._table = table
        self._settings = settings
        self._architecture = architecture
        self._server_step = server_step
        self._rounds_before = rounds_before
        self._listener = listener
        self._control = control
        self._secure = secure
        self._open: tuple[Grid, OpenSum] | None = None
        self._attending: Attendance | None = None
        self._global: Weights = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One request a hospital that takes part, in the roster's order."""
        self._global = from_arrays(arrays)
        request = self._request(server_round)
        # Once a round: hospitals of a deployment come and go.
        self._attending = attending = self._attendance(request)
        if self._secure is None:
            return self._table.questions(request, attending)
        self._listener.on_attendance(attending)
        opened = self._secure.open(grid, request, attending.present, self._listener)
        self._open = grid, opened
        return self._secure.questions(opened)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Move the global weights by what the aggregation rule makes of the updates."""
        request = self._request(server_round)
        if self._secure is not None and self._open is not None:
            combined = self._secure.close(*self._open, replies, self._listener)
        else:
            combined = self._combined(request, replies)
        moved = self._server_step.take(self._global, combined, round=request.round)
        # Hospitals receive them in float32, and would refuse what is infinite there.
        broken = [name for name, value in moved.items() if not bool(torch.isfinite(value.float()).all())]
        if broken:
            raise TrainingDiverged(
                f"after round {request.round} the global weights are not finite in {broken[0]}: training has diverged; "
                "take a smaller training.learning_rate or federation.server_learning_rate"
            )
        return to_arrays(moved), None

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
        logger.info(
            "PrivateFedAvg over %d hospitals, %d local steps", len(self._settings.sites), self._settings.local_steps
        )

    def _request(self, server_round: int) -> TrainRequest:
        return TrainRequest(
            round=self._rounds_before + server_round,
            steps=self._settings.local_steps,
            architecture=self._architecture,
            weights=self._global,
            control=None if self._control is None else self._control.sent,
        )

    def _combined(self, request: TrainRequest, replies: Iterable[Message]) -> Weights:
        """What the rule makes of updates that travel as they are."""
        attending = self._attending
        assert attending is not None
        updates: Iterable[ModelUpdate] = self._table.hear(request, attending, replies, self._listener)
        if self._control is not None:
            updates = self._control.noting(updates)
        # Shares of those that were planned with: the mean leaves out whoever is not there, as whoever failed.
        combined = combine(updates, self._settings.aggregation, self._settings.shares_of(attending.planned))
        if self._control is not None:
            weight = self._weight(request.round)
            self._control.take(combined, asked=attending.present, round=request.round, weight=weight)
        return combined

    def _attendance(self, request: TrainRequest) -> Attendance:
        settings = self._settings
        planned = participants(settings.seed, request.round, settings.hospitals, settings.participation)
        return self._table.attendance(request, planned, deadline_s=settings.deadline_s)

    def _weight(self, number: int) -> float:
        """By how much a hospital's gradients of this round move its weights in all."""
        rounds, steps = self._settings.rounds, self._settings.local_steps
        progress = round_progress(number, rounds=rounds, local_steps=steps)
        return sum(gradient_weights(self._settings.local, progress, steps))
