"""The messages of a secure sum: what the server asks in each of its four phases, and how both sides write it down.

``enrol``: the hospitals tell their public keys. ``deal``: they get everybody's, and answer with shares of their
secrets, each sealed for the hospital that will hold it. ``train``: the request of every round, with the shares from the
others; the update comes back masked. ``release``: they are told whose updates came, and answer with what takes the
masks off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from hbdp_fed.federation.secure_sum import Enrolment, FixedPoint, ReleasedShares, Share
from hbdp_fed.federation.secure_sum.sealing import value_from_bytes, value_to_bytes

ENROL, DEAL, RELEASE, TRAIN = "secure_enrol", "secure_deal", "secure_release", "secure"
"""The actions of Flower's message types: the first three are queries, the last is training."""

QUERY_TYPES = {action: f"{MessageType.QUERY}.{action}" for action in (ENROL, DEAL, RELEASE)}
TRAIN_TYPE = f"{MessageType.TRAIN}.{TRAIN}"

_CONFIG, _SUM = "config", "secure_sum"
_KEY_BYTES = 32


@dataclass(frozen=True)
class PublicKeys:
    """What a hospital tells everybody.

    Attributes:
        masks: Its X25519 key of the pairwise masks.
        sealing: That of the shares that are sent to it.
    """

    masks: bytes
    sealing: bytes


@dataclass(frozen=True)
class MaskRequest:
    """What a hospital needs besides the request of training.

    Attributes:
        sealed: By hospital whose shares came to the server, in the enrolment's order, those for the recipient; of the
            recipient itself, nothing.
        weight: The hospital's share of the mean.
        grid: What the weighted update is rounded to.
    """

    sealed: Mapping[str, bytes]
    weight: float
    grid: FixedPoint


def number_content(number: int) -> RecordDict:
    """A request that says nothing but its round."""
    return RecordDict({_CONFIG: ConfigRecord({"round": number})})


def parse_number(message: Message) -> int:
    """The round that a message is about."""
    return int(_config(message)["round"])  # type: ignore[arg-type]


def keys_content(hospital: str, number: int, keys: PublicKeys) -> RecordDict:
    """A hospital's answer to ``enrol``."""
    return _from(hospital, number, {"masks": keys.masks, "sealing": keys.sealing})


def parse_keys(message: Message, hospital: str, number: int) -> PublicKeys:
    """The inverse of :func:`keys_content`.

    Raises:
        ValueError: if it is no answer of that hospital in that round, or holds no keys.
        KeyError: if a part is missing.
        TypeError: if a part is of another type.
    """
    config = _said_by(message, hospital, number)
    keys = PublicKeys(masks=_bytes(config["masks"]), sealing=_bytes(config["sealing"]))
    if {len(keys.masks), len(keys.sealing)} != {_KEY_BYTES}:
        raise ValueError(f"its keys do not have {_KEY_BYTES} bytes")
    return keys


def deal_content(enrolment: Enrolment, sealing_keys: Sequence[bytes]) -> RecordDict:
    """The request of ``deal``, the same for everybody."""
    return RecordDict(
        {
            _CONFIG: ConfigRecord(
                {
                    "round": enrolment.round,
                    "threshold": enrolment.threshold,
                    "hospitals": list(enrolment.hospitals),
                    "masks": list(enrolment.public_keys),
                    "sealing": list(sealing_keys),
                }
            )
        }
    )


def parse_deal(record: ConfigRecord) -> tuple[Enrolment, tuple[bytes, ...]]:
    """The inverse of :func:`deal_content`, from its one record: the enrolment and the hospitals' sealing keys."""
    enrolment = Enrolment(
        round=int(record["round"]),  # type: ignore[arg-type]
        hospitals=tuple(map(str, _list(record["hospitals"]))),
        public_keys=tuple(map(_bytes, _list(record["masks"]))),
        threshold=int(record["threshold"]),  # type: ignore[arg-type]
    )
    return enrolment, tuple(map(_bytes, _list(record["sealing"])))


def deal_record(message: Message) -> ConfigRecord:
    """The record of a request of ``deal``."""
    return _config(message)


def dealt_content(hospital: str, number: int, sealed: Mapping[str, bytes]) -> RecordDict:
    """A hospital's answer to ``deal``: by recipient, what is sealed for it."""
    return _from(hospital, number, {"recipients": list(sealed), "sealed": list(sealed.values())})


