"""What a model says of images, in words and plain numbers for tables and other programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hbdp_fed.inference.released import ReleasedModel


@dataclass(frozen=True)
class Answer:
    """One image's answer.

    Attributes:
        image: Which image.
        decision: The class's name; of ``multilabel`` the findings that are called, of ``segmentation`` the classes
            that are there, the background aside.
        probabilities: By class (finding), in [0, 1]; empty of ``segmentation``.
        sizes: Pixels or voxels of each class but the background; empty of other tasks. On the model's grid, or, where
            a mask was written, on the mask's.
        mask: The file with a class a pixel; None without one.
    """

    image: str
    decision: tuple[str, ...]
    probabilities: Mapping[str, float]
    sizes: Mapping[str, int]
    mask: str | None = None


def answers_of(model: ReleasedModel, names: list[str], answer: NDArray[Any]) -> list[Answer]:
    """The answers of images whose model is no segmentation.

    Args:
        model: Who was asked.
        names: The images'.
        answer: What :meth:`ReleasedModel.ask` said of them, (N,) or (N, K).
    """
    decided = model.decide(answer)
    return [
        Answer(name, _called(model, decision), _probabilities(model, scores), {})
        for name, scores, decision in zip(names, answer, decided, strict=True)
    ]


def outlined(model: ReleasedModel, name: str, classes: NDArray[Any], mask: str | None) -> Answer:
    """The answer of a segmentation, whose ``classes`` are a class a pixel."""
    counts = np.bincount(classes.ravel(), minlength=len(model.class_names))
    sizes = {label: int(count) for label, count in zip(model.class_names[1:], counts[1:], strict=True)}
    return Answer(name, tuple(label for label, count in sizes.items() if count), {}, sizes, mask)


def _called(model: ReleasedModel, decision: NDArray[np.int64]) -> tuple[str, ...]:
    if decision.ndim:
        return tuple(name for name, called in zip(model.class_names, decision, strict=True) if called)
    return (model.class_names[int(decision)],)


def _probabilities(model: ReleasedModel, scores: NDArray[np.float64]) -> dict[str, float]:
    # Of two classes the model's answer is the second one's.
    each = [1 - float(scores), float(scores)] if scores.ndim == 0 else scores.tolist()
    return dict(zip(model.class_names, each, strict=True))
