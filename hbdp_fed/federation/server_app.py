"""The server: training rounds, then whatever probes a malicious one adds. Everything it shows goes through hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from flwr.app import Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from hbdp_fed.errors import QuorumLost
from hbdp_fed.federation.codec import TrainRequest
from hbdp_fed.federation.control import ServerControl
from hbdp_fed.federation.roster import call_roll
from hbdp_fed.federation.rounds import Listener, RoundTable
from hbdp_fed.federation.secure_rounds import SecureRounds
from hbdp_fed.federation.server_step import ServerStep
from hbdp_fed.federation.settings import AppSettings, resolved_settings
from hbdp_fed.federation.strategy import PrivateFedAvg
from hbdp_fed.federation.wire import from_arrays, to_arrays
from hbdp_fed.training import SCAFFOLD
from hbdp_fed.types import ModelSpec, Weights

_ROLL_CALL_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Standing:
    """Where a federation stands between two rounds.

    Attributes:
        round: The last training round that is done; 0 before the first.
        weights: The global weights after it, float64.
        server: The state of the server's optimiser, by name; empty where it has none.
        control: The state of SCAFFOLD's server (see :mod:`hbdp_fed.federation.control`); empty where steps are plain.
    """

    round: int
    weights: Weights
    server: Weights = field(default_factory=dict)
    control: Weights = field(default_factory=dict)


@dataclass(frozen=True)
class ServerHooks:
    """What happens around the rounds. All hooks run on the server, in order, one at a time.

    Attributes:
        on_ready: Called once when every hospital has answered the roll-call.
        training: Who is told of the answers in training rounds.
        on_round: Gets where the federation stands after each training round, and before the first.
        probes: Called after the last training round with the final global weights; yields the requests of a malicious
            server. A probe's answers are never aggregated.
        probing: Who is told of the answers to probes.
        on_probe: Gets the number of each probe, once all have answered.
    """

    on_ready: Callable[[], None]
    training: Listener
    on_round: Callable[[Standing], None]
    probes: Callable[[Weights], Iterable[TrainRequest]]
    probing: Listener
    on_probe: Callable[[int], None]


def make_server_app(
    settings_json: str | None, *, architecture: ModelSpec, start: Standing, hooks: ServerHooks
) -> ServerApp:
    """The app that the server runs.

    Args:
        settings_json: The federation's settings in a simulation; None reads them from the run config.
        architecture: The model to train.
        start: Where to begin: the initial weights before round 1, or where an earlier run stood.
        hooks: What to do around the rounds.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        settings = resolved_settings(context, settings_json)
        roster = call_roll(grid, settings.hospitals, timeout_s=_ROLL_CALL_TIMEOUT_S)
        conduct(grid, RoundTable(roster, settings), settings, architecture=architecture, start=start, hooks=hooks)

    return app


def conduct(
    grid: Grid,
    table: RoundTable,
    settings: AppSettings,
    *,
    architecture: ModelSpec,
    start: Standing,
    hooks: ServerHooks,
) -> None:
    """Lead a federation whose hospitals have answered the roll-call through its rounds and probes.

    Args:
        grid: Where the hospitals are.
        table: Asks them.
        settings: Of the federation.
        architecture: The model to train.
        start: Where to begin.
        hooks: What to do around the rounds.
    """
    secure = SecureRounds(table.roster, settings) if settings.secure_aggregation else None
    hooks.on_ready()
    final = _train(grid, table, secure, settings, architecture, start, hooks)
    if settings.screening is not None:
        # Training is over, and a malicious server takes what it gets: no refusal of a probe ends the run.
        settings = replace(settings, on_failure="tolerate")
        table, secure = table.tolerant(), SecureRounds(table.roster, settings) if secure is not None else None
    for request in hooks.probes(final):
        try:
            _probe(grid, table, secure, settings, request, hooks.probing)
        except QuorumLost:
            if settings.screening is None:
                raise
        hooks.on_probe(request.round)


def _probe(
    grid: Grid,
    table: RoundTable,
    secure: SecureRounds | None,
    settings: AppSettings,
    request: TrainRequest,
    listener: Listener,
) -> None:
    """Ask everybody who is there, and tell the listener; nothing is made of the answers."""
    # Whoever is offline has nothing to be attacked; a malicious server waits for all the others.
    attending, timeout = table.attendance(request, settings.hospitals), settings.round_timeout_s
    if secure is not None:
        listener.on_attendance(attending)
        opened = secure.open(grid, request, attending.present, listener)
        secure.close(grid, opened, grid.send_and_receive(secure.questions(opened), timeout=timeout), listener)
        return
    replies = grid.send_and_receive(table.questions(request, attending), timeout=timeout)
    for _ in table.hear(request, attending, replies, listener):
        pass


def _train(
    grid: Grid,
    table: RoundTable,
    secure: SecureRounds | None,
    settings: AppSettings,
    architecture: ModelSpec,
    start: Standing,
    hooks: ServerHooks,
) -> Weights:
    server_step = ServerStep(settings.server, rounds=settings.rounds, state=start.server)
    control = None
    if settings.local.correction == SCAFFOLD:
        shares = settings.shares_of(settings.hospitals)
        control = ServerControl(shares, like=start.weights, state=start.control)
    strategy = PrivateFedAvg(
        table=table,
        settings=settings,
        architecture=architecture,
        server_step=server_step,
        rounds_before=start.round,
        listener=hooks.training,
        control=control,
        secure=secure,
    )
    latest = start.weights

    def after(server_round: int, arrays: object) -> MetricRecord | None:
        nonlocal latest
        latest = from_arrays(arrays)  # type: ignore[arg-type]
        if server_round > 0 or start.round == 0:
            kept = {} if control is None else control.state
            hooks.on_round(Standing(start.round + server_round, latest, server_step.state, kept))
        return None

    strategy.start(
        grid=grid,
        initial_arrays=to_arrays({name: value.double() for name, value in start.weights.items()}),
        num_rounds=settings.rounds - start.round,
        timeout=settings.round_timeout_s,
        evaluate_fn=after,
    )
    return latest
