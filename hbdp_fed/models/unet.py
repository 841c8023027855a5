"""A U-Net for segmentation in two or three dimensions: MONAI's, with the parts that DP-SGD can train."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from hbdp_fed.models.spatial import check_shape, check_spatial_dims

_SMALLEST_SIDE = 16


class UNet(nn.Module):
    """A net between public constants that bring images in [0, 1] to [-1, 1] and a check of their shape.

    Args:
        net: Maps (b, in_channels, *spatial) to logits (b, num_classes, *spatial).
        spatial_dims: Number of spatial dimensions that ``net`` takes.
        smallest_side: The shortest side that it takes, at least 1.
        multiple_of: What its sides have to be multiples of. Other images get a black border on all sides, evenly, and
            the border's logits are cut off again.
    """

    def __init__(
        self, net: nn.Module, spatial_dims: int, *, smallest_side: int = _SMALLEST_SIDE, multiple_of: int = 1
    ) -> None:
        super().__init__()
        self.net = net
        self.spatial_dims = spatial_dims
        self.smallest_side = smallest_side
        self.multiple_of = multiple_of

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, num_classes, *spatial) of images (b, in_channels, *spatial) in [0, 1].

        Raises:
            ValueError: if the images have another number of dimensions or a side below the smallest.
        """
        check_shape(images, spatial_dims=self.spatial_dims, smallest_side=self.smallest_side)
        sides = tuple(images.shape[2:])
        missing = [-side % self.multiple_of for side in sides]
        if any(missing):
            # A constant, so that nothing but the record itself is in its border; PyTorch lists the last side first.
            border = [width for more in reversed(missing) for width in (more // 2, more - more // 2)]
            images = functional.pad(images, border, value=0.0)
        # Public constants: nothing is learnt from private data to normalise it.
        logits: Tensor = self.net(images * 2 - 1)
        for axis, (side, more) in enumerate(zip(sides, missing, strict=True), start=2):
            logits = logits.narrow(axis, more // 2, side) if more else logits
        return logits


def build_unet(in_channels: int, num_classes: int, spatial_dims: int = 2, width: int = 16) -> UNet:
    """A U-Net of five levels (Falk et al. 2019, doi 10.1038/s41592-018-0261-2; MONAI's ``BasicUNet``).

    GroupNorm of 8 groups in place of MONAI's instance norm, LeakyReLU that is not in place, no dropout, upsampling by
    transposed convolution. Nothing in it mixes records and it has no buffers.

    Each side of an image must be at least 16, for it is halved four times. A side that is no multiple of 16 works too:
    where a halving drops the last row, the decoder repeats its own last row to fit the encoder's.

    Args:
        in_channels: Channels of the images, at least 1.
        num_classes: Number of logits a pixel or voxel.
        spatial_dims: 2 for images (b, c, H, W), 3 for volumes (b, c, D, H, W).
        width: Channels of the first level, a multiple of 8; the levels below have 1, 2, 4 and 8 times as many.

    Raises:
        ValueError: if ``spatial_dims`` or ``width`` is none of these.
    """
    check_spatial_dims(spatial_dims)
    if width < 8 or width % 8:
        raise ValueError(f"width must be a positive multiple of 8, got {width}")
    # Here and not above: MONAI takes one to three seconds to import, which every start with another model would pay.
    from monai.networks.nets import BasicUNet

    net = BasicUNet(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=num_classes,
        features=(width, width, 2 * width, 4 * width, 8 * width, width),
        # In place, it would overwrite what hooks for per-record gradients have yet to read.
        act=("LeakyReLU", {"negative_slope": 0.1, "inplace": False}),
        norm=("group", {"num_groups": 8, "affine": True}),
        dropout=0.0,
        upsample="deconv",
    )
    return UNet(net, spatial_dims)
