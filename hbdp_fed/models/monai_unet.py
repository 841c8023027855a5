"""MONAI's U-Net of residual units, for segmentation in two or three dimensions, with the parts DP-SGD can train."""

from __future__ import annotations

import math

from torch import nn

from hbdp_fed.models.spatial import check_spatial_dims
from hbdp_fed.models.unet import UNet


def build_monai_unet(
    in_channels: int,
    num_classes: int,
    spatial_dims: int = 2,
    width: int = 16,
    levels: int = 5,
    res_units: int = 2,
) -> UNet:
    """A U-Net of residual units (Kerfoot et al. 2019, doi 10.1007/978-3-030-12029-0_40; MONAI's ``UNet``).

    Strided convolutions go down, transposed ones up, and PReLU is the activation, as MONAI has it. GroupNorm stands in
    place of its instance norm, which fails where a level is left with a single pixel: 8 groups, or the largest number
    that divides both 8 and the channels (the last level has as many as there are classes). No dropout. Nothing in it
    mixes records and it has no buffers.

    The skip connections fit only where each halving is exact, so sides have to be multiples of 2**(levels - 1). Images
    with other sides get a black border and lose it again, as :class:`hbdp_fed.models.unet.UNet` says. No side may be
    shorter than that: most of what the net sees would be border.

    Args:
        in_channels: Channels of the images, at least 1.
        num_classes: Number of logits a pixel or voxel.
        spatial_dims: 2 for images (b, c, H, W), 3 for volumes (b, c, D, H, W).
        width: Channels of the first level, a multiple of 8; every level below has twice as many.
        levels: From 2 to 7; each but the last halves the sides (the first does so before anything else).
        res_units: Convolutions of a residual unit; 0 for one plain convolution in its place.

    Raises:
        ValueError: if ``spatial_dims``, ``width``, ``levels`` or ``res_units`` is none of these.
    """
    check_spatial_dims(spatial_dims)
    if width < 8 or width % 8:
        raise ValueError(f"width must be a positive multiple of 8, got {width}")
    if not 2 <= levels <= 7:
        raise ValueError(f"levels must lie between 2 and 7, got {levels}")
    if res_units < 0:
        raise ValueError(f"res_units must not be negative, got {res_units}")
    # Here and not above: MONAI takes one to three seconds to import, which every start with another model would pay.
    from monai.networks.nets import UNet as ResidualUNet

    net = ResidualUNet(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=num_classes,
        channels=[width * 2**level for level in range(levels)],
        strides=[2] * (levels - 1),
        num_res_units=res_units,
        # One group fits any number of channels; MONAI takes one number for the whole net.
        norm=("group", {"num_groups": 1, "affine": True}),
        dropout=0.0,
    )
    for module in net.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = math.gcd(8, module.num_channels)
    exact = 2 ** (levels - 1)
    return UNet(net, spatial_dims, smallest_side=exact, multiple_of=exact)
