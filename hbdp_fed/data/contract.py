"""What every data set looks like to the rest of the system."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Records:
    """A set of records: images with their labels, in a fixed order.

    Attributes:
        images: float32 (N, C, H, W) in [0, 1].
        labels: int64 (N,), class indices from 0.
        masks: bool (N, 1, H, W), where the lesion is; None where a data set has no outlines.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor | None = None

    def __len__(self) -> int:
        return self.labels.shape[0]

    def select(self, indices: Tensor) -> Records:
        """The records at ``indices`` (int64), in that order."""
        return Records(
            images=self.images[indices],
            labels=self.labels[indices],
            masks=None if self.masks is None else self.masks[indices],
        )


@dataclass(frozen=True)
class ImageDataset:
    """A data set with its three splits.

    Attributes:
        name: The registry's name.
        task: ``binary`` classification; class 1 is the finding.
        class_names: One name a class; its length is the number of classes.
        train: The records that hospitals hold. The only split that privacy is about.
        val: What the server holds: chooses threshold and round, and is the adversary's public side information.
        test: Used once, for the final figures.
    """

    name: str
    task: str
    class_names: tuple[str, ...]
    train: Records
    val: Records
    test: Records
