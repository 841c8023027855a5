"""The parts of a message, read without trusting whoever sent it.

Neither side may be harmed by what the other sends: nothing is unpickled, no memory is taken before it is known that the
bytes for it are there, and every part has the type and the size that it should have, or is a :class:`MessageError`.
"""

from __future__ import annotations

import math
import tokenize
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from torch import Tensor

from hbdp_fed.types import Weights

_NUMPY = "numpy.ndarray"
_DTYPES = {np.dtype(name) for name in ("float32", "float64", "int64")}
_MOST_ARRAYS = 10_000
_MOST_DIMS = 8
_LONGEST_NAME = 256
_LARGEST_WHOLE = 2**53
"""Whole numbers up to this are exact in every format that they are written in."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_UNREADABLE = (
    ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError, OverflowError, EOFError,
    tokenize.TokenError,
)  # fmt: skip
"""What reading the header of a damaged array raises; it is literals, of which no code is run."""


class MessageError(ValueError):
    """A message is not what the protocol says: a part is missing, or has another type, size or value."""


def to_arrays(weights: Weights) -> ArrayRecord:
    """Weights as Flower arrays, in their own precision and order."""
    return ArrayRecord({name: Array(value.detach().cpu().numpy()) for name, value in weights.items()})


def from_arrays(arrays: ArrayRecord) -> Weights:
    """The inverse of :func:`to_arrays`.

    Raises:
        MessageError: if there are too many, or one is no array of float32, float64 or int64 with all its numbers.
    """
    if len(arrays) > _MOST_ARRAYS:
        raise MessageError(f"{len(arrays)} arrays are more than {_MOST_ARRAYS}")
    return {_name(name): _tensor(name, array) for name, array in arrays.items()}


def _name(name: str) -> str:
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise MessageError(f"an array's name must be at most {_LONGEST_NAME} printable letters")
    return name


def _tensor(name: str, array: Array) -> Tensor:
    if array.stype != _NUMPY:
        raise MessageError(f"{name}: must be serialised as {_NUMPY}")
    stream = BytesIO(array.data)
    try:
        shape, by_columns, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
    except _UNREADABLE as error:
        raise MessageError(f"{name}: is no array: {type(error).__name__}") from error
    if dtype not in _DTYPES or len(shape) > _MOST_DIMS or min(shape, default=0) < 0:
        known = ", ".join(sorted(str(one) for one in _DTYPES))
        raise MessageError(f"{name}: must be an array of {known} with at most {_MOST_DIMS} dimensions")
    numbers, start = math.prod(shape), stream.tell()
    if numbers * dtype.itemsize != len(array.data) - start:
        raise MessageError(f"{name}: has {len(array.data) - start} bytes for {numbers} numbers of {dtype}")
    flat = np.frombuffer(array.data, dtype, numbers, start)
    # A copy, because the arrays are read-only views of the message's bytes.
    return torch.from_numpy(flat.reshape(shape, order="F" if by_columns else "C").copy(order="K"))


def config(content: RecordDict, name: str) -> Mapping[str, Any]:
    """A record of settings.

    Raises:
        MessageError: if there is none of that name.
    """
    found: Mapping[str, Any] = _record(content.config_records, name)
    return found


def metrics(content: RecordDict, name: str) -> Mapping[str, Any]:
    """Likewise a record of figures."""
    found: Mapping[str, Any] = _record(content.metric_records, name)
    return found


def arrays(content: RecordDict, name: str) -> Weights:
    """Likewise what a record of arrays holds."""
    return from_arrays(_record(content.array_records, name))


def _record(records: Mapping[str, Any], name: str) -> Any:
    if name not in records:
        raise MessageError(f"has no record '{name}'")
    return records[name]


def text(record: Mapping[str, Any], key: str, *, longest: int = _LONGEST_NAME) -> str:
    """A text without control characters other than line breaks and tabs.

    Raises:
        MessageError: if it is missing, none, longer or would do something to a terminal.
    """
    value = record.get(key)
    if not isinstance(value, str) or len(value) > longest:
        raise MessageError(f"{key}: must be a text of at most {longest} letters")
    if shown(value) != value:
        raise MessageError(f"{key}: holds control characters")
    return value


def shown(value: str) -> str:
    """The text with a replacement character for every control character, which could do something to a terminal."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in value)


def whole(record: Mapping[str, Any], key: str, *, lowest: int = 0) -> int:
    """A whole number from ``lowest`` to 2^53.

    Raises:
        MessageError: if it is missing or none.
    """
    value = record.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= _LARGEST_WHOLE:
        raise MessageError(f"{key}: must be a whole number from {lowest} to 2^53")
    return value


def number(record: Mapping[str, Any], key: str) -> float:
    """A number; NaN and infinities are for the reader to judge.

    Raises:
        MessageError: if it is missing or none.
    """
    value = record.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise MessageError(f"{key}: must be a number")
    return float(value)


def listed(record: Mapping[str, Any], key: str, kind: type) -> list[Any]:
    """A list of texts or whole numbers.

    Raises:
        MessageError: if it is missing or none.
    """
    value = record.get(key)
    if not isinstance(value, list) or not all(type(item) is kind for item in value) or len(value) > _MOST_ARRAYS:
        raise MessageError(f"{key}: must be a list of at most {_MOST_ARRAYS} {kind.__name__}")
    return list(value)
