"""A U-Net for segmentation in two or three dimensions: MONAI's, with the parts that DP-SGD can train."""

from __future__ import annotations

from torch import Tensor, nn

_SMALLEST_SIDE = 16


class UNet(nn.Module):
    """A net between public constants that bring images in [0, 1] to [-1, 1] and a check of their shape.

    Args:
        net: Maps (b, in_channels, *spatial) to logits (b, num_classes, *spatial).
        spatial_dims: Number of spatial dimensions that ``net`` takes.
    """

    def __init__(self, net: nn.Module, spatial_dims: int) -> None:
        super().__init__()
        self.net = net
        self.spatial_dims = spatial_dims

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, num_classes, *spatial) of images (b, in_channels, *spatial) in [0, 1]; each side at least 16.

        Raises:
            ValueError: if the images have another number of dimensions or are smaller.
        """
        sides = tuple(images.shape[2:])
        if len(sides) != self.spatial_dims or min(sides) < _SMALLEST_SIDE:
            raise ValueError(
                f"images must have {self.spatial_dims} spatial dimensions of at least {_SMALLEST_SIDE} after batch and"
                f" channels, got shape {tuple(images.shape)}"
            )
        # Public constants: nothing is learnt from private data to normalise it.
        logits: Tensor = self.net(images * 2 - 1)
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
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
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
