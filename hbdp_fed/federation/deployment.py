"""Lead a run on a real SuperLink from outside: start it, follow what the server writes, start it again if need be."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbdp_fed.errors import HospitalFailure
from hbdp_fed.federation.charter import Charter
from hbdp_fed.federation.follower import Follower, Told
from hbdp_fed.federation.server_folder import ServerFolder
from hbdp_fed.federation.superlink_client import Connection, SuperLinkError, project_folder
from hbdp_fed.types import Weights

SUPERLINK = "superlink"
"""The name of the engine that is a real federation."""

_LOOK_S = 0.5
_START_S, _GONE_S, _ASK_S = 180.0, 10.0, 15.0
"""How long a server app may take to begin, and be gone, before it is started again; how often its run is asked for."""

_STARTS = 5
"""How often the server is started without getting a round further, before that is the end."""


@dataclass(frozen=True)
class Deployment:
    """Where a federation's server is.

    Attributes:
        connection: How runs are started on it.
        federations: Where the server app writes (see :data:`~hbdp_fed.federation.deployed_server.SERVER_ROOT`), as
            this machine sees it.
        patience_s: How long a server that cannot be reached is waited for, in seconds.
    """

    connection: Connection
    federations: Path
    patience_s: float = 600.0


def lead(
    charter: Charter,
    deployment: Deployment,
    told: Told,
    *,
    after: int | None,
    like: Weights,
    say: Callable[[str], None],
) -> None:
    """Run a federation to its end. If the server stops in between, it is started again and goes on where it stood.

    Args:
        charter: The terms.
        deployment: Where the server is.
        told: Who hears of every round.
        after: The last round that is known already; None if none is.
        like: Weights in the model's order.
        say: Tells people what goes on.

    Raises:
        HospitalFailure: if the server gave up, naming the hospital where one was the reason, or cannot be reached.
    """
    folder = ServerFolder.of(deployment.federations, charter)
    follower = Follower(folder, told, after=after, like=like)
    # What an earlier attempt ended by is history.
    follower.look()
    follower.ending = None
    server = _Server(charter, deployment, say)
    try:
        while not follower.done:
            follower.look()
            if _is_led(folder):
                server.seen()
            elif follower.ending is not None:
                raise _failure(follower)
            elif not follower.done:
                server.start_if_gone(after=follower.after, stopped=follower.stopped)
            time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        server.stop()
        raise


class _Server:
    """The server app, as it is seen from outside.

    Args:
        charter: The terms that it is started with.
        deployment: Where.
        say: Tells people what goes on.
    """

    def __init__(self, charter: Charter, deployment: Deployment, say: Callable[[str], None]) -> None:
        self._charter, self._deployment, self._say = charter, deployment, say
        self._run_id: str | None = None
        self._last_seen = self._last_asked = 0.0
        self._allowed_s = 0.0
        self._silent_since: float | None = None
        self._after: int | None = None
        self._starts = 0

    def seen(self) -> None:
        """It is at work."""
        self._last_seen, self._allowed_s, self._silent_since = time.monotonic(), _GONE_S, None

    def start_if_gone(self, *, after: int | None, stopped: str) -> None:
        """Start it, unless it was started a moment ago.

        Args:
            after: The last round that is done.
            stopped: What stopped it last.

        Raises:
            HospitalFailure: if the SuperLink has not answered for too long, or the server stops again and again without
                a round between.
        """
        now = time.monotonic()
        if after != self._after:
            self._after, self._starts = after, 0
        if self._starts > _STARTS:
            raise HospitalFailure("the server", f"it was started {self._starts} times without a round: {stopped}")
        try:
            if now - self._last_seen > self._allowed_s or self._is_over(now):
                self._start()
        except SuperLinkError as problem:
            if self._silent_since is None:
                self._silent_since = now
                self._say(f"{problem}; waiting for it")
            if now - self._silent_since > self._deployment.patience_s:
                raise HospitalFailure("the server", str(problem)) from problem

    def stop(self) -> None:
        """Stop it; what it has done stays."""
        if self._run_id is not None:
            with suppress(SuperLinkError):  # it has stopped by itself, or will when its SuperLink returns
                self._deployment.connection.stop(self._run_id)

    def _start(self) -> None:
        if self._run_id is not None:
            self._say("the server was interrupted and is started again where it stood")
            self.stop()
        self._run_id = self._deployment.connection.submit(self._charter, app=project_folder())
        self._starts += 1
        self._last_seen = self._last_asked = time.monotonic()
        self._allowed_s, self._silent_since = _START_S, None

    def _is_over(self, now: float) -> bool:
        """Whether the run is over before its server app was ever seen."""
        if now - self._last_asked < _ASK_S or self._run_id is None:
            return False
        self._last_asked = now
        return self._deployment.connection.status(self._run_id).startswith("finished")


def _is_led(folder: ServerFolder) -> bool:
    """Whether a server app has the folder now: it holds a lock, which ends with its process."""
    if not folder.lock_file.exists():
        return False
    with folder.lock_file.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(file, fcntl.LOCK_UN)
        return False


def _failure(follower: Follower) -> HospitalFailure:
    """Why the server gave up, after all that was heard of its last round is told."""
    ending: Mapping[str, Any] = follower.ending or {}
    follower.give_up()
    hospital = ending.get("hospital")
    return HospitalFailure(hospital, ending["details"]) if hospital else HospitalFailure("the server", ending["reason"])
