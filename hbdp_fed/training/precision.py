"""In which floating-point numbers a hospital computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from hbdp_fed.errors import unknown_choice


@dataclass(frozen=True)
class Precision:
    """The types of one DP-SGD step. The optimiser's weights and the update are float64 in any case.

    Attributes:
        parameters: Of the model, its images, and the sum of clipped gradients within a micro-batch: this one decides
            on how fine a grid of numbers the sum lies that the noise has to hide.
        compute: Of the layers' inputs and outputs, where it differs; None where it does not.
    """

    parameters: torch.dtype
    compute: torch.dtype | None = None


PRECISIONS: Mapping[str, Precision] = {
    "float32": Precision(torch.float32),
    "bf16": Precision(torch.float32, compute=torch.bfloat16),
    "float64": Precision(torch.float64),
}
"""Precisions by name. ``bf16`` pays where the processor multiplies it faster; ``float64`` keeps the noise of a huge
budget effectively Gaussian."""


def precision_called(name: str) -> Precision:
    """The precision called ``name``.

    Raises:
        SettingError: if there is none.
    """
    if name not in PRECISIONS:
        raise unknown_choice("training.precision", name, PRECISIONS)
    return PRECISIONS[name]
