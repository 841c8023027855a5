"""What a server makes of a round's answers: an update it can use, or a failure with its reason.

Nothing that a hospital sends is trusted. One value that is not finite would destroy the global model, one update of a
million times the length that clipping allows would replace it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from flwr.app import Message

from hbdp_fed.federation.codec import RoundReport, parse_failure, parse_reply
from hbdp_fed.federation.lengths import whole_norm
from hbdp_fed.federation.secure_sum import FixedPoint
from hbdp_fed.federation.simulated_grid import LOST, TIMED_OUT
from hbdp_fed.federation.wire import MessageError
from hbdp_fed.types import ModelUpdate, Weights

FailureKind = Literal[
    "exception", "refused", "timeout", "lost", "empty", "unusable", "not_finite", "wrong_shape", "wrong_dtype",
    "oversize", "duplicate",
]  # fmt: skip
"""Why an answer is not used: the hospital's app raised; it refused; it took too long; its process was lost; the answer
held no update, could not be read or contradicts the plan; the update is not finite, has other arrays or shapes, is not
float64, is longer than clipping allows; it came twice."""

Phase = Literal["enrol", "deal", "train", "release"]
"""The message of a round that was answered. All but ``train`` are those of secure aggregation."""


@dataclass(frozen=True)
class Failure:
    """An answer that is not used.

    Attributes:
        hospital: Whose.
        round: To which request.
        kind: Why.
        details: The same for people; a traceback where there is one.
        phase: To which of the round's messages.
    """

    hospital: str
    round: int
    kind: FailureKind
    details: str
    phase: Phase = "train"


@dataclass(frozen=True)
class Answer:
    """An answer that is used.

    Attributes:
        update: What the hospital sent.
        report: What it told besides.
    """

    update: ModelUpdate
    report: RoundReport


@dataclass(frozen=True)
class Expected:
    """What a hospital's answer has to be like.

    Attributes:
        round: The request's number.
        like: Weights with the names and shapes of the model that was sent.
        records: By hospital, how many it said it has before training: its weight in the mean goes by that.
        norms: By hospital, the longest update that its clipping, noise and learning rate allow. Of masked ones nobody
            knows how long they are.
        grid: What masked updates are numbers of; None where updates travel as they are.
    """

    round: int
    like: Weights
    records: Mapping[str, int]
    norms: Mapping[str, float]
    grid: FixedPoint | None = None


def examine(message: Message, hospital: str, expected: Expected) -> Answer | Failure:
    """The answer, or why it is not used.

    Args:
        message: The reply of the node that is known as ``hospital``.
        hospital: Its name in the roll-call.
        expected: What its answer has to be like.
    """
    number = expected.round
    failed = told_failure(message, hospital, number)
    if failed is not None:
        return failed
    if not any(len(arrays) for arrays in message.content.array_records.values()):
        return Failure(hospital, number, "empty", "the answer holds no update")
    try:
        update, report = parse_reply(message)
    except MessageError as error:
        return Failure(hospital, number, "unusable", f"the answer cannot be read: {error}")
    problem = _problem(update, report, hospital, expected)
    # Who does not say how many records it has has as many as it agreed to.
    update = replace(update, num_records=expected.records[hospital])
    return Answer(update, report) if problem is None else Failure(hospital, number, *problem)


def told_failure(message: Message, hospital: str, number: int) -> Failure | None:
    """What the message says went wrong: at the hospital, or on the way; None if it is an answer."""
    if message.has_error():
        kind = _ERRORS.get(message.error.code, "exception")
        return Failure(hospital, number, kind, message.error.reason or f"error code {message.error.code}")
    try:
        told = parse_failure(message)
    except MessageError as error:
        return Failure(hospital, number, "unusable", f"its report of a failure cannot be read: {error}")
    if told is not None:
        return Failure(hospital, number, "refused" if told[1] == "refused" else "exception", told[2])
    return None


def missing(hospital: str, number: int) -> Failure:
    """The failure of a hospital of which nothing was heard."""
    return Failure(hospital, number, "timeout", f"no answer in round {number} within the time allowed")


def duplicate(hospital: str, number: int) -> Failure:
    """The failure of an answer that came after the hospital's first one."""
    return Failure(hospital, number, "duplicate", f"another answer to round {number}; the first one counts")


def _problem(
    update: ModelUpdate, report: RoundReport, hospital: str, expected: Expected
) -> tuple[FailureKind, str] | None:
    if (update.hospital, update.round) != (hospital, expected.round):
        return "unusable", f"it says it is {update.hospital}'s to round {update.round}"
    if report.records is not None and report.records != expected.records[hospital]:
        return "unusable", f"it says {report.records} records, the plan says {expected.records[hospital]}"
    shapes = {name: tuple(value.shape) for name, value in expected.like.items()}
    found = {name: tuple(value.shape) for name, value in update.delta.items()}
    if found != shapes:
        wrong = sorted(name for name in {*shapes, *found} if found.get(name) != shapes.get(name))
        return "wrong_shape", f"{', '.join(wrong)}: other arrays or shapes than those of the model that was sent"
    dtype = torch.float64 if expected.grid is None else torch.int64
    for name, value in update.delta.items():
        if value.dtype != dtype:
            return "wrong_dtype", f"{name} is {value.dtype}, not {dtype}"
    if expected.grid is not None:
        return _off_the_grid(update, expected.grid)
    bad = [name for name, value in update.delta.items() if not bool(torch.isfinite(value).all())]
    if bad:
        return "not_finite", f"the update is not finite in {', '.join(bad)}"
    norm = whole_norm(update.delta)
    allowed = expected.norms[hospital]
    if norm > allowed:
        return "oversize", f"the update has norm {norm:.3g}; clipping, noise and learning rate allow {allowed:.3g}"
    return None


def _off_the_grid(update: ModelUpdate, grid: FixedPoint) -> tuple[FailureKind, str] | None:
    bad = [name for name, value in update.delta.items() if not bool(((value >= 0) & (value < grid.modulus)).all())]
    return ("unusable", f"{', '.join(bad)}: numbers that are not modulo 2^{grid.bits}") if bad else None


_ERRORS: Mapping[int, FailureKind] = {TIMED_OUT: "timeout", LOST: "lost"}
