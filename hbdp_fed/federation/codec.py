"""The messages: what a server asks of a hospital, what the hospital answers, and how both look on the wire."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from flwr.app import ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from pydantic import TypeAdapter

from hbdp_fed.errors import shown
from hbdp_fed.federation import wire
from hbdp_fed.federation.wire import MessageError, to_arrays
from hbdp_fed.privacy.site_policy import MAY_LEAVE
from hbdp_fed.types import ModelSpec, ModelUpdate, Weights

_ARRAYS, _CONFIG, _METRICS, _FAILURE, _CONTROL = "arrays", "config", "metrics", "failure", "control"
_LOST = "lost"
_COUNTS = ("records", "records_seen")
_UNTOLD = dict.fromkeys(("loss", "clipped_share", "noise_to_resolution", "seconds"), math.nan)
"""What a report holds where the hospital does not say."""

_LONGEST_ARCHITECTURE = 1_000_000
_LONGEST_DETAILS = 20_000
_MOST_HOSPITALS = 10_000


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
        tailored: Gives the weights that a malicious server hands to the hospital of a name in place of ``weights``,
            with the same names and shapes; None where all are handed the same. It never travels: each hospital
            receives an ordinary request.
    """

    round: int
    steps: int
    architecture: ModelSpec
    weights: Weights
    control: Control | None = None
    tailored: Callable[[str], Weights] | None = None

    def to(self, hospital: str) -> TrainRequest:
        """The request as this hospital receives it."""
        if self.tailored is None:
            return self
        return replace(self, weights=self.tailored(hospital), tailored=None)


@dataclass(frozen=True)
class RoundReport:
    """What a hospital tells about a round besides its update.

    Nearly none of this is covered by the differential privacy of the update: in a simulation it is the experimenter's
    view, and a real hospital keeps to itself whatever its own policy does not let out
    (:data:`~hbdp_fed.privacy.site_policy.MAY_LEAVE`).

    Attributes:
        hospital: Its name.
        round: The request's number.
        status: ``ok``.
        records: How many records the hospital holds; None where it does not say.
        records_seen: How many the round's Poisson batches held in all; None where it does not say.
        steps: Steps taken in this round.
        steps_spent: Steps taken so far, this round included.
        loss: Mean training loss; NaN when every batch was empty, or where it does not say.
        clipped_share: Share of records whose gradient was clipped; NaN without clipping, or where it does not say.
        noise_to_resolution: The smallest ratio of the noise to the spacing of the numbers that a step's clipped
            gradients were summed in; NaN without noise, or where it does not say. A function of the noisy sums, and of
            nothing else.
        seconds: The hospital's own computing time; NaN where it does not say.
        bytes: Size of the update as it travelled.
    """

    hospital: str
    round: int
    status: str
    records: int | None
    records_seen: int | None
    steps: int
    steps_spent: int
    loss: float
    clipped_share: float
    noise_to_resolution: float
    seconds: float
    bytes: int

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> RoundReport:
        """A report out of strict JSON, where null stands for a number that is none.

        Raises:
            pydantic.ValidationError: naming what is missing or of the wrong type.
        """
        told = {name: number for name, number in value.items() if number is not None}
        return TypeAdapter(cls).validate_python({**dict.fromkeys(_COUNTS), **_UNTOLD, **told})


def messages_to(request: TrainRequest, nodes: Mapping[str, int]) -> Iterator[Message]:
    """The request as a message to each of these hospitals' nodes, in their order.

    Tailored weights are made when a message is taken, so that those of all hospitals are never held at once.
    """
    if request.tailored is None:
        yield from request_messages(request, nodes.values())
        return
    for hospital, node_id in nodes.items():
        yield from request_messages(request.to(hospital), [node_id])


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
    """The inverse of :func:`request_messages`, at the hospital.

    Raises:
        MessageError: if it is not what a server sends.
    """
    content = message.content
    config = wire.config(content, _CONFIG)
    weights = wire.arrays(content, _ARRAYS)
    _check_weights(weights, torch.float32)
    return TrainRequest(
        round=wire.whole(config, "round"),
        # How few or many are refused is the ledger's to say.
        steps=wire.whole(config, "steps", lowest=-(2**53)),
        architecture=_architecture(wire.text(config, "architecture", longest=_LONGEST_ARCHITECTURE)),
        weights=weights,
        control=_parse_control(content),
    )


def _architecture(text: str) -> ModelSpec:
    try:
        spec = ModelSpec.from_json(text)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MessageError(f"architecture: is none: {type(error).__name__}") from error
    name: object = spec.name
    if not isinstance(name, str) or not isinstance(spec.args, dict):
        raise MessageError("architecture: must have a name and a mapping of arguments")
    return spec


