"""What a task is: how a model's outputs are judged, and which figures come of it.

Judging has three steps, so that each is done once. A model is run over the records and leaves evidence, a few numbers a
record. On validation, the evidence chooses an operating point. Evidence and point then give figures, of all records, of
some of them or of a resample of them, without the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hbdp_fed.data.contract import Records
from hbdp_fed.training.metrics import FloatArray

Evidence = Mapping[str, NDArray[Any]]
"""What is known about each judged record. Every array has the records as its first axis; there are no images in it."""

Point = Mapping[str, float | list[float]]
"""The operating point that validation chose, as plain JSON: ``{"threshold": 0.31}``. Empty if nothing is to choose."""


class Judge(Protocol):
    """Runs a model over records. The model is left in the mode, training or evaluation, that it was in."""

    def __call__(
        self,
        model: nn.Module,
        records: Records,
        *,
        device: torch.device,
        spacing: Sequence[float] | None = None,
        thorough: bool = True,
    ) -> Evidence:
        """The evidence about ``records`` (at least one), in their order.

        Args:
            model: Maps float32 images (b, C, *spatial) in [0, 1] on ``device`` to logits.
            records: What is judged.
            device: Where the model is.
            spacing: The distance of neighbouring pixels or voxels along each spatial axis, in mm; None counts pixels.
                Only distances look at it.
            thorough: False leaves out what is slow and chooses nothing.

        Raises:
            ValueError: if there are no records.
            TrainingDiverged: if an output is not finite.
        """
        ...


Statistics = Callable[[Evidence, Point, FloatArray], dict[str, FloatArray]]
"""Maps evidence about N records, a point and weights (B, N) to each figure's values (B,), NaN where there is none."""


@dataclass(frozen=True)
class Task:
    """What a model is asked for.

    Attributes:
        name: One of :data:`hbdp_fed.data.contract.TASKS`.
        metrics: The names of the figures in the order in which people want them, a single class's figures aside.
        selection: The figures by which validation chooses the round: the first decides, the next ones break ties. More
            is better in each.
        default_loss: The name of the loss that is trained on unless another is asked for.
        answer: What a model says of each image, from its logits, float64 (b, K) or (b, K, *spatial): probabilities in
            [0, 1], or classes where there is one for each pixel.
        decide: What that comes to at an operating point: an answer of N images to decisions, int64. ``binary`` and
            ``multiclass``: (N,), a class each; ``multilabel``: (N, K), 1 for a finding that is called;
            ``segmentation``: (N, *spatial).
        judge: From a model and records to evidence.
        choose_point: From validation's evidence to the operating point.
        statistics: From evidence and point to figures.
    """

    name: str
    metrics: tuple[str, ...]
    selection: tuple[str, ...]
    default_loss: str
    answer: Callable[[Tensor], Tensor]
    decide: Callable[[NDArray[Any], Point], NDArray[np.int64]]
    judge: Judge
    choose_point: Callable[[Evidence], Point]
    statistics: Statistics


def nothing_to_choose(evidence: Evidence) -> Point:
    """The point of a task whose decisions follow from the outputs alone."""
    return {}


def count_records(evidence: Evidence) -> int:
    """The number of records that ``evidence`` is about.

    Raises:
        ValueError: if its arrays disagree.
    """
    lengths = {len(values) for values in evidence.values()}
    if len(lengths) != 1:
        raise ValueError(f"evidence must hold arrays of one length, got lengths {sorted(lengths)}")
    return lengths.pop()


def select(evidence: Evidence, rows: NDArray[Any]) -> Evidence:
    """The evidence about some records: ``rows`` is a mask, bool (N,), or indices, int64 (n,)."""
    return {name: values[rows] for name, values in evidence.items()}


def figures(task: Task, evidence: Evidence, point: Point) -> dict[str, float | None]:
    """Each figure of all records together, None where it does not exist, and how many ``records`` there are."""
    records = count_records(evidence)
    found = task.statistics(evidence, point, np.ones((1, records)))
    return {
        **{name: None if np.isnan(values[0]) else float(values[0]) for name, values in found.items()},
        "records": records,
    }
