"""What can be made to go wrong in a simulation, to see that a federation survives it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict
from numpy.typing import NDArray

DUPLICATE = "duplicate"
"""The network's doing, not the hospital's: the answer arrives twice."""

_ARRAYS = "arrays"

PHASES = ("enrol", "deal", "train", "release")
"""The messages of a round to which a hospital can misbehave: all but ``train`` are those of secure aggregation."""

ANY_PHASE = ("exception", "timeout", "killed", "empty")
"""The faults of answers that hold no arrays."""

_FOREVER_S = 1e6


@dataclass(frozen=True)
class Fault:
    """One hospital's misbehaviour in one round.

    Attributes:
        hospital: Its name.
        round: In which round or probe.
        kind: A key of :data:`FAULTS`.
        phase: One of :data:`PHASES`; all but ``train`` take :data:`ANY_PHASE` alone.
    """

    hospital: str
    round: int
    kind: str
    phase: str = "train"


def _raises(content: RecordDict) -> RecordDict:
    raise RuntimeError("a fault that was asked for: the hospital's app raises")


def _hangs(content: RecordDict) -> RecordDict:
    time.sleep(_FOREVER_S)
    return content


def _dies(content: RecordDict) -> RecordDict:
    os.kill(os.getpid(), signal.SIGKILL)
    return content


def _empty(content: RecordDict) -> RecordDict:
    return _with(content, ArrayRecord()) if _ARRAYS in content else RecordDict()


def _each(change: Callable[[NDArray[np.float64]], NDArray[np.generic]]) -> Callable[[RecordDict], RecordDict]:
    """Every array changed."""

    def changed(content: RecordDict) -> RecordDict:
        arrays = content.array_records[_ARRAYS]
        return _with(
            content, ArrayRecord({name: Array(change(array.numpy().copy())) for name, array in arrays.items()})
        )

    return changed


def _with(content: RecordDict, arrays: ArrayRecord) -> RecordDict:
    return RecordDict({name: arrays if name == _ARRAYS else record for name, record in content.items()})


def _first_is(value: float) -> Callable[[NDArray[np.float64]], NDArray[np.generic]]:
    def change(array: NDArray[np.float64]) -> NDArray[np.generic]:
        array.reshape(-1)[0] = value
        return array

    return change


FAULTS: Mapping[str, Callable[[RecordDict], RecordDict]] = {
    "exception": _raises,
    "timeout": _hangs,
    "killed": _dies,
    "not_a_number": _each(_first_is(float("nan"))),
    "infinite": _each(_first_is(float("inf"))),
    "wrong_shape": _each(lambda array: array[None]),
    "wrong_dtype": _each(lambda array: array.astype(np.float32)),
    "oversize": _each(lambda array: array * 1e12 + 1e12),
    "empty": _empty,
    DUPLICATE: lambda content: content,
}
"""By name, what becomes of a hospital's answer."""

NEED_PROCESSES = ("timeout", "killed")
"""Faults that would stop the one process of the engine ``inprocess``."""


def misbehave(
    content: RecordDict, faults: tuple[Fault, ...], *, hospital: str, round: int, phase: str = "train"
) -> RecordDict:
    """What is sent in place of an honest answer, where a fault is asked for."""
    for fault in faults:
        if (fault.hospital, fault.round, fault.phase) == (hospital, round, phase):
            content = FAULTS[fault.kind](content)
    return content
