"""The server's side: the SuperLink behind its gate, with its certificate, its database and its federations' folder."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hbdp_fed.federation.deployed_server import SERVER_ROOT
from hbdp_fed.federation.superlink_client import Connection
from scripts.deploy.keys import make_authority, make_server_certificate
from scripts.deploy.processes import Process, flower_environment

_START_S = 60.0


@dataclass(frozen=True)
class Server:
    """A SuperLink on this machine.

    Attributes:
        folder: Its own: ``authority/``, ``server.key``, ``server.pem``, ``superlink.db``, ``superlink.log``,
            ``federations/``.
        host: The address that it listens on.
        port: The port.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 9092

    @property
    def authority(self) -> Path:
        """The federation's own certificate authority. Its key can lie on another machine once certificates are made."""
        return self.folder / "authority"

    @property
    def federations(self) -> Path:
        """Where the server app keeps every federation's folder."""
        return self.folder / "federations"

    @property
    def process(self) -> Process:
        """The SuperLink's."""
        return Process(self.folder, "superlink")

    @property
    def connection(self) -> Connection:
        """How runs are submitted."""
        return Connection(f"127.0.0.1:{self.port}", self.authority / "ca.pem")

    def make_certificates(self, hosts: Sequence[str]) -> None:
        """An authority if there is none, and a new certificate for these names."""
        make_authority(self.authority)
        make_server_certificate(self.folder, self.authority, [*dict.fromkeys([*hosts, "127.0.0.1", "localhost"])])

    def start(self) -> None:
        """Start the SuperLink and wait until it answers.

        Raises:
            RuntimeError: if it does not within a minute.
        """
        self.federations.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, "-m", "hbdp_fed.federation.superlink",
            "--ssl-certfile", str(self.folder / "server.pem"),
            "--ssl-keyfile", str(self.folder / "server.key"),
            "--ssl-ca-certfile", str(self.authority / "ca.pem"),
            "--enable-supernode-auth",
            "--database", str(self.folder / "superlink.db"),
            "--disable-runtime-dependency-installation",
            "--host", self.host,
            "--port", str(self.port),
        ]  # fmt: skip
        environment = {**flower_environment(self.folder / "flower"), SERVER_ROOT: str(self.federations.resolve())}
        self.process.start(command, environment)
        deadline = time.monotonic() + _START_S
        while not _listens(self.port):
            if self.process.number is None or time.monotonic() > deadline:
                raise RuntimeError(f"the SuperLink did not start; its log: {self.process.log_file}")
            time.sleep(0.2)

    def stop(self, *, kill: bool = False) -> None:
        """End it."""
        self.process.stop(kill=kill)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
