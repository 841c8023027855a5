"""Runs a model over records, batch by batch, and keeps only a digest of its outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hbdp_fed.data.contract import Records, as_floats
from hbdp_fed.errors import TrainingDiverged

Digest = Callable[[Tensor, Tensor], dict[str, NDArray[Any]]]
"""Maps a batch's logits (b, ...) and labels (b, ...), on the model's device, to arrays with b as their first axis."""

_LARGEST_BATCH = 256
_PIXELS_A_BATCH = 2**20
"""What a network holds of a batch grows with its pixels or voxels, so large images go in small batches."""


def _batch_size(images: Tensor) -> int:
    return max(1, min(_LARGEST_BATCH, _PIXELS_A_BATCH // math.prod(images.shape[2:])))


def digest_outputs(
    model: nn.Module, records: Records, digest: Digest, *, device: torch.device
) -> dict[str, NDArray[Any]]:
    """What ``digest`` says of each record, in the records' order.

    The model is in evaluation mode meanwhile and returns to the mode it was in. No gradient is kept.

    Raises:
        ValueError: if there are no records.
        TrainingDiverged: if an output is not finite.
    """
    if len(records) == 0:
        raise ValueError("there are no records to judge")
    size = _batch_size(records.images)
    parts: list[dict[str, NDArray[Any]]] = []
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(records), size):
                logits = model(as_floats(records.images[start : start + size].to(device)))
                # Sorting would take NaN for the highest score of all, and argmax for the first class.
                if not bool(logits.isfinite().all()):
                    raise TrainingDiverged("the model's outputs are not finite")
                parts.append(digest(logits, records.labels[start : start + size].to(device)))
    finally:
        model.train(was_training)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