def _check_weights(weights: Weights, dtype: torch.dtype) -> None:
    for name, value in weights.items():
        if value.dtype != dtype or not bool(torch.isfinite(value).all()):
            raise MessageError(f"{name}: must be finite numbers of {dtype}")


def _parse_control(content: RecordDict) -> Control | None:
    if _CONTROL not in content.array_records:
        return None
    lost = wire.config(content, _LOST)
    names = wire.texts(lost, "hospitals", most=_MOST_HOSPITALS)
    rounds = wire.wholes(lost, "rounds", most=_MOST_HOSPITALS)
    if len(names) != len(rounds):
        raise MessageError("lost: must have a round for every hospital")
    c = wire.arrays(content, _CONTROL)
    _check_weights(c, torch.float64)
    return Control(c=c, lost=dict(zip(names, rounds, strict=True)))


def identity_content(*, hospital: str) -> RecordDict:
    """The answer to a roll-call: the hospital's name."""
    return RecordDict({_CONFIG: ConfigRecord({"hospital": hospital})})


def parse_identity(message: Message) -> str:
    """The inverse of :func:`identity_content`, at the server.

    Raises:
        MessageError: if there is no name in it.
    """
    return wire.text(wire.config(message.content, _CONFIG), "hospital")


def reply_content(update: ModelUpdate, report: RoundReport, *, withheld: Collection[str] = ()) -> RecordDict:
    """A hospital's answer to a request; the report's ``bytes`` are counted here.

    Args:
        update: What the server asked for.
        report: What goes with it.
        withheld: Figures of the report that stay at the hospital, of those in
            :data:`~hbdp_fed.privacy.site_policy.MAY_LEAVE`.
    """
    arrays = to_arrays(update.delta)
    figures = {name: getattr(report, name) for name in (*MAY_LEAVE, "steps", "steps_spent")}
    told = {name: value for name, value in figures.items() if name not in withheld and value is not None}
    return RecordDict(
        {
            _ARRAYS: arrays,
            _CONFIG: ConfigRecord({"hospital": update.hospital, "round": update.round, "status": report.status}),
            _METRICS: MetricRecord({**told, "bytes": arrays.count_bytes()}),
        }
    )


def parse_reply(message: Message) -> tuple[ModelUpdate, RoundReport]:
    """The inverse of :func:`reply_content`, at the server. Whether it fits the plan is not looked at here.

    Raises:
        MessageError: if a part of the answer is missing or is not of its kind.
    """
    config, metrics = wire.config(message.content, _CONFIG), wire.metrics(message.content, _METRICS)
    hospital, number = wire.text(config, "hospital"), wire.whole(config, "round")
    delta = wire.arrays(message.content, _ARRAYS)
    records = wire.whole(metrics, "records") if "records" in metrics else None
    update = ModelUpdate(hospital=hospital, round=number, delta=delta, num_records=records or 0)
    report = RoundReport(
        hospital=hospital,
        round=number,
        status=wire.text(config, "status"),
        records=records,
        records_seen=wire.whole(metrics, "records_seen") if "records_seen" in metrics else None,
        steps=wire.whole(metrics, "steps"),
        steps_spent=wire.whole(metrics, "steps_spent"),
        loss=wire.number({**_UNTOLD, **metrics}, "loss"),
        clipped_share=wire.number({**_UNTOLD, **metrics}, "clipped_share"),
        noise_to_resolution=wire.number({**_UNTOLD, **metrics}, "noise_to_resolution"),
        seconds=wire.number({**_UNTOLD, **metrics}, "seconds"),
        bytes=wire.whole(metrics, "bytes"),
    )
    return update, report


def failure_content(*, hospital: str, kind: str, details: str) -> RecordDict:
    """What a hospital answers when it refuses or its app raised: its name, which of both, and the traceback as text."""
    return RecordDict({_FAILURE: ConfigRecord({"hospital": hospital, "kind": kind, "details": details})})


def parse_failure(message: Message) -> tuple[str, str, str] | None:
    """(hospital, kind, traceback) if the message is a hospital's report of its own failure, else None.

    Of the traceback the last 20,000 letters are taken, and control characters are not.

    Raises:
        MessageError: if the report is none.
    """
    if _FAILURE not in message.content.config_records:
        return None
    record = wire.config(message.content, _FAILURE)
    details = record.get("details")
    if not isinstance(details, str):
        raise MessageError("details: must be a text")
    return wire.text(record, "hospital"), wire.text(record, "kind"), shown(details[-_LONGEST_DETAILS:])
