"""Brings what a server wrote down to where the run is judged."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def fetch(source: str, target: Path) -> Path:
    """Copy a server's federations, from a folder of this machine or by scp from another one.

    With ``engine.federations`` set to the target, ``simulations.run`` follows them as it would on the server's machine.

    Args:
        source: A path, or ``[user@]host:path``.
        target: The folder to copy into; made if it is not there.

    Returns:
        The target.

    Raises:
        RuntimeError: if it cannot be copied.
    """
    target.mkdir(parents=True, exist_ok=True)
    if ":" not in source:
        if not Path(source).is_dir():
            raise RuntimeError(f"{source} is no folder")
        shutil.copytree(source, target, dirs_exist_ok=True)
        return target
    command = ["scp", "-r", "-q", "-o", "BatchMode=yes", f"{source.rstrip('/')}/.", str(target)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise RuntimeError(f"{source} cannot be copied: {answer.stderr.strip() or 'scp failed'}")
    return target
