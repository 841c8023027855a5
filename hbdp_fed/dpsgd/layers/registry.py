"""The layers whose per-record gradients are computed by hand, one rule a type, and the way of clipping each."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from hbdp_fed.dpsgd.layers.affine import GROUP_NORM, LAYER_NORM, PRELU, SPECTRUM
from hbdp_fed.dpsgd.layers.conv import CONVOLUTION, TRANSPOSED
from hbdp_fed.dpsgd.layers.linear import EMBEDDING, LINEAR
from hbdp_fed.dpsgd.layers.rule import LayerRule
from hbdp_fed.dpsgd.layers.standardized import STANDARDIZED
from hbdp_fed.models.planted import Spectrum
from hbdp_fed.models.standardized import WeightStandardizedConv1d, WeightStandardizedConv2d, WeightStandardizedConv3d

RULES: Mapping[type[nn.Module], LayerRule] = {
    nn.Conv1d: CONVOLUTION,
    nn.Conv2d: CONVOLUTION,
    nn.Conv3d: CONVOLUTION,
    nn.ConvTranspose1d: TRANSPOSED,
    nn.ConvTranspose2d: TRANSPOSED,
    nn.ConvTranspose3d: TRANSPOSED,
    WeightStandardizedConv1d: STANDARDIZED,
    WeightStandardizedConv2d: STANDARDIZED,
    WeightStandardizedConv3d: STANDARDIZED,
    nn.Linear: LINEAR,
    nn.Embedding: EMBEDDING,
    nn.GroupNorm: GROUP_NORM,
    nn.InstanceNorm1d: GROUP_NORM,
    nn.InstanceNorm2d: GROUP_NORM,
    nn.InstanceNorm3d: GROUP_NORM,
    nn.LayerNorm: LAYER_NORM,
    nn.PReLU: PRELU,
    # What a malicious server hands out gets no slower way than an honest model.
    Spectrum: SPECTRUM,
}
"""By exact type: a subclass may compute anything."""


def rule_of(module: nn.Module) -> LayerRule | None:
    """The rule for a layer, or None where there is none for its type or its options."""
    rule = RULES.get(type(module))
    return rule if rule is not None and rule.supports(module) else None
