"""Properties that records have or have not: a class, or a value of something else that is known of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.data.contract import ImageDataset, Records
from hbdp_fed.errors import SettingError, unknown_choice


@dataclass(frozen=True)
class RecordProperty:
    """One property.

    Attributes:
        words: ``label=pneumonia`` or ``sex=female``.
        index: The class; None for an attribute.
        column: The attribute's name; None for a class.
        value: The attribute's value; None for a class.
    """

    words: str
    index: int | None = None
    column: str | None = None
    value: str | None = None

    def of(self, records: Records) -> Tensor:
        """Which records have it, bool (N,). Of a segmentation, those with a pixel of the class."""
        if self.column is not None:
            return torch.from_numpy(records.attributes[self.column] == self.value)
        return has_class(records.labels, int(self.index or 0))


def has_class(labels: Tensor, index: int) -> Tensor:
    """Which records have a class, bool (N,).

    Args:
        labels: As :class:`Records` has them: int64 (N,), a class each; (N, K) of findings that are there or not; or
            (N, *spatial), a class a pixel or voxel.
        index: The class.
    """
    if labels.dim() == 1:
        return labels == index
    if labels.dim() == 2:
        return labels[:, index] == 1
    return (labels == index).flatten(start_dim=1).any(dim=1)


def property_called(wanted: str | None, dataset: ImageDataset) -> RecordProperty:
    """The property that a setting names.

    Args:
        wanted: A class by its name, ``COLUMN=VALUE`` of an attribute, or an attribute's name alone for its most
            frequent value among the public records. None: class 1 of a binary task or a segmentation, and of any other
            task the most frequent class of the public records.
        dataset: Whose classes and attributes.

    Raises:
        SettingError: if there is no such class, attribute or value.
    """
    public, names = dataset.val, dataset.class_names
    if wanted is None:
        index = 1 if dataset.task in ("binary", "segmentation") else _most_frequent(public.labels, len(names))
        return _class(names, index)
    if wanted in names:
        return _class(names, names.index(wanted))
    column, separator, value = wanted.partition("=")
    if column not in public.attributes:
        raise unknown_choice(_KEY, wanted, (*names, *public.attributes))
    values = [str(found) for found in public.attributes[column]]
    if separator and value not in values:
        raise unknown_choice(_KEY, wanted, [f"{column}={found}" for found in sorted(set(values))])
    chosen = value if separator else max(sorted(set(values)), key=values.count)
    return RecordProperty(words=f"{column}={chosen}", column=column, value=chosen)


def check_property(found: RecordProperty, records: Records) -> None:
    """Refuse a property that none of the records has, or all of them have.

    Raises:
        SettingError: then.
    """
    has = found.of(records)
    if not bool(has.any()) or bool(has.all()):
        which = "all of the public records have" if bool(has.any()) else "none of the public records has"
        raise SettingError(_KEY, f"must be one that some public records have and some have not; {which} {found.words}")


_KEY = "adversary.property"


def _class(names: tuple[str, ...], index: int) -> RecordProperty:
    return RecordProperty(words=f"label={names[index]}", index=index)


def _most_frequent(labels: Tensor, classes: int) -> int:
    """Of equally frequent ones the first."""
    counts = [int(has_class(labels, index).sum()) for index in range(classes)]
    return counts.index(max(counts))
