"""The rehearsal of a real federation on this machine, held against the simulation of the same settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hbdp_fed.privacy.ledger import verify
from hbdp_fed.privacy.site_policy import SitePolicy
from scripts.deploy.federation import Federation, found
from simulations.run import main as run
from simulations.run_folder import read_summary, time_stamp

DEFAULTS = ("clients=3", "eps=1e9", "training.rounds=5", "adversary.attack=none")
"""What is run unless something else is said."""

_FOREIGN = ("engine", "resume", "run_dir", "privacy.secure_noise", "adversary.attack")
"""Settings that the rehearsal decides itself."""

POLICY = SitePolicy(
    highest_epsilon=1e15,
    lowest_records=10,
    allowed_tasks=("binary", "multiclass", "multilabel", "segmentation"),
    allowed_models=("cnn", "mlp", "resnet9", "unet"),
    # Only noise that can be repeated can be compared with the simulation's.
    secure_noise=False,
    tamper_check=True,
    screening=True,
    may_leave=("noise_to_resolution", "seconds"),
)
"""Every hospital's. At a real site secure_noise is true, which is the default of a policy's file."""


def rehearse(given: Sequence[str], folder: Path | None = None) -> int:
    """Run the federation and the simulation and compare them.

    Args:
        given: Settings of ``simulations.run``, beside :data:`DEFAULTS`.
        folder: Of everything; None makes one under ``runs/``.

    Returns:
        0 if they agree; 1 if they do not, or a run failed; 2 if a setting cannot be used.
    """
    console = Console(highlight=False)
    for text in given:
        if text.lstrip("+~").startswith(_FOREIGN):
            print(f"error: {text}: the rehearsal decides this itself", file=sys.stderr)
            return 2
    folder = (folder or Path("runs") / f"{time_stamp()}_federation").resolve()
    settings = [*DEFAULTS, *given]
    console.print(f"a server and its hospitals, each a folder of its own: {folder}", soft_wrap=True)
    federation = found(folder, settings, POLICY)
    try:
        console.print("starting the SuperLink and the hospitals' SuperNodes, with TLS and their own keys")
        federation.start()
        code = run([*settings, *federation.settings, f"run_dir={folder / 'run'}"])
    finally:
        federation.stop()
    if code != 0:
        return code
    console.print("the same as a simulation")
    code = run([*settings, "engine=inprocess", "report=md", f"run_dir={folder / 'simulation'}"])
    return code or _report(console, federation, folder)


def _report(console: Console, federation: Federation, folder: Path) -> int:
    rows = compared(federation, folder / "run", folder / "simulation")
    table = Table(title="The federation of processes and the simulation")
    for heading in ("", "federation", "simulation", "agree"):
        table.add_column(heading)
    for name, (left, right) in rows.items():
        table.add_row(name, _short(left), _short(right), "yes" if left == right else "NO")
    console.print(table)
    console.print(f"run folder: {folder / 'run'}", soft_wrap=True)
    return 0 if all(left == right for left, right in rows.values()) else 1


def compared(federation: Federation, deployed: Path, simulated: Path) -> dict[str, tuple[Any, Any]]:
    """By what, the two sides' figures.

    Args:
        federation: Whose hospitals' own ledgers are looked into, too.
        deployed: The run folder of the federation.
        simulated: The run folder of the simulation.
    """
    left, right = read_summary(deployed), read_summary(simulated)
    rows = {name: (left[name], right[name]) for name in ("model_sha256", "utility", "participation", "ledger")}
    theirs = verify(simulated / "ledger.jsonl").accounts
    for hospital in federation.hospitals:
        own = _own_spending(federation, hospital.name)
        account = theirs[hospital.name]
        rows[f"{hospital.name}: steps and epsilon in its own ledger"] = (own, (account.steps_spent, account.eps_spent))
    return rows


def _own_spending(federation: Federation, name: str) -> tuple[int, float]:
    """What a hospital's own ledger says it has spent."""
    (ledger,) = (federation.folder / name / "site" / "agreements").glob("*/ledger.jsonl")
    account = verify(ledger).accounts[name]
    return account.steps_spent, account.eps_spent


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
