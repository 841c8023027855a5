"""What a safetensors file says about itself, read without loading a weight or PyTorch."""

from __future__ import annotations

import struct
from pathlib import Path

from hbdp_fed.strict_json import loads

_LENGTH = struct.Struct("<Q")


def last_round(standing: Path) -> int:
    """The last training round that is done, by the file where a run stands; 0 where there is no such file.

    Args:
        standing: ``standing.safetensors`` of a run (see :mod:`simulations.standing`).

    Raises:
        ValueError: if the file is not what its name says.
    """
    if not standing.exists():
        return 0
    with standing.open("rb") as file:
        start = file.read(_LENGTH.size)
        if len(start) < _LENGTH.size:
            raise ValueError(f"{standing.name} is cut off")
        header = file.read(min(_LENGTH.unpack(start)[0], standing.stat().st_size))
    try:
        return int(loads(loads(header)["__metadata__"]["standing"])["round"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{standing.name} is not where a run stands") from error
