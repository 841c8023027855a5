"""A whole federation on this machine, as its sites would run it: a server and hospitals, each a folder of its own.

The hospitals are dealt the records of a data set, and each gets them as a file in its own folder. From then on all of
them are processes that know each other by address, certificate and key alone.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hbdp_fed.data.shards import write_shard
from hbdp_fed.federation.site_folder import write_policy
from hbdp_fed.privacy.site_policy import SitePolicy
from scripts.deploy.server import Server, free_port
from scripts.deploy.site import Hospital
from simulations.compose import compose_run, typed
from simulations.prepare import prepare
from simulations.screening import references_of

_ONLINE_S = 90.0


@dataclass(frozen=True)
class Federation:
    """The processes and folders of one federation.

    Attributes:
        folder: Of everything.
        server: The SuperLink.
        hospitals: The SuperNodes.
    """

    folder: Path
    server: Server
    hospitals: tuple[Hospital, ...]

    @classmethod
    def at(cls, folder: Path) -> Federation:
        """The federation that :func:`found` made there.

        Raises:
            FileNotFoundError: if there is none.
        """
        facts = json.loads((folder / "federation.json").read_text())
        server = Server(folder / "server", port=facts["port"])
        return cls(folder, server, tuple(Hospital(folder / name, name) for name in facts["hospitals"]))

    @property
    def settings(self) -> list[str]:
        """What ``simulations.run`` is told, to run on this federation."""
        server = self.server
        return [
            "engine=superlink",
            f"engine.address={server.connection.address}",
            f"engine.root_certificates={server.connection.root_certificates}",
            f"engine.federations={server.federations}",
        ]

    def start(self) -> None:
        """Start the server and all hospitals, and wait until the server has seen each of them."""
        self.server.start()
        for hospital in self.hospitals:
            self.start_hospital(hospital)
        self.wait_until_online()

    def start_hospital(self, hospital: Hospital) -> None:
        """Start one hospital, registering its key if the server does not know it."""
        file = self.folder / "nodes.json"
        nodes = json.loads(file.read_text()) if file.exists() else {}
        if hospital.name not in nodes:
            nodes[hospital.name] = self.server.connection.register(hospital.name, hospital.make_key())
            file.write_text(json.dumps(nodes))
        server = self.server
        hospital.start(f"127.0.0.1:{server.port}", server.authority / "ca.pem", own_port=free_port())

    def wait_until_online(self) -> None:
        """Wait for every hospital.

        Raises:
            RuntimeError: if one is missing after a minute and a half.
        """
        nodes = json.loads((self.folder / "nodes.json").read_text())
        deadline = time.monotonic() + _ONLINE_S
        while True:
            status = self.server.connection.node_status()
            missing = [name for name, node in nodes.items() if status.get(node) != "online"]
            if not missing:
                return
            if time.monotonic() > deadline:
                logs = ", ".join(str(self.folder / name / "supernode.log") for name in missing)
                raise RuntimeError(f"{', '.join(missing)} did not connect; their logs: {logs}")
            time.sleep(1.0)

    def stop(self) -> None:
        """End all processes; everything that they wrote stays."""
        for hospital in self.hospitals:
            hospital.stop()
        self.server.stop()


def found(folder: Path, settings: Sequence[str], policy: SitePolicy) -> Federation:
    """Make the folders of a federation whose hospitals hold what a run of these settings would deal them.

    Args:
        folder: Of everything; whatever was there is removed.
        settings: As for ``simulations.run``.
        policy: Of every hospital; each has a file of its own, which its people may change.
    """
    federation = Federation.at(folder) if (folder / "federation.json").exists() else None
    if federation is not None:
        federation.stop()
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    prepared = prepare(typed(compose_run(list(settings))))
    server = Server(folder / "server", port=free_port())
    server.make_certificates([])
    for hospital in prepared.federated.hospitals:
        site = Hospital(folder / hospital.name, hospital.name).site
        site.path.mkdir(parents=True)
        write_shard(site.records_file, hospital.records)
        write_shard(site.references_file, references_of(prepared))
        write_policy(site.policy_file, policy)
    names = [hospital.name for hospital in prepared.federated.hospitals]
    (folder / "federation.json").write_text(json.dumps({"port": server.port, "hospitals": names}))
    return Federation.at(folder)
