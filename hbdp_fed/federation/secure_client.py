"""A hospital's part in a secure sum: what it draws, what it hands out, and what it forgets.

Between the phases of a round its secrets lie in its Flower state, and nowhere else. They are erased as soon as they
have served: when the hospital released its shares, when its round failed, at the latest at its next enrolment. Every
phase is answered once an enrolment, and only in its turn, so that no mask covers two updates and no second list of
survivors is answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from flwr.app import ConfigRecord, Message, RecordDict

from hbdp_fed.errors import Refusal
from hbdp_fed.federation.codec import RoundReport, TrainRequest, parse_request, reply_content
from hbdp_fed.federation.faults import misbehave
from hbdp_fed.federation.randomness import secret_source
from hbdp_fed.federation.secure_messages import (
    DEAL,
    ENROL,
    RELEASE,
    MaskRequest,
    PublicKeys,
    deal_content,
    dealt_content,
    keys_content,
    parse_deal,
    parse_mask_request,
    parse_number,
    parse_survivors,
    released_content,
)
from hbdp_fed.federation.secure_sum import (
    Enrolment,
    HeldShares,
    HospitalKeys,
    OwnSecrets,
    deal_shares,
    draw_sealing_key,
    draw_secrets,
    masked_update,
    open_sealed,
    public_key,
    release_shares,
    safe_threshold,
    seal,
    sealing_public,
)
from hbdp_fed.federation.secure_sum.sealing import held_from_bytes, held_to_bytes
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.types import ModelUpdate

SECRETS = "secure_sum_secrets"
"""Where they lie in a hospital's state while a round lasts. Nobody writes this down."""

_DEALING = "secure_sum_enrolment"
_ENROLLED, _DEALT, _MASKED = "enrolled", "dealt", "masked"

OF_A_ROUND = (SECRETS, _DEALING)
"""The records of a hospital's state that are of no use once the round is over."""

Compute = Callable[[TrainRequest], tuple[ModelUpdate, RoundReport]]


@dataclass(frozen=True)
class Asked:
    """A message with what it takes to answer it.

    Attributes:
        message: From the server.
        settings: Of the federation.
        hospital: Who is asked.
        state: What it keeps; changed in place.
        withheld: Figures of its report that it does not tell.
    """

    message: Message
    settings: AppSettings
    hospital: str
    state: RecordDict
    withheld: tuple[str, ...] = ()

    @property
    def most(self) -> int:
        """How many hospitals there are: no list in a message is longer."""
        return len(self.settings.sites)


def enrol(asked: Asked) -> RecordDict:
    """Draw the secrets of a sum, in place of any that are left, and tell the public keys.

    Raises:
        MessageError: if it is not said of which round.
    """
    number = parse_number(asked.message)
    forget(asked.state)
    source = secret_source(asked.settings, asked.hospital, number, "keys")
    own, sealing = draw_secrets(source), draw_sealing_key(source)
    asked.state[SECRETS] = ConfigRecord(
        {
            "round": number,
            "stage": _ENROLLED,
            "private_key": own.private_key,
            "self_seed": own.self_seed,
            "sealing": sealing,
        }
    )
    keys = PublicKeys(masks=public_key(own), sealing=sealing_public(sealing))
    content = keys_content(asked.hospital, number, keys)
    return misbehave(content, asked.settings.faults, hospital=asked.hospital, round=number, phase="enrol")


def deal(asked: Asked) -> RecordDict:
    """Deal shares of the secrets to everybody who enrolled.

    Raises:
        Refusal: if the hospital did not enrol, dealt before, or the list of the enrolled would not protect it.
        MessageError: if it is no such list.
    """
    hospital = asked.hospital
    enrolment, sealing_keys = parse_deal(asked.message.content, most=asked.most)
    secrets = _in_turn(asked.state, enrolment.round, _ENROLLED)
    own = _own(secrets)
    if dict(zip(enrolment.hospitals, enrolment.public_keys, strict=True)).get(hospital) != public_key(own):
        raise Refusal(f"refused: the list of round {enrolment.round} holds another key of {hospital}")
    least = safe_threshold(len(enrolment.hospitals))
    if enrolment.threshold < least:
        raise Refusal(
            f"refused: {enrolment.threshold} of {len(enrolment.hospitals)} shares would give a secret; "
            f"at least {least} have to be needed"
        )
    shares = deal_shares(own, enrolment, secret_source(asked.settings, hospital, enrolment.round, "shares"))
    peers = zip(enrolment.hospitals, sealing_keys, shares, strict=True)
    private = _bytes(secrets, "sealing")
    sealed = {
        name: seal(held, private_key=private, peer=peer, sender=hospital, recipient=name, round=enrolment.round)
        for name, peer, held in peers
        if name != hospital
    }
    mine = held_to_bytes(shares[enrolment.hospitals.index(hospital)])
    asked.state[SECRETS] = ConfigRecord({**secrets, "stage": _DEALT, "mine": mine})
    asked.state.update(deal_content(enrolment, sealing_keys, name=_DEALING))
    content = dealt_content(hospital, enrolment.round, sealed)
    return misbehave(content, asked.settings.faults, hospital=hospital, round=enrolment.round, phase="deal")


