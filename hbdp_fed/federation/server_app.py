"""The server: training rounds, then whatever probes a malicious one adds. Everything it shows goes through hooks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from flwr.app import Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from hbdp_fed.federation.codec import RoundReport, TrainRequest, from_arrays, request_message, to_arrays
from hbdp_fed.federation.roster import Roster, call_roll
from hbdp_fed.federation.server_step import ServerStep
from hbdp_fed.federation.settings import AppSettings, resolved_settings
from hbdp_fed.federation.stoppable import StoppableGrid
from hbdp_fed.federation.strategy import PrivateFedAvg
from hbdp_fed.types import ModelSpec, UpdateTap, Weights

_ROLL_CALL_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class ServerHooks:
    """What happens around the rounds. All hooks run on the server, in order, one at a time.

    Attributes:
        on_ready: Called once when every hospital has answered the roll-call.
        on_updates: The tap of the training rounds.
        on_reports: Gets the hospitals' reports of every round, probes included.
        on_global: Gets the global weights (float64) after each training round, and at round 0 the initial ones.
        probes: Called after the last training round with the final global weights; yields the requests of a malicious
            server. A probe's answers are never aggregated.
        on_probe: The tap of the probes.
    """

    on_ready: Callable[[], None]
    on_updates: UpdateTap
    on_reports: Callable[[int, Sequence[RoundReport]], None]
    on_global: Callable[[int, Weights], None]
    probes: Callable[[Weights], Iterable[TrainRequest]]
    on_probe: UpdateTap


def make_server_app(
    settings_json: str | None,
    *,
    architecture: ModelSpec,
    initial: Weights,
    hooks: ServerHooks,
    stop: threading.Event | None = None,
) -> ServerApp:
    """The app that the server runs.

    Args:
        settings_json: The federation's settings in a simulation; None reads them from the run config.
        architecture: The model to train.
        initial: The weights to start from.
        hooks: What to do around the rounds.
        stop: Ends the app with :class:`~hbdp_fed.federation.stoppable.Stopped` when it is set.
    """
    app = ServerApp()
    stopping = stop if stop is not None else threading.Event()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        settings = resolved_settings(context, settings_json)
        grid = StoppableGrid(grid, stopping)
        roster = call_roll(grid, settings.hospitals, timeout_s=_ROLL_CALL_TIMEOUT_S)
        hooks.on_ready()
        final = _train(grid, roster, settings, architecture, initial, hooks)
        for probe in hooks.probes(final):
            _probe(grid, roster, settings, probe, hooks)

    return app


def _train(
    grid: Grid,
    roster: Roster,
    settings: AppSettings,
    architecture: ModelSpec,
    initial: Weights,
    hooks: ServerHooks,
) -> Weights:
    strategy = PrivateFedAvg(
        roster=roster,
        architecture=architecture,
        local_steps=settings.local_steps,
        weighting=settings.weighting,
        server_step=ServerStep(settings.server, rounds=settings.rounds),
        on_updates=hooks.on_updates,
        on_reports=hooks.on_reports,
    )
    latest: list[Weights] = []

    def evaluate(server_round: int, arrays: object) -> MetricRecord | None:
        latest[:] = [from_arrays(arrays)]  # type: ignore[arg-type]
        hooks.on_global(server_round, latest[0])
        return None

    strategy.start(
        grid=grid,
        initial_arrays=to_arrays({name: value.double() for name, value in initial.items()}),
        num_rounds=settings.rounds,
        timeout=settings.round_timeout_s,
        evaluate_fn=evaluate,
    )
    return latest[0]


def _probe(grid: Grid, roster: Roster, settings: AppSettings, probe: TrainRequest, hooks: ServerHooks) -> None:
    messages = [request_message(probe, node_id=node_id) for node_id in roster.node_ids]
    replies = grid.send_and_receive(messages, timeout=settings.round_timeout_s)
    updates, reports = roster.collect(probe.round, replies)
    hooks.on_reports(probe.round, reports)
    hooks.on_probe(probe.round, updates)
