"""Weights on disk, and the one number that says whether two sets of weights are the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hbdp_fed.errors import DataFileError
from hbdp_fed.types import Weights


def save_weights(path: Path, weights: Weights) -> None:
    """Write weights in their own precision as a safetensors file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial")
    # Copies: safetensors refuses tensors that share memory.
    copies = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in weights.items()
    }
    save_file(copies, unfinished)
    unfinished.replace(path)


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


def weights_sha256(weights: Weights) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names: equal if and only if the weights are."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
