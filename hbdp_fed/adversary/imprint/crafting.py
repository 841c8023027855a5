"""Building an imprint model: one row for each bin of brightness, of which exactly one is active for a record."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hbdp_fed.adversary.imprint.bins import cut_bins
from hbdp_fed.adversary.planted.code import fit_code
from hbdp_fed.adversary.planted.crafting import Loudness, plant
from hbdp_fed.types import ModelSpec, Weights


@dataclass(frozen=True)
class ImprintDesign:
    """One way to build the malicious model.

    Attributes:
        bins: Rows of the planted layer, at least 2.
        loudness: How the layer drowns the base.
        centred: Whether the layer sees an image's difference from the public mean, or the image itself.
        whitening: Exponent of the coefficients' gains (see :func:`hbdp_fed.adversary.planted.code.fit_code`).
        max_logit_change: How far the layer may move any logit of any image.
    """

    bins: int
    loudness: Loudness
    centred: bool = True
    whitening: float = 0.25
    max_logit_change: float = 0.1


def craft_model(
    base: ModelSpec, base_weights: Weights, images: Tensor, design: ImprintDesign
) -> tuple[ModelSpec, Weights]:
    """The malicious model around ``base``.

    Args:
        base: The model that the hospitals expect, with ``num_classes`` among its arguments.
        base_weights: Its current weights.
        images: Public images, float (P, C, *spatial) in [0, 1].
        design: How to build it.

    Returns:
        A specification of the registry's ``planted`` model, and its weights (float32).
    """
    code = fit_code(images, whitening=design.whitening, centred=design.centred)
    # Every bin below a record's brightness is saturated and adds its ceiling to the logits.
    ceiling = design.max_logit_change / (design.bins * design.loudness.gain)
    layer = cut_bins(images, design.bins).to_layer(code, ceiling=ceiling)
    return plant(base, base_weights, code, layer, design.loudness)
