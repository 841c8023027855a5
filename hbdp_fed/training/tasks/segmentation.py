"""The task that gives each pixel or voxel a class, of which class 0 is the background.

Evidence is ``dice``, float64 (N, K-1), the overlap of each class but the background, and after a thorough look
``hd95``, float64 (N, K-1), the distance between its outlines. Both are NaN where the truth has none of the class: what
a model sees there that is not is in neither figure.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hbdp_fed.data.contract import Records
from hbdp_fed.training.metrics import FloatArray, mean_of_existing, mean_over_records
from hbdp_fed.training.tasks.contract import Evidence, Point, Task, nothing_to_choose
from hbdp_fed.training.tasks.inference import digest_outputs

_METRICS = ("dice", "hd95")
_PERCENTILE = 95


def _dice(decided: Tensor, truth: Tensor, classes: int) -> FloatArray:
    """2 |A ∩ B| / (|A| + |B|) in [0, 1] (Dice 1945, doi 10.2307/1932409) of each class, float64 (b, K-1), by MONAI.

    Args:
        decided: int64 (b, *spatial), the model's classes.
        truth: int64 (b, *spatial), the true classes.
        classes: K, with the background.
    """
    # Here and not above: MONAI takes one to three seconds to import, which every other task would pay.
    from monai.metrics import compute_dice

    found = compute_dice(decided[:, None], truth[:, None], include_background=False, num_classes=classes)
    return found.double().numpy()


def _hd95(decided: Tensor, truth: Tensor, classes: int, spacing: Sequence[float] | None) -> FloatArray:
    """How far the outlines of each class lie apart, float64 (b, K-1), in the unit of ``spacing``, by MONAI.

    The larger of the two directed distances, of which each is the 95th percentile over an outline's pixels of the
    distance to the other outline (after Huttenlocher et al. 1993, doi 10.1109/34.232073). A class that the model misses
    altogether has no outline. The length of the image's diagonal, which is more than any distance within it, then
    stands for the distance, as in the BraTS challenges (373.13 for 240 × 240 × 155 voxels): were the record left out,
    missing a lesion would look better than finding it badly.

    Args:
        decided: int64 (b, *spatial), the model's classes.
        truth: int64 (b, *spatial), the true classes.
        classes: K, with the background.
        spacing: The distance of neighbouring pixels along each axis; None for 1.
    """
    from monai.metrics import compute_hausdorff_distance

    sides = truth.shape[1:]
    diagonal = math.hypot(*(side * unit for side, unit in zip(sides, spacing or [1.0] * len(sides), strict=True)))
    distances = np.full((len(truth), classes - 1), np.nan)
    for k in range(1, classes):
        wanted, found = truth == k, decided == k
        present = wanted.flatten(1).any(dim=1)
        outlined = present & found.flatten(1).any(dim=1)
        distances[(present & ~outlined).numpy(), k - 1] = diagonal
        if bool(outlined.any()):
            with warnings.catch_warnings():
                # MONAI warns of an argument that it passes itself.
                warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
                apart = compute_hausdorff_distance(
                    found[outlined, None],
                    wanted[outlined, None],
                    include_background=True,
                    percentile=_PERCENTILE,
                    spacing=None if spacing is None else [float(unit) for unit in spacing],
                )
            distances[outlined.numpy(), k - 1] = apart[:, 0].numpy()
    return distances


def _likeliest(logits: Tensor) -> Tensor:
    """The class of each pixel or voxel, int64 (b, *spatial)."""
    return logits.argmax(dim=1)


def _as_answered(classes: NDArray[Any], point: Point) -> NDArray[np.int64]:
    return classes


def _digest(
    logits: Tensor, labels: Tensor, *, spacing: Sequence[float] | None, thorough: bool
) -> dict[str, NDArray[Any]]:
    classes = logits.shape[1]
    decided, truth = _likeliest(logits).cpu(), labels.cpu()
    found = {"dice": _dice(decided, truth, classes)}
    return {**found, "hd95": _hd95(decided, truth, classes, spacing)} if thorough else found


def _judge(
    model: nn.Module,
    records: Records,
    *,
    device: torch.device,
    spacing: Sequence[float] | None = None,
    thorough: bool = True,
) -> Evidence:
    digest = partial(_digest, spacing=spacing, thorough=thorough)
    return digest_outputs(model, records, digest, device=device)


def _statistics(evidence: Evidence, point: Point, weights: FloatArray) -> dict[str, FloatArray]:
    """Of each class the mean over the records that have it (``dice_1``), and the mean of these over classes (``dice``).

    Only what the evidence holds: without a thorough look there are no distances.
    """
    by_class = {name: mean_over_records(evidence[name], weights) for name in _METRICS if name in evidence}
    means = {name: mean_of_existing(values) for name, values in by_class.items()}
    of_classes = {
        f"{name}_{k}": column for name, values in by_class.items() for k, column in enumerate(values.T, start=1)
    }
    return {**means, **of_classes}


SEGMENTATION = Task(
    name="segmentation",
    metrics=_METRICS,
    selection=("dice",),
    default_loss="dice_cross_entropy",
    answer=_likeliest,
    decide=_as_answered,
    judge=_judge,
    choose_point=nothing_to_choose,
    statistics=_statistics,
)
