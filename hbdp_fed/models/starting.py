"""Where training starts: the weights of a file, or of a file and fresh ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from hbdp_fed.errors import SettingError
from hbdp_fed.models.storage import read_weights
from hbdp_fed.types import Weights

_KEY = "model.weights"
_SHOWN = 3


def starting_weights(
    model: nn.Module, path: Path, *, fresh: Weights, partial: bool = False
) -> tuple[Weights, tuple[str, ...]]:
    """The weights of a safetensors file as ``model``'s, for example of a net that was trained on public images.

    Weights of records that nobody protects carry these records into every model that starts from them, outside the
    guarantee.

    Args:
        model: Gives the names and shapes.
        path: Holds every parameter by its name, in any floating-point precision.
        fresh: What the parameters start from otherwise, all of them (:func:`hbdp_fed.models.initial_weights`).
        partial: Whether to take what fits and leave the rest to ``fresh``. Names in the file that the model does not
            have are then passed over.

    Returns:
        All of the model's parameters in its order, those of the file in float32, and the names of those that start
        from ``fresh``: none unless ``partial``.

    Raises:
        DataFileError: if the file is missing, not readable or not a safetensors file.
        SettingError: if names, shapes or types differ and ``partial`` is off, if nothing fits, or if a value that
            would be taken is not finite (in float32).
    """
    stored = read_weights(path)
    parameters = dict(model.named_parameters())
    taken = {name: stored[name].to(torch.float32) for name, own in parameters.items() if _fits(stored.get(name), own)}
    differences = _differences(parameters, stored)
    if not taken:
        raise SettingError(_KEY, f"{path} holds nothing that fits the model: {_first(differences)}")
    if differences and not partial:
        raise SettingError(
            _KEY,
            f"{path} does not fit the model: {_first(differences)}. model.weights_partial=true takes what fits and "
            "starts the rest anew",
        )
    broken = [name for name, value in taken.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise SettingError(_KEY, f"{path} holds values that are not finite: {_first(broken)}")
    rest = tuple(name for name in parameters if name not in taken)
    return {name: taken.get(name, fresh[name]) for name in parameters}, rest


def _fits(value: Tensor | None, parameter: Tensor) -> bool:
    return value is not None and value.is_floating_point() and value.shape == parameter.shape


def _differences(parameters: Mapping[str, Tensor], stored: Weights) -> list[str]:
    """What keeps the file from being the model's, in words; empty where it is."""
    found = []
    for name, own in parameters.items():
        value = stored.get(name)
        if value is None:
            found.append(f"{name} is not in the file")
        elif value.shape != own.shape:
            found.append(f"{name} has shape {tuple(value.shape)} in the file, but {tuple(own.shape)} in the model")
        elif not value.is_floating_point():
            found.append(f"{name} has type {value.dtype} in the file, which is not floating-point")
    return found + [f"{name} is not in the model" for name in stored if name not in parameters]


def _first(parts: Sequence[str]) -> str:
    """The first few of what would be a long list."""
    more = f"; and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return "; ".join(parts[:_SHOWN]) + more
