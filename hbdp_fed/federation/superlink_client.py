"""What is asked of a SuperLink from outside its apps: register hospitals, start a run, see how it stands, stop it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbdp_fed.errors import SettingError
from hbdp_fed.federation.charter import CHARTER, Charter

_CONNECTION = "federation"
_PATIENCE_S = 120.0


class SuperLinkError(RuntimeError):
    """A SuperLink cannot be reached, or says no."""


@dataclass(frozen=True)
class Connection:
    """A way to a SuperLink over TLS, from the server's own machine.

    Attributes:
        address: host:port.
        root_certificates: The PEM file of the authority that signed the server's certificate.
    """

    address: str
    root_certificates: Path

    def register(self, hospital: str, public_key: Path) -> int:
        """Let whoever has the key to this public one be ``hospital``; the number of its node."""
        told = self._flwr("supernode", "register", str(public_key), _CONNECTION, "--name", hospital)
        return int(told["node-id"])

    def node_status(self) -> dict[int, str]:
        """By node, ``registered`` (never seen), ``online`` or ``offline``."""
        told = self._flwr("supernode", "list", _CONNECTION)
        return {int(node["node-id"]): str(node["status"]) for node in told["nodes"]}

    def submit(self, charter: Charter, *, app: Path) -> str:
        """Start a run; its number.

        Args:
            charter: The terms.
            app: The project's folder, of which Flower makes a bundle.
        """
        with tempfile.TemporaryDirectory() as folder:
            # A file, because a charter is longer than a command line may be.
            config = Path(folder) / "run.toml"
            config.write_text(f"{CHARTER} = {json.dumps(charter.to_json())}\n")
            told = self._flwr("run", str(app), _CONNECTION, "--run-config", str(config))
        return str(told["run-id"])

    def status(self, run_id: str) -> str:
        """How a run stands: ``pending``, ``starting``, ``running``, or ``finished:`` and how."""
        told = self._flwr("list", _CONNECTION, "--run-id", run_id)
        return str(told["runs"][0]["status"])

    def stop(self, run_id: str) -> None:
        """Stop a run."""
        self._flwr("stop", run_id, _CONNECTION)

    def _flwr(self, *words: str) -> dict[str, Any]:
        """Ask by Flower's own command line, with a configuration of its own.

        Raises:
            SuperLinkError: if it says no, or nothing.
        """
        with tempfile.TemporaryDirectory() as home:
            (Path(home) / "config.toml").write_text(
                f'[superlink]\ndefault = "{_CONNECTION}"\n\n[superlink.{_CONNECTION}]\n'
                f"address = {json.dumps(self.address)}\n"
                f"root-certificates = {json.dumps(str(self.root_certificates.resolve()))}\n"
            )
            quiet = {"FLWR_HOME": home, "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
            command = [str(Path(sys.executable).parent / "flwr"), *words, "--format", "json"]
            try:
                answer = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    timeout=_PATIENCE_S,
                    env={**os.environ, **quiet},
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise SuperLinkError(f"{self.address} does not answer") from error
        told = _last_json(answer.stdout)
        if answer.returncode != 0 or told is None or told.get("success") is False:
            problem = (told or {}).get("error-message") or answer.stderr.strip() or answer.stdout.strip() or "no answer"
            raise SuperLinkError(f"{self.address}: {' '.join(str(problem).split())[:500]}")
        return told


def project_folder() -> Path:
    """The checkout of the project, of which Flower makes a bundle.

    Raises:
        SettingError: if the project was installed without one.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / "pyproject.toml").is_file():
        raise SettingError("engine", "superlink needs a checkout of the project, of which Flower makes a bundle")
    return folder


def _last_json(text: str) -> dict[str, Any] | None:
    """The JSON object at the end of what was printed; Flower prints other lines before it."""
    start = text.find("{")
    while start >= 0:
        try:
            value = json.loads(text[start:])
        except ValueError:
            start = text.find("{", start + 1)
        else:
            return value if isinstance(value, dict) else None
    return None
