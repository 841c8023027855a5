"""What every data set looks like to the rest of the system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Words = NDArray[np.str_]
"""One word a record, (N,)."""

TASKS = ("binary", "multiclass", "multilabel", "segmentation")
"""What a model can be asked for; how each is trained and judged is in :mod:`hbdp_fed.training.tasks`."""

_NO_ATTRIBUTES: Mapping[str, Words] = MappingProxyType({})


@dataclass(frozen=True)
class Records:
    """A set of records: images with their labels, in a fixed order.

    Attributes:
        images: (N, C, *spatial) with two or three spatial dimensions: float32 in [0, 1], or uint8, of which 255 stands
            for 1 and which takes a quarter of the memory (see :func:`as_floats`).
        labels: int64. (N,), class indices from 0; (N, K) of 0 and 1 for ``multilabel``; (N, *spatial), a class a pixel
            or voxel, for ``segmentation``.
        masks: bool (N, 1, H, W), where the lesion is; None where a data set has no outlines or they are the labels.
        groups: int64 (N,), equal for records of one patient (or lesion); None where every record stands for itself.
        names: What a person finds a record by, as a rule its file; None where a data set has no names.
        attributes: What else is known of each record, by name: ``sex``, ``age``, ``source`` and their like. Used to
            deal records to hospitals and to compare subgroups, never to train.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor | None = None
    groups: Tensor | None = None
    names: Words | None = None
    attributes: Mapping[str, Words] = field(default_factory=lambda: _NO_ATTRIBUTES)

    def __len__(self) -> int:
        return self.labels.shape[0]

    def select(self, indices: Tensor) -> Records:
        """The records at ``indices`` (int64), in that order."""
        return Records(
            images=self.images[indices],
            labels=self.labels[indices],
            masks=_rows(self.masks, indices),
            **self.whose(indices),
        )

    def whose(self, indices: Tensor) -> dict[str, Any]:
        """What is known of the records at ``indices`` beside what is trained on, by the names of the fields."""
        return {
            "groups": _rows(self.groups, indices),
            "names": _rows(self.names, indices),
            "attributes": {name: _rows(words, indices) for name, words in self.attributes.items()},
        }


def _rows(values: Any, indices: Tensor) -> Any:
    if values is None:
        return None
    return values[indices] if isinstance(values, Tensor) else values[indices.numpy()]


def concatenate(parts: Sequence[Records]) -> Records:
    """The records of all parts, at least one, in their order. What one of them lacks, they must all lack."""

    def joined(values: Sequence[Any]) -> Any:
        if values[0] is None:
            return None
        return torch.cat(list(values)) if isinstance(values[0], Tensor) else np.concatenate(values)

    return Records(
        images=joined([part.images for part in parts]),
        labels=joined([part.labels for part in parts]),
        masks=joined([part.masks for part in parts]),
        groups=joined([part.groups for part in parts]),
        names=joined([part.names for part in parts]),
        attributes={name: joined([part.attributes[name] for part in parts]) for name in parts[0].attributes},
    )


def as_floats(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1], whichever of the two forms they are kept in."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


@dataclass(frozen=True)
class Preparation:
    """How an image comes from its file to the contract's form, so that another one can be brought to the same.

    Attributes:
        kind: ``array`` (uint8 pixels of the right size, of which 255 becomes 1), ``photograph`` (a picture file of 8
            bits), ``picture`` (a picture file of any bits and any side up), ``dicom`` (a DICOM file that is an image),
            ``volume`` (a NIfTI file) or ``drawn`` (there is no file).
        words: The same as a sentence.
        details: What else a program needs, as plain JSON values. ``photograph`` and ``picture``: ``mode`` (Pillow's,
            ``L`` or ``RGB``), ``size`` (height and width) and ``resampling``. ``dicom``: these, and ``window`` (the
            values that become 0 and 1, or None for each file's own). ``volume``: ``orientation``, ``spacing`` (mm, or
            None), ``intensity`` (``window`` with two Hounsfield units, or ``percentiles`` of each channel by itself,
            which become 0 and 1), ``fit`` (``crop`` or ``scale``) and ``size``.
    """

    kind: str
    words: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageDataset:
    """A data set with its three splits.

    Attributes:
        name: The registry's name.
        task: One of :data:`TASKS`. In ``binary`` class 1 is the finding; in ``segmentation`` class 0 is the background.
        class_names: One name a class (``multilabel``: a finding); its length is the number of a model's logits.
        train: The records that hospitals hold. The only split that privacy is about.
        val: What the server holds: chooses threshold and round, and is the adversary's public side information.
        test: Used once, for the final figures.
        group: What ``Records.groups`` counts, for example ``lesion``.
        skipped: A line, with its path, for each record that was left out under ``data.on_bad_record=skip``.
        spacing: The size of a pixel or voxel in mm along each side; None where it is unknown or not the same for all.
        preparation: How an image came from its file to this form, for whoever gives the trained model another one.
        licence: Under which terms the images are published; None where nobody said so.
    """

    name: str
    task: str
    class_names: tuple[str, ...]
    train: Records
    val: Records
    test: Records
    group: str = "record"
    skipped: tuple[str, ...] = ()
    spacing: tuple[float, ...] | None = None
    preparation: Preparation | None = None
    licence: str | None = None
