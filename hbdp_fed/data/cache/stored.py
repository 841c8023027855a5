"""A whole data set as tensors and plain values, and back, bit for bit.

Fields are found by what they hold, not by their names, so that one that is added to the contract is kept, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hbdp_fed.data.contract import ImageDataset, Preparation, Records, Words
from hbdp_fed.strict_json import to_plain

_SPLITS = ("train", "val", "test")
_TENSOR, _WORDS, _MAPPING = "tensor", "words", "mapping"


def tensors_of(dataset: ImageDataset) -> dict[str, Tensor]:
    """All records' fields by ``<split>/<kind>/<field>``, and for a mapping ``/<name>`` after it. Words are letters."""
    return {f"{split}/{name}": tensor for split in _SPLITS for name, tensor in _fields_of(getattr(dataset, split))}


def facts_of(dataset: ImageDataset, *, root: Path) -> dict[str, Any]:
    """Everything else, as plain JSON values.

    Args:
        dataset: The data set.
        root: The folder that it was read from, which messages about left-out records name.
    """
    rest = {item.name: getattr(dataset, item.name) for item in fields(dataset) if item.name not in _SPLITS}
    return {"root": str(root), "fields": to_plain(rest), "tensors": list(tensors_of(dataset))}


def dataset_of(tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, root: Path) -> ImageDataset:
    """The inverse of :func:`tensors_of` and :func:`facts_of`; nothing is copied.

    Args:
        tensors: As they were given out.
        facts: Likewise.
        root: Where the same files lie now.

    Raises:
        KeyError, TypeError, ValueError: if they are not what was given out.
    """
    rest: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in facts["fields"].items()
    }
    if rest["preparation"] is not None:
        rest["preparation"] = Preparation(**rest["preparation"])
    rest["skipped"] = tuple(line.replace(facts["root"], str(root)) for line in rest["skipped"])
    of_split: dict[str, dict[str, Tensor]] = {split: {} for split in _SPLITS}
    for name in facts["tensors"]:  # in their own order, which a file does not keep
        split, _, inside = name.partition("/")
        of_split[split][inside] = tensors[name]
    rest |= {split: _records_of(inside) for split, inside in of_split.items()}
    return ImageDataset(**rest)


def _fields_of(records: Records) -> Iterator[tuple[str, Tensor]]:
    for item in fields(records):
        value = getattr(records, item.name)
        if isinstance(value, Tensor):
            yield f"{_TENSOR}/{item.name}", value
        elif isinstance(value, np.ndarray):
            yield f"{_WORDS}/{item.name}", _letters(value)
        elif isinstance(value, Mapping):
            for name, words in value.items():
                yield f"{_MAPPING}/{item.name}/{name}", _letters(words)
        elif value is not None:
            raise TypeError(f"records' {item.name} cannot be kept: {type(value).__name__}")


def _records_of(tensors: Mapping[str, Tensor]) -> Records:
    found: dict[str, Any] = {}
    for key, tensor in tensors.items():
        kind, name = key.split("/", 1)
        if kind == _TENSOR:
            found[name] = tensor
        elif kind == _WORDS:
            found[name] = _words(tensor)
        else:
            name, place = name.split("/", 1)
            found.setdefault(name, {})[place] = _words(tensor)
    return Records(**found)


def _letters(words: Words) -> Tensor:
    """int32 (N, length of the longest word): the code points, which is how NumPy keeps words."""
    if words.dtype.kind != "U":
        raise TypeError(f"words are {words.dtype}, not text")
    length = words.dtype.itemsize // np.dtype(np.int32).itemsize
    return torch.from_numpy(np.ascontiguousarray(words).view(np.int32).reshape(len(words), length))


def _words(letters: Tensor) -> Words:
    words: Words = letters.numpy().view(f"U{letters.shape[1]}")[:, 0]
    return words
