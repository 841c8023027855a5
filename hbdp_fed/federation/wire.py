"""The parts of a message, read without trusting whoever sent it.

Neither side may be harmed by what the other sends: nothing is unpickled, no memory is taken before it is known that the
bytes for it are there, and every part has the type and the size that it should have, or is a :class:`MessageError`.
"""

from __future__ import annotations

import math
import tokenize
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from torch import Tensor

from hbdp_fed.errors import shown
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
    return _text(record.get(key), key, longest)


def texts(record: Mapping[str, Any], key: str, *, most: int, longest: int = _LONGEST_NAME) -> list[str]:
    """A list of at most ``most`` of them.

    Raises:
        MessageError: if it is missing, none or longer, or one of them is no such text.
    """
    return [_text(value, key, longest) for value in _listed(record, key, str, most)]


def _text(value: object, key: str, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise MessageError(f"{key}: must be a text of at most {longest} letters")
    if shown(value) != value:
        raise MessageError(f"{key}: holds control characters")
    return value


def whole(record: Mapping[str, Any], key: str, *, lowest: int = 0, highest: int = _LARGEST_WHOLE) -> int:
    """A whole number from ``lowest`` to ``highest``, at most 2^53.

    Raises:
        MessageError: if it is missing or none.
    """
    return _whole(record.get(key), key, lowest, highest)


def wholes(
    record: Mapping[str, Any], key: str, *, most: int, lowest: int = 0, highest: int = _LARGEST_WHOLE
) -> list[int]:
    """A list of at most ``most`` of them.

    Raises:
        MessageError: if it is missing, none or longer, or one of them is no such number.
    """
    return [_whole(value, key, lowest, highest) for value in _listed(record, key, int, most)]


def _whole(value: object, key: str, lowest: int, highest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        told = "2^53" if highest == _LARGEST_WHOLE else highest
        raise MessageError(f"{key}: must be a whole number from {lowest} to {told}")
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


def flags(record: Mapping[str, Any], key: str, *, most: int) -> list[bool]:
    """A list of at most ``most`` that are true or false.

    Raises:
        MessageError: if it is missing, none or longer.
    """
    return _listed(record, key, bool, most)


def blob(record: Mapping[str, Any], key: str, *, size: int) -> bytes:
    """So many bytes.

    Raises:
        MessageError: if they are missing, none, or not as many.
    """
    value = record.get(key)
    if not isinstance(value, bytes) or len(value) != size:
        raise MessageError(f"{key}: must be {size} bytes")
    return value


def blobs(record: Mapping[str, Any], key: str, *, most: int, sizes: Sequence[int]) -> list[bytes]:
    """A list of at most ``most`` byte strings, each of one of these sizes.

    Raises:
        MessageError: if it is missing, none or longer, or one of them is of another size.
    """
    values: list[bytes] = _listed(record, key, bytes, most)
    if any(len(value) not in sizes for value in values):
        raise MessageError(f"{key}: must have {' or '.join(map(str, sizes))} bytes each")
    return values


_MANY = {str: "texts", int: "whole numbers", bool: "truth values", bytes: "byte strings"}


def _listed(record: Mapping[str, Any], key: str, kind: type, most: int) -> list[Any]:
    value = record.get(key)
    # Not isinstance: True is no whole number here.
    if not isinstance(value, list) or len(value) > most or not all(type(item) is kind for item in value):
        raise MessageError(f"{key}: must be a list of at most {most} {_MANY[kind]}")
    return list(value)