def parse_dealt(
    message: Message, hospital: str, number: int, *, recipients: Sequence[str], size: int
) -> Mapping[str, bytes]:
    """The inverse of :func:`dealt_content`.

    Args:
        message: The answer.
        hospital: Whose it is.
        number: The round.
        recipients: Whom it has to hold something for, and nobody else.
        size: The length of each sealed message.

    Raises:
        ValueError: if it does not; further as :func:`parse_keys`.
    """
    config = _said_by(message, hospital, number)
    names, texts = map(str, _list(config["recipients"])), map(_bytes, _list(config["sealed"]))
    sealed = dict(zip(names, texts, strict=True))
    if set(sealed) != set(recipients):
        raise ValueError("it dealt its shares to others than those who enrolled")
    if any(len(text) != size for text in sealed.values()):
        raise ValueError(f"its sealed shares do not have {size} bytes")
    return sealed


def add_mask_request(content: RecordDict, request: MaskRequest) -> RecordDict:
    """The request of training with what masking needs besides; the arrays are shared, not copied."""
    record = ConfigRecord(
        {
            "dealers": list(request.sealed),
            "sealed": list(request.sealed.values()),
            "weight": request.weight,
            "bound": request.grid.bound,
            "summands": request.grid.summands,
            "bits": request.grid.bits,
        }
    )
    return RecordDict({**content, _SUM: record})


def parse_mask_request(message: Message) -> MaskRequest:
    """The inverse of :func:`add_mask_request`."""
    config = message.content.config_records[_SUM]
    grid = FixedPoint(
        bound=float(config["bound"]),  # type: ignore[arg-type]
        summands=int(config["summands"]),  # type: ignore[arg-type]
        bits=int(config["bits"]),  # type: ignore[arg-type]
    )
    names, texts = map(str, _list(config["dealers"])), map(_bytes, _list(config["sealed"]))
    return MaskRequest(
        sealed=dict(zip(names, texts, strict=True)),
        weight=float(config["weight"]),  # type: ignore[arg-type]
        grid=grid,
    )


def survivors_content(number: int, survivors: Sequence[str]) -> RecordDict:
    """The request of ``release``: whose updates came."""
    return RecordDict({_CONFIG: ConfigRecord({"round": number, "survivors": list(survivors)})})


def parse_survivors(message: Message) -> tuple[int, tuple[str, ...]]:
    """The inverse of :func:`survivors_content`: the round, and whose updates came."""
    return parse_number(message), tuple(map(str, _list(_config(message)["survivors"])))


def released_content(number: int, released: ReleasedShares) -> RecordDict:
    """A hospital's answer to ``release``."""
    shares = {**released.self_seed, **released.private_key}
    return _from(
        released.hospital,
        number,
        {
            "owners": list(shares),
            "in_sum": [owner in released.self_seed for owner in shares],
            "places": [share.x for share in shares.values()],
            "values": [value_to_bytes(share.y) for share in shares.values()],
        },
    )


def parse_released(
    message: Message, hospital: str, number: int, *, survivors: Sequence[str], dropped: Sequence[str]
) -> ReleasedShares:
    """The inverse of :func:`released_content`.

    Args:
        message: The answer.
        hospital: Whose it is.
        number: The round.
        survivors: Of whose own masks it has to tell.
        dropped: Of whose pairwise masks.

    Raises:
        ValueError: if it tells of others; further as :func:`parse_keys`.
    """
    config = _said_by(message, hospital, number)
    own: dict[str, Share] = {}
    pairwise: dict[str, Share] = {}
    parts = (_list(config[name]) for name in ("owners", "in_sum", "places", "values"))
    for owner, in_sum, place, value in zip(*parts, strict=True):
        share = Share(x=int(place), y=value_from_bytes(_bytes(value)))
        (own if in_sum else pairwise)[str(owner)] = share
    if set(own) != set(survivors) or set(pairwise) != set(dropped):
        raise ValueError("its shares are for another list of survivors")
    return ReleasedShares(hospital=hospital, self_seed=own, private_key=pairwise)


def _config(message: Message) -> ConfigRecord:
    return message.content.config_records[_CONFIG]


def _from(hospital: str, number: int, told: Mapping[str, object]) -> RecordDict:
    record = ConfigRecord({"hospital": hospital, "round": number, **told})  # type: ignore[dict-item]
    return RecordDict({_CONFIG: record})


def _said_by(message: Message, hospital: str, number: int) -> ConfigRecord:
    config = _config(message)
    if (config["hospital"], config["round"]) != (hospital, number):
        raise ValueError(f"it says it is {config['hospital']!r} to round {config['round']!r}")
    return config


def _list(value: object) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"a list was expected, not {type(value).__name__}")
    return value


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"bytes were expected, not {type(value).__name__}")
    return value
