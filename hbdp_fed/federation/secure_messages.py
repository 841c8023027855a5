"""The messages of a secure sum: what the server asks in each of its four phases, and how both sides write it down.

``enrol``: the hospitals tell their public keys. ``deal``: they get everybody's, and answer with shares of their
secrets, each sealed for the hospital that will hold it. ``train``: the request of every round, with the shares from the
others; the update comes back masked. ``release``: they are told whose updates came, and answer with what takes the
masks off.

Neither side trusts the other: whatever is read is of the right type, has at most as many parts as there are hospitals,
and keys, shares and what is sealed have their one length, or it is a
:class:`~hbdp_fed.federation.wire.MessageError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from hbdp_fed.federation import wire
from hbdp_fed.federation.secure_sum import Enrolment, FixedPoint, ReleasedShares, Share, is_public_key
from hbdp_fed.federation.secure_sum.sealing import SEALED_BYTES, VALUE_BYTES, value_from_bytes, value_to_bytes
from hbdp_fed.federation.wire import MessageError

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
    """The round that a message is about.

    Raises:
        MessageError: if it tells none.
    """
    return wire.whole(_config(message), "round")


def keys_content(hospital: str, number: int, keys: PublicKeys) -> RecordDict:
    """A hospital's answer to ``enrol``."""
    return _from(hospital, number, {"masks": keys.masks, "sealing": keys.sealing})


def parse_keys(message: Message, hospital: str, number: int) -> PublicKeys:
    """The inverse of :func:`keys_content`.

    Raises:
        MessageError: if it is no answer of that hospital in that round, or holds no keys.
    """
    config = _said_by(message, hospital, number)
    masks, sealing = (_all_keys([wire.blob(config, key, size=_KEY_BYTES)], key)[0] for key in ("masks", "sealing"))
    return PublicKeys(masks=masks, sealing=sealing)


