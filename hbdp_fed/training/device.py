"""Which device to compute on."""

from __future__ import annotations

import torch

from hbdp_fed.errors import SettingError

DEVICES = ("auto", "cpu", "cuda")


def resolve_device(name: str) -> torch.device:
    """The device called ``name``: ``auto`` takes CUDA where there is one, the CPU otherwise.

    Raises:
        SettingError: for another name, or for ``cuda`` on a machine without it.
    """
    if name not in DEVICES:
        raise SettingError("device", f"'{name}' is not known; choose one of: {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingError("device", "cuda was asked for, but PyTorch finds no CUDA device here; use device=auto")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
