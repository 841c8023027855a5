"""A file of tensors with what is known about them, which can tell that it is not what was written.

The format is safetensors, so that nothing in a file can run code and its tensors are mapped into memory: processes that
read the same file share the pages. The library itself refuses a file that is shorter or longer than its header says;
the seal, over what the header says, refuses another header.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hbdp_fed.errors import DataFileError
from hbdp_fed.strict_json import dumps, loads
from hbdp_fed.whole_files import whole

_ABOUT, _SEAL = "about", "seal"


def write_sealed(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors, whole or not at all. Several processes may write the same file: the last one's stays.

    Args:
        path: The file, in a folder that is there.
        tensors: By name.
        about: Plain JSON values.

    Raises:
        DataFileError: if that is not possible.
    """
    text = dumps(about)
    try:
        with whole(path, shared=True) as unfinished:
            packed = {name: tensor.contiguous() for name, tensor in tensors.items()}
            save_file(packed, unfinished, metadata={_ABOUT: text, _SEAL: _seal(packed, text)})
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        # The last two are the library's words for tensors that share memory.
        raise DataFileError(path, f"cannot be written ({error})") from error


def read_sealed(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """What :func:`write_sealed` wrote. The tensors are mapped: their pages are read when they are first used.

    Raises:
        DataFileError: if the file is missing, cut off, or not as it was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = file.get_tensors()
        about = loads(metadata[_ABOUT])
    except KeyError as error:
        raise DataFileError(path, "is another program's file") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise DataFileError(path, f"cannot be read ({error})") from error
    if metadata.get(_SEAL) != _seal(tensors, metadata[_ABOUT]) or not isinstance(about, dict):
        raise DataFileError(path, "is not as it was written: its header was changed")
    return tensors, about


def read_about(path: Path) -> Mapping[str, Any]:
    """What is known about the tensors, without a look at the seal.

    Raises:
        DataFileError: if the file is missing, cut off or another program's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = loads((file.metadata() or {})[_ABOUT])
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise DataFileError(path, f"cannot be read ({error})") from error
    if not isinstance(about, dict):
        raise DataFileError(path, "is another program's file")
    return about


def _seal(tensors: Mapping[str, Tensor], about: str) -> str:
    """SHA-256 over what a header says, but for the offsets: those follow from the rest."""
    shapes = {name: [str(tensors[name].dtype), list(tensors[name].shape)] for name in sorted(tensors)}
    return hashlib.sha256(dumps({"about": about, "tensors": shapes}).encode()).hexdigest()
