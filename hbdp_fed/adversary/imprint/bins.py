"""The bins of an imprint layer: in which of them an image's brightness lies decides where its gradient goes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hbdp_fed.adversary.planted.code import Code
from hbdp_fed.adversary.planted.crafting import Layer
from hbdp_fed.types import Weights

_UNIFORM_SHARE = 0.01
"""Which share of the bins is spread evenly over [0, 1] instead of following the public images."""

_SCANNER_GAINS = (0.8, 0.9, 1.0, 1.1, 1.2)
_SCANNER_OFFSETS = (-0.1, -0.05, 0.0, 0.05, 0.1)
"""How another hospital's scanner may render brightness b: gain * b + offset."""

_BRIGHTNESS_MARGIN = 0.01
"""The outermost bins reach this far beyond [0, 1], so that no image lies outside all bins."""


@dataclass(frozen=True)
class Bins:
    """Where the bins lie, in mean brightness; float64.

    Attributes:
        lower: (bins,), where each begins, ascending.
        upper: (bins,), where each ends; the next one's lower.
    """

    lower: Tensor
    upper: Tensor

    def to_layer(self, code: Code, *, ceiling: float) -> Layer:
        """The layer whose row i rises from 0 to the ceiling between the cuts of bin i."""
        slope = ceiling / (self.upper - self.lower)
        form = brightness_form(code)
        # In terms of u, which the layer sees, not of brightness.
        return Layer(
            weight=slope[:, None] * (form / code.gains),
            bias=slope * (form @ code.centre - self.lower),
            ceiling=ceiling,
        )


def read_bins(args: Mapping[str, Any], weights: Weights, code: Code) -> Bins:
    """The inverse of :meth:`Bins.to_layer`, up to float32.

    Args:
        args: The planted model's arguments (``ceiling``).
        weights: Its weights.
        code: What the layer sees.
    """
    form = brightness_form(code)
    # One channel's first coefficient tells the slope; over all D the layer would be copied to float64.
    place = int(form.argmax())
    slope = weights["planted.weight"][:, place].double() * code.gains[place] / form[place]
    lower = form @ code.centre - weights["planted.bias"].double() / slope
    return Bins(lower=lower, upper=lower + float(args["ceiling"]) / slope)


def brightness_form(code: Code) -> Tensor:
    """The linear form (D,) that maps coefficients to the image's mean: it reads each channel's first one."""
    channels, *sides = code.image_shape
    form = torch.zeros(channels, math.prod(sides), dtype=torch.float64)
    form[:, 0] = 1 / (channels * math.sqrt(math.prod(sides)))
    return form.flatten()


def cut_bins(images: Tensor, bins: int) -> Bins:
    """Bins at the quantiles of the public images' mean brightness.

    Quantiles make every bin equally likely, which makes collisions of two records least likely. Half of the bins go
    by the images as they are, half by how other scanners might render them: a hospital whose images are all a little
    brighter than the public ones would otherwise crowd into the few wide bins at the end.
    """
    public = images.double().flatten(start_dim=1).mean(dim=1)
    rendered = [gain * public + offset for gain in _SCANNER_GAINS for offset in _SCANNER_OFFSETS]
    brightness = torch.cat([*rendered, public.repeat(len(rendered))]).clamp(0.0, 1.0)
    inner = torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1]
    ends = torch.tensor([-_BRIGHTNESS_MARGIN, 1 + _BRIGHTNESS_MARGIN], dtype=torch.float64)
    quantiles = torch.cat([ends[:1], torch.quantile(brightness, inner), ends[1:]])
    # Public images of equal brightness would make bins of no width.
    even = torch.linspace(float(ends[0]), float(ends[1]), bins + 1, dtype=torch.float64)
    cuts = (1 - _UNIFORM_SHARE) * quantiles + _UNIFORM_SHARE * even
    return Bins(lower=cuts[:-1], upper=cuts[1:])