def send_masked(asked: Asked, compute: Compute) -> RecordDict:
    """Train, and answer with the update under its masks.

    Args:
        asked: The message and its hospital.
        compute: Trains, having charged the hospital's ledger.

    Raises:
        Refusal: if the hospital did not deal, sent an update before, or too few dealt.
        MessageError: if it is no such request.
        ValueError: if the shares from another hospital cannot be opened, or are not for this one.
        OverflowError: if the update is longer than was announced.
    """
    started = time.perf_counter()
    request = parse_request(asked.message)
    wanted = parse_mask_request(asked.message, asked.hospital, most=asked.most)
    secrets = _in_turn(asked.state, request.round, _DEALT)
    try:
        keys, enrolment = _with_shares(asked, secrets, wanted)
        update, report = compute(request)
        masked = masked_update(update, weight=wanted.weight, keys=keys, enrolment=enrolment, grid=wanted.grid)
        asked.state[SECRETS] = ConfigRecord(
            {
                **secrets,
                "stage": _MASKED,
                "dealers": list(enrolment.hospitals),
                "held": [held_to_bytes(keys.held[name]) for name in enrolment.hospitals],
            }
        )
        content = reply_content(
            replace(update, delta=masked.words),
            replace(report, seconds=time.perf_counter() - started),
            withheld=asked.withheld,
        )
        return misbehave(content, asked.settings.faults, hospital=asked.hospital, round=request.round)
    except BaseException:
        # It is not in the sum, and nobody will ask for its shares.
        forget(asked.state)
        raise


def release(asked: Asked) -> RecordDict:
    """Release shares of one secret of every hospital, and forget all secrets.

    Raises:
        Refusal: if the hospital sent no masked update or released before, if its own update is said to be
            missing, or if too few are said to have come.
        MessageError: if it is no list of them.
    """
    number, survivors = parse_survivors(asked.message, most=asked.most)
    secrets = _in_turn(asked.state, number, _MASKED)
    if asked.hospital not in survivors:
        raise Refusal(f"refused: the update that {asked.hospital} sent is not said to be in the sum")
    dealers = [str(name) for name in secrets["dealers"]]  # type: ignore[union-attr]
    held = dict(zip(dealers, map(held_from_bytes, secrets["held"]), strict=True))  # type: ignore[arg-type]
    enrolment, _ = parse_deal(asked.state, most=asked.most, name=_DEALING)
    keys = HospitalKeys(hospital=asked.hospital, own=_own(secrets), held=held)
    released = release_shares(keys, enrolment.among(dealers), survivors)
    forget(asked.state)
    content = released_content(number, released)
    return misbehave(content, asked.settings.faults, hospital=asked.hospital, round=number, phase="release")


QUERIES: Mapping[str, Callable[[Asked], RecordDict]] = {ENROL: enrol, DEAL: deal, RELEASE: release}
"""By Flower's action, how a hospital answers."""


def forget(state: RecordDict) -> None:
    """Erase what a round left in a hospital's state."""
    for name in OF_A_ROUND:
        if name in state:
            del state[name]


def _in_turn(state: RecordDict, number: int, stage: str) -> ConfigRecord:
    """The secrets of a round at that stage.

    Raises:
        Refusal: if there are none.
    """
    secrets = state.config_records.get(SECRETS)
    if secrets is None or secrets["round"] != number:
        raise Refusal(f"refused: there are no secrets for the sum of round {number}, or no more")
    if secrets["stage"] != stage:
        raise Refusal(f"refused: in the sum of round {number} the hospital has {secrets['stage']!r}, not {stage!r}")
    return secrets


def _with_shares(asked: Asked, secrets: ConfigRecord, wanted: MaskRequest) -> tuple[HospitalKeys, Enrolment]:
    """Everything that the hospital alone knows, once it has opened the others' shares, and whose masks cancel."""
    enrolment, sealing_keys = parse_deal(asked.state, most=asked.most, name=_DEALING)
    peers = dict(zip(enrolment.hospitals, sealing_keys, strict=True))
    if asked.hospital not in wanted.sealed or not set(wanted.sealed) <= set(peers):
        raise Refusal(f"refused: strangers, or not {asked.hospital}, dealt shares for round {enrolment.round}")
    if len(wanted.sealed) < enrolment.threshold:
        raise Refusal(
            f"refused: {len(wanted.sealed)} hospitals dealt shares for round {enrolment.round}, and "
            f"{enrolment.threshold} are needed"
        )
    mine = held_from_bytes(_bytes(secrets, "mine"))

    def held(sender: str, text: bytes) -> HeldShares:
        if sender == asked.hospital:
            return mine
        found = open_sealed(
            text,
            private_key=_bytes(secrets, "sealing"),
            peer=peers[sender],
            sender=sender,
            recipient=asked.hospital,
            round=enrolment.round,
        )
        # All shares of a hospital are points at the same place: another one would spoil the secret it is put to.
        if found.self_seed.x != mine.self_seed.x:
            raise ValueError(f"{sender} dealt the shares of another hospital than {asked.hospital}")
        return found

    shares = {sender: held(sender, text) for sender, text in wanted.sealed.items()}
    return HospitalKeys(hospital=asked.hospital, own=_own(secrets), held=shares), enrolment.among(tuple(shares))


def _own(secrets: ConfigRecord) -> OwnSecrets:
    return OwnSecrets(private_key=_bytes(secrets, "private_key"), self_seed=_bytes(secrets, "self_seed"))


def _bytes(secrets: ConfigRecord, name: str) -> bytes:
    value = secrets[name]
    assert isinstance(value, bytes)
    return value
