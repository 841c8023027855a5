"""Building the malicious model: where the bins are cut, what the layer gets to see, and how loud it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.adversary.imprint.geometry import Geometry, coefficients_of
from hbdp_fed.types import ModelSpec, Weights

_UNIFORM_SHARE = 0.01
"""Which share of the bins is spread evenly over [0, 1] instead of following the public images."""

_SCANNER_GAINS = (0.8, 0.9, 1.0, 1.1, 1.2)
_SCANNER_OFFSETS = (-0.1, -0.05, 0.0, 0.05, 0.1)
"""How another hospital's scanner may render brightness b: gain * b + offset."""

_BRIGHTNESS_MARGIN = 0.01
"""The outermost bins reach this far beyond [0, 1], so that no image lies outside all bins."""

_VARIANCE_FLOOR = 1e-6
"""Keeps the gain of a coefficient that never varies in public finite: a standard deviation of 0.001."""


@dataclass(frozen=True)
class ImprintDesign:
    """One way to build the malicious model.

    Attributes:
        bins: Rows of the planted layer, at least 2.
        gain: Loudness of the layer, positive: the largest readout weight. The share of a record's gradient norm that
            the layer takes goes to 1 as the gain grows.
        base_scale: Factor on the base's logits. 1 leaves the base as it is; 0 silences it, which frees the gradient
            from the base's confidence: where it predicts a record with certainty, dL/d(logits) underflows.
        centred: Whether the layer sees an image's difference from the public mean, or the image itself.
        whitening: Exponent p >= 0 of the coefficients' gains, 1 / variance^p. 0 sends pixels as they are; 1/4 is the
            optimum of linear coding (see :func:`fit_geometry`).
        max_logit_change: How far the layer may move any logit of any image.
    """

    bins: int
    gain: float
    base_scale: float = 1.0
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
        images: Public images, float (P, C, H, W) in [0, 1].
        design: How to build it.

    Returns:
        A specification of the registry's ``imprint`` model, and its weights (float32).
    """
    num_classes = int(base.args["num_classes"])
    voices = class_voices(num_classes)
    # Every bin below a record's brightness is saturated and adds its ceiling to the logits.
    ceiling = design.max_logit_change / (design.bins * design.gain)
    geometry = fit_geometry(images, design)
    weights = {f"base.{name}": value.detach().float().clone() for name, value in base_weights.items()}
    weights |= geometry.to_weights(ceiling=ceiling)
    weights["readout.weight"] = (design.gain * voices)[:, None].expand(-1, design.bins).clone()
    channels, height, width = geometry.image_shape
    args = {
        "base": {"name": base.name, "args": dict(base.args)},
        "in_channels": channels,
        "num_classes": num_classes,
        "image_size": [height, width],
        "bins": design.bins,
        "ceiling": ceiling,
        "base_scale": design.base_scale,
    }
    return ModelSpec("imprint", args), weights


def class_voices(num_classes: int) -> Tensor:
    """What each class says in the readout, float32 (K,): -1 for the first half of the classes, 1 for the second.

    A record's factor is r = gain * (E_p[voice] - voice[label]) for the model's prediction p. With two voices it is zero
    for no label, whatever the prediction, unless the model is certain. Graded voices would silence a class that lies
    in the middle of the others.
    """
    return torch.where(torch.arange(num_classes) < num_classes // 2, -1.0, 1.0)


def brightness_cuts(images: Tensor, bins: int) -> Tensor:
    """The bins + 1 strictly ascending cuts, float64, at the quantiles of the public images' mean brightness.

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
    return (1 - _UNIFORM_SHARE) * quantiles + _UNIFORM_SHARE * even


def fit_geometry(images: Tensor, design: ImprintDesign) -> Geometry:
    """The cuts, and the linear code that carries an image best through the noise at a fixed gradient norm.

    A record's planted gradient is r * (u, 1) and clipped to norm C: r = C / sqrt(|u|^2 + 1). Each coefficient arrives
    with noise sigma * C / (r * gain_j). Minimising the squared error sum_j 1 / gain_j^2 at a given energy
    sum_j gain_j^2 * variance_j gives gain_j^2 ~ variance_j^(-1/2): whitening = 1/4.

    The common factor a of all gains sets how the norm is split between image and bias. The bias tells r, which the
    image has to be divided by; with D coefficients of average energy |v|^2 before scaling, the error is
    sigma^2 (D |v|^2 + D / a^2 + a^2 |v|^4 + |v|^2), least at a^2 |v|^2 = sqrt(D).
    """
    coefficients = coefficients_of(images)
    mean = coefficients.mean(dim=0)
    variance = (coefficients - mean).square().mean(dim=0)
    centre = mean if design.centred else torch.zeros_like(mean)
    gains = (variance + _VARIANCE_FLOOR) ** -design.whitening
    energy = (gains * (coefficients - centre)).square().sum(dim=1).mean()
    # The floor keeps the scale finite for public images that are all the same.
    scale = len(gains) ** 0.25 / math.sqrt(max(float(energy), len(gains) * _VARIANCE_FLOOR))
    cuts = brightness_cuts(images, design.bins)
    channels, height, width = images.shape[1:]
    return Geometry(
        image_shape=(channels, height, width),
        gains=gains * scale,
        centre=centre,
        lower=cuts[:-1],
        upper=cuts[1:],
    )
