"""Weights on disk, and the one number that says whether two sets of weights are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from hbdp_fed.errors import DataFileError
from hbdp_fed.types import Weights
from hbdp_fed.whole_files import whole

_BAR = "|"


def save_weights(path: Path, weights: Weights, *, facts: Mapping[str, str] | None = None) -> None:
    """Write weights in their own precision as a safetensors file, whole or not at all.

    Args:
        path: The file.
        weights: By name.
        facts: Texts that are kept with them, by name.
    """
    # Copies: safetensors refuses tensors that share memory.
    copies = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in weights.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as unfinished:
        save_file(copies, unfinished, metadata=dict(facts or {}))


def read_facts(path: Path) -> Mapping[str, str]:
    """The texts that were kept with the weights of a file that :func:`save_weights` wrote."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def read_weights(path: Path) -> Weights:
    """The inverse of :func:`save_weights`, in the file's own order of names.

    Raises:
        DataFileError: if the file is missing, not readable or not a safetensors file.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise DataFileError(path, "there is no such file") from error
    except (OSError, SafetensorError) as error:
        raise DataFileError(path, f"not a readable safetensors file ({error})") from error


def save_parts(path: Path, parts: Mapping[str, Weights], *, facts: Mapping[str, str] | None = None) -> None:
    """Write several sets of weights into one file, as :func:`save_weights` writes one.

    Args:
        path: The file.
        parts: By names without a vertical bar. A part without weights is not written.
        facts: As there.
    """
    flat = {f"{part}{_BAR}{name}": value for part, weights in parts.items() for name, value in weights.items()}
    save_weights(path, flat, facts=facts)


def read_parts(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The inverse of :func:`save_parts`.

    Raises:
        DataFileError: as :func:`read_weights`.
    """
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in read_weights(path).items():
        part, name = key.split(_BAR, 1)
        parts.setdefault(part, {})[name] = value
    return parts


def weights_sha256(weights: Weights) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names: equal if and only if the weights are."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
