"""What a few of MONAI's nets ask for and the image decides: how often its sides are halved, and with which kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

_SMALLEST_SIDE = 4
_MOST_HALVINGS = 5
_LEAST_LEVELS = 3
_FIRST_CHANNELS = 16


def defaults_for(net: str, image_size: Sequence[int]) -> Mapping[str, Any]:
    """Keywords of a net that has no default of its own for them, for images of these sides; empty for most nets."""
    return _DEFAULTS[net](image_size) if net in _DEFAULTS else {}


def _halvings(side: int) -> int:
    """How often a side can be halved exactly without falling below 4 pixels, at most five times."""
    times = 0
    while times < _MOST_HALVINGS and side % 2 == 0 and side // 2 >= _SMALLEST_SIDE:
        side //= 2
        times += 1
    return times


def _dyn_unet(image_size: Sequence[int]) -> Mapping[str, Any]:
    """Kernels of 3, and each axis halved as often as it can be, so that a thin volume keeps its slices.

    After nnU-Net (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z). It pads where a side is odd; here halvings are
    exact, for no border is added.
    """
    by_axis = [[2] * _halvings(side) for side in image_size]
    strides = [list(level) for level in zip_longest(*by_axis, fillvalue=1)]
    # The net has at least two levels below its first, halved or not.
    strides += [[1] * len(image_size)] * (_LEAST_LEVELS - 1 - len(strides))
    return {
        "kernel_size": [[3] * len(image_size)] * (len(strides) + 1),
        "strides": [[1] * len(image_size), *strides],
        "upsample_kernel_size": strides,
    }


def _unet(image_size: Sequence[int]) -> Mapping[str, Any]:
    """As deep as every side can be halved exactly, with twice the channels at each level."""
    halvings = max(1, min(map(_halvings, image_size)))
    return {"channels": [_FIRST_CHANNELS * 2**level for level in range(halvings + 1)], "strides": [2] * halvings}


_DEFAULTS: Mapping[str, Callable[[Sequence[int]], Mapping[str, Any]]] = {
    "AttentionUnet": _unet,
    "DynUNet": _dyn_unet,
    "EfficientNetBN": lambda _: {"model_name": "efficientnet-b0"},
    "FlexibleUNet": lambda _: {"backbone": "efficientnet-b0"},
    "UNet": _unet,
}
"""By net."""
