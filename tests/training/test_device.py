"""Where to compute, as a user names it."""

from __future__ import annotations

import pytest
import torch

from hbdp_fed.errors import SettingError
from hbdp_fed.training import resolve_device


def test_devices() -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(SettingError, match="device: 'tpu' is not known; choose one of: auto, cpu, cuda"):
        resolve_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(SettingError, match="no CUDA device"):
            resolve_device("cuda")
