"""The app of a real federation's server: the same rounds as in a simulation, written down so that a restart loses none.

It holds nobody's records and judges nothing. Whoever submitted the run reads the server's folder, judges the models on
data of its own and writes the report (``python -m simulations.run engine=superlink``).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from hbdp_fed.errors import QuorumLost
from hbdp_fed.federation.charter import Charter, CharterError, charter_of
from hbdp_fed.federation.deployed_grid import DeployedGrid
from hbdp_fed.federation.journal import Journal
from hbdp_fed.federation.roster import call_roll
from hbdp_fed.federation.rounds import RoundTable
from hbdp_fed.federation.server_app import ServerHooks, Standing, conduct
from hbdp_fed.federation.server_folder import ServerFolder
from hbdp_fed.models import build_model, initial_weights, read_weights, weights_sha256
from hbdp_fed.seeding import generator
from hbdp_fed.types import Weights

logger = logging.getLogger(__name__)

SERVER_ROOT = "HBDP_FEDERATIONS"
"""The environment variable of the SuperLink that says where the server keeps its federations."""

_DEFAULT_ROOT = "~/.hbdp_fed/federations"
_ROLL_CALL_S, _ROLL_CALL_AGAIN_S = 600.0, 120.0
_LOOK_S, _PATIENCE_S = 1.0, 3600.0
"""How often it is looked who is online, and how long it is waited for hospitals that a round needs."""


def server_root() -> Path:
    """Where the server keeps its federations, by the server's own environment."""
    return Path(os.environ.get(SERVER_ROOT, _DEFAULT_ROOT)).expanduser()


def make_deployed_server_app() -> ServerApp:
    """The app. Given the same charter again, it goes on where the federation stands."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        charter = charter_of(context)
        folder = ServerFolder.of(server_root(), charter)
        with Journal(folder, charter) as journal:
            _lead(DeployedGrid(grid), charter, folder, journal)
            journal.done()

    return app


def _lead(grid: DeployedGrid, charter: Charter, folder: ServerFolder, journal: Journal) -> None:
    settings, initial = charter.settings, first_weights(charter)
    last, known = folder.last_round(), folder.nodes()
    start = Standing(0, initial) if last is None else folder.standing(last, like=initial)
    if start.round == settings.rounds:
        return
    listener = journal.listener
    roster = call_roll(
        grid,
        settings.hospitals,
        timeout_s=_ROLL_CALL_AGAIN_S if known else _ROLL_CALL_S,
        registered=grid.names,
        known=known if settings.on_failure == "tolerate" else None,
        on_failure=listener.on_failure,
    )
    hooks = ServerHooks(
        on_ready=lambda: journal.ready(dict(zip(roster.hospitals, roster.node_ids, strict=True))),
        training=listener,
        on_round=lambda standing: _done(standing, journal, settings.rounds),
        probes=lambda _: (),
        probing=listener,
        on_probe=lambda _: None,
    )
    # Where one failure ends the run, nobody is left out; otherwise a round begins once it can count.
    needed = len(settings.sites) if settings.on_failure == "abort" else settings.min_hospitals
    table = RoundTable(roster, settings, online=lambda nodes: _assembled(grid, nodes, needed))
    given_up = time.monotonic() + _PATIENCE_S
    while True:
        before = start.round
        try:
            conduct(grid, table, settings, architecture=charter.architecture, start=start, hooks=hooks)
            return
        except QuorumLost:
            start = folder.standing(folder.last_round() or 0, like=initial)
            given_up = time.monotonic() + _PATIENCE_S if start.round > before else given_up
            if not journal.only_absences or time.monotonic() > given_up:
                raise
            # They left in the middle of it, and may return: whoever has answered sends the same again.
            journal.again(start.round)


def _assembled(grid: DeployedGrid, nodes: Sequence[int], needed: int) -> set[int]:
    """Those of these nodes that are online, once there are enough of them, or the patience is at its end."""
    given_up = time.monotonic() + _PATIENCE_S
    while True:
        here = set(grid.get_node_ids()) & set(nodes)
        if len(here) >= min(needed, len(nodes)) or time.monotonic() > given_up:
            return here
        time.sleep(_LOOK_S)


def _done(standing: Standing, journal: Journal, rounds: int) -> None:
    journal.round(standing)
    logger.info("round %d of %d", standing.round, rounds)


def first_weights(charter: Charter) -> Weights:
    """The weights before round 1: drawn from the seed, or of a file ``initial/<sha256>.safetensors`` under the root.

    Raises:
        CharterError: if neither is what was agreed to.
    """
    fresh = initial_weights(build_model(charter.architecture), generator(charter.settings.seed, "initial-weights"))
    if weights_sha256(fresh) == charter.initial_sha256:
        return fresh
    file = server_root() / "initial" / f"{charter.initial_sha256}.safetensors"
    if not file.is_file():
        raise CharterError(
            f"the charter begins with other weights than its seed gives; put them on the server as initial/{file.name}"
        )
    found = read_weights(file)
    ordered = {name: found[name] for name in fresh if name in found}
    if weights_sha256(ordered) != charter.initial_sha256:
        raise CharterError(f"initial/{file.name} does not hold the weights that it is named after")
    return ordered


app = make_deployed_server_app()
