"""The non-private control: ordinary back-propagation, nothing clipped."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hbdp_fed.dpsgd.clipping import MicroBatch, PartSum, trainable
from hbdp_fed.dpsgd.losses import RecordLoss


def plain_part(model: nn.Module, *, compute_dtype: torch.dtype | None, loss: RecordLoss) -> MicroBatch:
    """Sum gradients without looking at single records (see :func:`hbdp_fed.dpsgd.plain_summer`)."""
    parameters = trainable(model)
    volumetric = any(isinstance(module, nn.Conv3d) for module in model.modules())

    def part(images: Tensor, labels: Tensor, multiplicity: int) -> PartSum:
        # On a CPU, PyTorch 2.13 gives garbage for the bfloat16 weight gradient of a 3D convolution where channels are
        # many and voxels few (128 channels of 2x3x2): such nets are left in the model's precision.
        sound = compute_dtype is not None and not (volumetric and images.device.type == "cpu")
        with torch.autocast(images.device.type, dtype=compute_dtype, enabled=sound):
            outputs = model(images)
        value = loss(outputs.float() if compute_dtype is not None else outputs, labels).sum() / multiplicity
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        return PartSum(
            sums={name: g for name, g in zip(parameters, gradients, strict=True) if g is not None},
            norms=torch.zeros(0, device=images.device),
            loss=value,
        )

    return part
