"""What a kept file is found by: the SHA-256 of everything that its content follows from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from hbdp_fed.strict_json import dumps

_DECODERS = ("monai", "nibabel", "numpy", "pillow", "pydicom", "torch")
"""What makes numbers of files. Another version may make others."""


def key_of(**facts: Any) -> str:
    """SHA-256 in hexadecimal digits over plain JSON values, the data code and the number of PyTorch's threads.

    Another number of threads may give other bits wherever images are resampled or blurred.
    """
    known = {**facts, "code": code_version(), "threads": torch.get_num_threads()}
    return hashlib.sha256(dumps(_sorted(known)).encode()).hexdigest()


@cache
def code_version() -> str:
    """The version of the code that prepares records: a hash of its text, and the versions of what it decodes with.

    A number that people have to raise would be forgotten once, and then old records taken for new ones.
    """
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package).as_posix()}|".encode() + file.read_bytes())
    for name in _DECODERS:
        digest.update(f"|{name} {_version(name)}".encode())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list | tuple) else value
