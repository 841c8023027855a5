"""A hospital's side: its key, its folder, and its SuperNode, which runs the code that the hospital has installed."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from hbdp_fed.federation.hospital import HOSPITAL, SITE
from hbdp_fed.federation.site_folder import SiteFolder
from scripts.deploy.keys import make_hospital_key
from scripts.deploy.processes import Process, flower_environment


@dataclass(frozen=True)
class Hospital:
    """A SuperNode on this machine.

    Attributes:
        folder: Its own: ``supernode.key``, ``supernode.pub``, ``supernode.log``, ``site/``.
        name: The hospital's, as the charter has it.
    """

    folder: Path
    name: str

    @property
    def site(self) -> SiteFolder:
        """Its records, its policy and its memory."""
        return SiteFolder(self.folder / "site")

    @property
    def process(self) -> Process:
        """The SuperNode's."""
        return Process(self.folder, "supernode")

    def make_key(self) -> Path:
        """A key of its own, if it has none; the public half's file, for the server's register."""
        make_hospital_key(self.folder)
        return self.folder / "supernode.pub"

    def start(self, superlink: str, root_certificates: Path, *, own_port: int) -> None:
        """Start the SuperNode.

        Args:
            superlink: The server's host:port.
            root_certificates: The PEM file of the authority that signed the server's certificate.
            own_port: A port of this machine, for the SuperNode and its own app alone.
        """
        command = [
            str(Path(sys.executable).parent / "flower-supernode"),
            "--superlink", superlink,
            "--root-certificates", str(root_certificates.resolve()),
            "--auth-supernode-private-key", str((self.folder / "supernode.key").resolve()),
            "--node-config", node_config(self.name, self.site),
            "--host", "127.0.0.1",
            "--port", str(own_port),
        ]  # fmt: skip
        environment = flower_environment(self.folder / "flower")
        programs = self._own_programs()
        path = f"{programs}{os.pathsep}{environment['PATH']}"
        # A server does not take a hospital back before it has noticed that it was gone, which takes a minute.
        self.process.start(command, {**environment, "PATH": path}, again=True)

    def stop(self, *, kill: bool = False) -> None:
        """End it. After a power cut (``kill``) it goes on by what its folder says."""
        self.process.stop(kill=kill)

    def _own_programs(self) -> Path:
        """A folder with a ``flwr-clientapp`` that runs the hospital's installed code and never the server's."""
        folder = (self.folder / "programs").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        program = folder / "flwr-clientapp"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hbdp_fed.federation.own_clientapp "$@"\n')
        program.chmod(0o755)
        return folder


def node_config(hospital: str, site: SiteFolder) -> str:
    """What a SuperNode is told of itself; it tells nobody else."""
    return f"{HOSPITAL}={json.dumps(hospital)} {SITE}={json.dumps(str(site.path.resolve()))}"