def deal_content(enrolment: Enrolment, sealing_keys: Sequence[bytes], *, name: str = _CONFIG) -> RecordDict:
    """The request of ``deal``, the same for everybody; under another name, what a hospital keeps of it."""
    return RecordDict(
        {
            name: ConfigRecord(
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


def parse_deal(content: RecordDict, *, most: int, name: str = _CONFIG) -> tuple[Enrolment, tuple[bytes, ...]]:
    """The inverse of :func:`deal_content`: the enrolment and the hospitals' sealing keys.

    Args:
        content: The request's, or what holds what was kept of it.
        most: How many hospitals there are.
        name: The record's.

    Raises:
        MessageError: if it is no list of hospitals with their keys, or the threshold is none of theirs.
    """
    record = wire.config(content, name)
    hospitals = wire.texts(record, "hospitals", most=most)
    masks, sealing = _public_keys(record, "masks", hospitals), _public_keys(record, "sealing", hospitals)
    number, threshold = wire.whole(record, "round"), wire.whole(record, "threshold")
    try:
        return Enrolment(number, tuple(hospitals), masks, threshold), sealing
    except ValueError as error:
        raise MessageError(f"hospitals: {error}") from error


def dealt_content(hospital: str, number: int, sealed: Mapping[str, bytes]) -> RecordDict:
    """A hospital's answer to ``deal``: by recipient, what is sealed for it."""
    return _from(hospital, number, {"recipients": list(sealed), "sealed": list(sealed.values())})


def parse_dealt(message: Message, hospital: str, number: int, *, recipients: Sequence[str]) -> Mapping[str, bytes]:
    """The inverse of :func:`dealt_content`.

    Args:
        message: The answer.
        hospital: Whose it is.
        number: The round.
        recipients: Whom it has to hold something for, and nobody else.

    Raises:
        MessageError: if it does not, or is no answer of that hospital in that round.
    """
    config = _said_by(message, hospital, number)
    sealed = _sealed(config, "recipients", hospital, most=len(recipients))
    if set(sealed) != set(recipients):
        raise MessageError("it dealt its shares to others than those who enrolled")
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


def parse_mask_request(message: Message, hospital: str, *, most: int) -> MaskRequest:
    """The inverse of :func:`add_mask_request`.

    Args:
        message: The request.
        hospital: Who is asked.
        most: How many hospitals there are.

    Raises:
        MessageError: if a part is missing or is not of its kind: the weight lies in [0, 1], and the grid has room for
            at most as many summands as there are hospitals.
    """
    config = wire.config(message.content, _SUM)
    weight, bound = wire.number(config, "weight"), wire.number(config, "bound")
    # Written so that NaN is refused, too.
    if not 0 <= weight <= 1:
        raise MessageError("weight: must be a number from 0 to 1")
    summands, bits = wire.whole(config, "summands", lowest=1, highest=most), wire.whole(config, "bits")
    try:
        grid = FixedPoint(bound=bound, summands=summands, bits=bits)
    except ValueError as error:
        raise MessageError(f"bound, summands, bits: {error}") from error
    return MaskRequest(sealed=_sealed(config, "dealers", hospital, most=most), weight=weight, grid=grid)


def survivors_content(number: int, survivors: Sequence[str]) -> RecordDict:
    """The request of ``release``: whose updates came."""
    return RecordDict({_CONFIG: ConfigRecord({"round": number, "survivors": list(survivors)})})


def parse_survivors(message: Message, *, most: int) -> tuple[int, tuple[str, ...]]:
    """The inverse of :func:`survivors_content`: the round, and whose updates came.

    Args:
        message: The request.
        most: How many hospitals there are.

    Raises:
        MessageError: if a part is missing or is not of its kind.
    """
    return parse_number(message), tuple(wire.texts(_config(message), "survivors", most=most))


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
    message: Message, hospital: str, number: int, *, survivors: Sequence[str], dropped: Sequence[str], places: int
) -> ReleasedShares:
    """The inverse of :func:`released_content`.

    Args:
        message: The answer.
        hospital: Whose it is.
        number: The round.
        survivors: Of whose own masks it has to tell.
        dropped: Of whose pairwise masks.
        places: How many shares there are of a secret, or more.

    Raises:
        MessageError: if it tells of others, or what it tells are no shares, or it is no answer of that hospital in that
            round.
    """
    config = _said_by(message, hospital, number)
    most = len(survivors) + len(dropped)
    owners, in_sum = wire.texts(config, "owners", most=most), wire.flags(config, "in_sum", most=most)
    at = wire.wholes(config, "places", most=most, lowest=1, highest=places)
    values = wire.blobs(config, "values", most=most, sizes=(VALUE_BYTES,))
    if not len(owners) == len(in_sum) == len(at) == len(values):
        raise MessageError("owners: must have one share each")
    try:
        shares = [Share(x=place, y=value_from_bytes(value)) for place, value in zip(at, values, strict=True)]
    except ValueError as error:
        raise MessageError(f"values: {error}") from error
    own = {owner: share for owner, share, inside in zip(owners, shares, in_sum, strict=True) if inside}
    pairwise = {owner: share for owner, share, inside in zip(owners, shares, in_sum, strict=True) if not inside}
    if len(owners) != most or set(own) != set(survivors) or set(pairwise) != set(dropped):
        raise MessageError("its shares are for another list of survivors")
    return ReleasedShares(hospital=hospital, self_seed=own, private_key=pairwise)


def _config(message: Message) -> Mapping[str, Any]:
    return wire.config(message.content, _CONFIG)


def _from(hospital: str, number: int, told: Mapping[str, object]) -> RecordDict:
    record = ConfigRecord({"hospital": hospital, "round": number, **told})  # type: ignore[dict-item]
    return RecordDict({_CONFIG: record})


def _said_by(message: Message, hospital: str, number: int) -> Mapping[str, Any]:
    config = _config(message)
    said = wire.text(config, "hospital"), wire.whole(config, "round")
    if said != (hospital, number):
        raise MessageError(f"it says it is {said[0]}'s to round {said[1]}")
    return config


def _public_keys(record: Mapping[str, Any], key: str, hospitals: Sequence[str]) -> tuple[bytes, ...]:
    keys = wire.blobs(record, key, most=len(hospitals), sizes=(_KEY_BYTES,))
    if len(keys) != len(hospitals):
        raise MessageError(f"{key}: must have one key for every hospital")
    return _all_keys(keys, key)


def _all_keys(keys: Sequence[bytes], key: str) -> tuple[bytes, ...]:
    if not all(map(is_public_key, keys)):
        raise MessageError(f"{key}: must be public keys of X25519")
    return tuple(keys)


def _sealed(config: Mapping[str, Any], names_key: str, own: str, *, most: int) -> dict[str, bytes]:
    """What is sealed by or for ``own``, by the other hospital; there is nothing for a hospital from itself."""
    names = wire.texts(config, names_key, most=most)
    values = wire.blobs(config, "sealed", most=most, sizes=(0, SEALED_BYTES))
    if len(set(names)) != len(names) or len(names) != len(values):
        raise MessageError(f"{names_key}: must name every hospital once, with what is sealed")
    sealed = dict(zip(names, values, strict=True))
    if any(bool(value) == (name == own) for name, value in sealed.items()):
        raise MessageError("sealed: must be nothing of the hospital itself, and something of every other one")
    return sealed
