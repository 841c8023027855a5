"""The messages: what a server asks of a hospital, what the hospital answers, and how both look on the wire."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict

from hbdp_fed.types import ModelSpec, ModelUpdate, Weights

_ARRAYS, _CONFIG, _METRICS, _FAILURE, _CONTROL = "arrays", "config", "metrics", "failure", "control"
_LOST = "lost"


@dataclass(frozen=True)
class Control:
    """What SCAFFOLD's server sends along with the weights (see :mod:`hbdp_fed.federation.control`).

    Attributes:
        c: The mean of the hospitals' control variates, float64 by parameter name.
        lost: Hospitals whose last answer was not used, with its round.
    """

    c: Weights
    lost: Mapping[str, int]


@dataclass(frozen=True)
class TrainRequest:
    """One round's task for a hospital. A malicious server's probe is a request like any other.

    Attributes:
        round: Identifies the request; a hospital answers each number once.
        steps: How many of its planned DP-SGD steps the hospital shall take.
        architecture: The model to train.
        weights: The weights to start from, float32.
        control: For corrected steps; None for plain ones, as in every probe.
    """

    round: int
    steps: int
    architecture: ModelSpec
    weights: Weights
    control: Control | None = None


@dataclass(frozen=True)
class RoundReport:
    """What a hospital tells about a round besides its update.

    Nearly none of this is covered by the differential privacy of the update: in a simulation it is the experimenter's
    view.

    Attributes:
        hospital: Its name.
        round: The request's number.
        status: ``ok``.
        records: How many records the hospital holds.
        records_seen: How many the round's Poisson batches held in all.
        steps: Steps taken in this round.
        steps_spent: Steps taken so far, this round included.
        loss: Mean training loss; NaN when every batch was empty.
        clipped_share: Share of records whose gradient was clipped; NaN without clipping.
        noise_to_resolution: The smallest ratio of the noise to the spacing of the numbers that a step's clipped
            gradients were summed in; NaN without noise. A function of the noisy sums, and of nothing else.
        seconds: The hospital's own computing time.
        bytes: Size of the update as it travelled.
    """

    hospital: str
    round: int
    status: str
    records: int
    records_seen: int
    steps: int
    steps_spent: int
    loss: float
    clipped_share: float
    noise_to_resolution: float
    seconds: float
    bytes: int


def to_arrays(weights: Weights) -> ArrayRecord:
    """Weights as Flower arrays, in their own precision and order."""
    return ArrayRecord({name: Array(value.detach().cpu().numpy()) for name, value in weights.items()})


def from_arrays(arrays: ArrayRecord) -> Weights:
    """The inverse of :func:`to_arrays`."""
    # A copy, because the arrays are read-only views of the message's bytes.
    return {name: torch.from_numpy(np.array(array.numpy())) for name, array in arrays.items()}


def request_messages(request: TrainRequest, node_ids: Iterable[int]) -> Iterator[Message]:
    """The request as a message to each of these nodes. All share one content, which need not be copied for each."""
    content = RecordDict(
        {
            _ARRAYS: to_arrays({name: value.float() for name, value in request.weights.items()}),
            _CONFIG: ConfigRecord(
                {"round": request.round, "steps": request.steps, "architecture": request.architecture.to_json()}
            ),
        }
    )
    if request.control is not None:
        lost = request.control.lost
        content[_CONTROL] = to_arrays(request.control.c)
        content[_LOST] = ConfigRecord({"hospitals": list(lost), "rounds": list(lost.values())})
    for node_id in node_ids:
        yield Message(content, node_id, MessageType.TRAIN, group_id=str(request.round))


def parse_request(message: Message) -> TrainRequest:
    """The inverse of :func:`request_messages`, at the hospital."""
    config = message.content.config_records[_CONFIG]
    return TrainRequest(
        round=int(config["round"]),  # type: ignore[arg-type]
        steps=int(config["steps"]),  # type: ignore[arg-type]
        architecture=ModelSpec.from_json(str(config["architecture"])),
        weights=from_arrays(message.content.array_records[_ARRAYS]),
        control=_parse_control(message.content),
    )


def _parse_control(content: RecordDict) -> Control | None:
    if _CONTROL not in content.array_records:
        return None
    lost = content.config_records[_LOST]
    names: list[str] = list(lost["hospitals"])  # type: ignore[arg-type]
    rounds: list[int] = list(lost["rounds"])  # type: ignore[arg-type]
    return Control(c=from_arrays(content.array_records[_CONTROL]), lost=dict(zip(names, rounds, strict=True)))


def identity_content(*, hospital: str) -> RecordDict:
    """The answer to a roll-call: the hospital's name."""
    return RecordDict({_CONFIG: ConfigRecord({"hospital": hospital})})


def parse_identity(message: Message) -> str:
    """The inverse of :func:`identity_content`, at the server."""
    return str(message.content.config_records[_CONFIG]["hospital"])


def reply_content(update: ModelUpdate, report: RoundReport) -> RecordDict:
    """A hospital's answer to a request; the report's ``bytes`` are counted here."""
    arrays = to_arrays(update.delta)
    return RecordDict(
        {
            _ARRAYS: arrays,
            _CONFIG: ConfigRecord({"hospital": update.hospital, "round": update.round, "status": report.status}),
            _METRICS: MetricRecord(
                {
                    "records": report.records,
                    "records_seen": report.records_seen,
                    "steps": report.steps,
                    "steps_spent": report.steps_spent,
                    "loss": report.loss,
                    "clipped_share": report.clipped_share,
                    "noise_to_resolution": report.noise_to_resolution,
                    "seconds": report.seconds,
                    "bytes": arrays.count_bytes(),
                }
            ),
        }
    )


def parse_reply(message: Message) -> tuple[ModelUpdate, RoundReport]:
    """The inverse of :func:`reply_content`, at the server.

    Raises:
        KeyError: if a part of the answer is missing.
        ValueError: if a part of it cannot be read.
    """
    config, metrics = message.content.config_records[_CONFIG], message.content.metric_records[_METRICS]
    hospital, number = str(config["hospital"]), int(config["round"])  # type: ignore[arg-type]
    delta = from_arrays(message.content.array_records[_ARRAYS])

    def figure(name: str) -> float:
        value = metrics[name]
        return float(value) if isinstance(value, int | float) else math.nan

    update = ModelUpdate(hospital=hospital, round=number, delta=delta, num_records=int(figure("records")))
    report = RoundReport(
        hospital=hospital,
        round=number,
        status=str(config["status"]),
        records=int(figure("records")),
        records_seen=int(figure("records_seen")),
        steps=int(figure("steps")),
        steps_spent=int(figure("steps_spent")),
        loss=figure("loss"),
        clipped_share=figure("clipped_share"),
        noise_to_resolution=figure("noise_to_resolution"),
        seconds=figure("seconds"),
        bytes=int(figure("bytes")),
    )
    return update, report


def failure_content(*, hospital: str, kind: str, details: str) -> RecordDict:
    """What a hospital answers when it refuses or its app raised: its name, which of both, and the traceback as text."""
    return RecordDict({_FAILURE: ConfigRecord({"hospital": hospital, "kind": kind, "details": details})})


def parse_failure(message: Message) -> tuple[str, str, str] | None:
    """(hospital, kind, traceback) if the message is a hospital's report of its own failure, else None."""
    record = message.content.config_records.get(_FAILURE)
    return None if record is None else (str(record["hospital"]), str(record["kind"]), str(record["details"]))
