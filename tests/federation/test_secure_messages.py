"""The messages of a secure sum, from somebody who means harm: each is read right or refused, on both sides."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from hbdp_fed.errors import HospitalFailure
from hbdp_fed.federation import secure_client, secure_rounds
from hbdp_fed.federation.secure_messages import (
    MaskRequest,
    PublicKeys,
    add_mask_request,
    deal_content,
    dealt_content,
    keys_content,
    number_content,
    parse_deal,
    parse_dealt,
    parse_keys,
    parse_mask_request,
    parse_number,
    parse_released,
    parse_survivors,
    released_content,
    survivors_content,
)
from hbdp_fed.federation.secure_sum import (
    FIELD_PRIME,
    Enrolment,
    FixedPoint,
    ReleasedShares,
    Share,
    draw_sealing_key,
    sealing_public,
    seeded_bytes,
)
from hbdp_fed.federation.secure_sum.sealing import SEALED_BYTES
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.federation.wire import MessageError
from tests.federation.spoiling import FEW_AND_MANY, look_at_many, message, told

NAMES = ("a", "b", "c", "d")
MOST = len(NAMES)
KEYS = tuple(sealing_public(draw_sealing_key(seeded_bytes(0, name))) for name in (*NAMES, *"efgh"))
MASKS, SEALING = KEYS[:MOST], KEYS[MOST:]
SHARES = {name: Share(x=1, y=place) for place, name in enumerate(NAMES)}
IN_SUM, DROPPED = NAMES[:3], NAMES[3:]
RELEASED = ReleasedShares("a", {name: SHARES[name] for name in IN_SUM}, {name: SHARES[name] for name in DROPPED})
ENROLMENT = Enrolment(3, NAMES, MASKS, 3)
SEALED = {name: bytes([place]) * SEALED_BYTES for place, name in enumerate(NAMES)}
REQUEST = MaskRequest({**SEALED, "a": b""}, 0.25, FixedPoint(1.5, MOST))


@dataclass(frozen=True)
class Kind:
    """One message: how it is made and read, what is read from it, and what is true of whatever is read."""

    content: Callable[[], RecordDict]
    parse: Callable[[Message], Any]
    value: Any
    holds: Callable[[Any], bool]


def _are_keys(*keys: bytes) -> bool:
    return all(isinstance(key, bytes) and len(key) == 32 for key in keys)


def _are_names(names: Any, most: int = MOST) -> bool:
    return len(names) <= most and all(isinstance(name, str) for name in names)


def _is_dealt(sealed: Mapping[str, bytes]) -> bool:
    return set(sealed) == {"b", "c", "d"} and all(len(text) == SEALED_BYTES for text in sealed.values())


def _is_request(wanted: MaskRequest) -> bool:
    sizes = {name: len(text) for name, text in wanted.sealed.items()}
    return (
        0 <= wanted.weight <= 1
        and 1 <= wanted.grid.summands <= MOST
        and math.isfinite(wanted.grid.step)
        and _are_names(sizes)
        and sizes == {name: 0 if name == "a" else SEALED_BYTES for name in sizes}
    )


def _is_released(found: ReleasedShares) -> bool:
    shares = [*found.self_seed.values(), *found.private_key.values()]
    return (set(found.self_seed), set(found.private_key)) == (set(IN_SUM), set(DROPPED)) and all(
        1 <= share.x <= MOST and 0 <= share.y < FIELD_PRIME for share in shares
    )


KINDS = {
    "number": Kind(lambda: number_content(3), parse_number, 3, lambda number: 0 <= number <= 2**53),
    "keys": Kind(
        lambda: keys_content("a", 3, PublicKeys(MASKS[0], SEALING[0])),
        lambda sent: parse_keys(sent, "a", 3),
        PublicKeys(MASKS[0], SEALING[0]),
        lambda keys: _are_keys(keys.masks, keys.sealing),
    ),
    "deal": Kind(
        lambda: deal_content(ENROLMENT, SEALING),
        lambda sent: parse_deal(sent.content, most=MOST),
        (ENROLMENT, SEALING),
        lambda dealt: (
            _are_keys(*dealt[0].public_keys, *dealt[1])
            and _are_names(dealt[0].hospitals)
            and len(dealt[0].hospitals) == len(dealt[1])
            and 2 <= dealt[0].threshold <= len(dealt[1])
        ),
    ),
    "dealt": Kind(
        lambda: dealt_content("a", 3, {name: SEALED[name] for name in "bcd"}),
        lambda sent: parse_dealt(sent, "a", 3, recipients=["b", "c", "d"]),
        {name: SEALED[name] for name in "bcd"},
        _is_dealt,
    ),
    "mask request": Kind(
        lambda: add_mask_request(RecordDict(), REQUEST),
        lambda sent: parse_mask_request(sent, "a", most=MOST),
        REQUEST,
        _is_request,
    ),
    "survivors": Kind(
        lambda: survivors_content(3, IN_SUM),
        lambda sent: parse_survivors(sent, most=MOST),
        (3, IN_SUM),
        lambda found: _are_names(found[1]),
    ),
    "released": Kind(
        lambda: released_content(3, RELEASED),
        lambda sent: parse_released(sent, "a", 3, survivors=IN_SUM, dropped=DROPPED, places=MOST),
        RELEASED,
        _is_released,
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_not_spoiled_is_read(name: str) -> None:
    kind = KINDS[name]
    assert kind.parse(message(kind.content())) == kind.value
    assert kind.holds(kind.value)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("examples", FEW_AND_MANY)
def test_whatever_comes_is_read_or_refused(name: str, examples: int) -> None:
    kind = KINDS[name]

    def check(content: RecordDict) -> None:
        found = told(kind.parse, content)
        assert found is None or kind.holds(found)

    look_at_many(kind.content, check, examples)


@pytest.mark.parametrize(
    ("name", "key", "value", "problem"),
    [
        ("number", "round", 1.0, "round: must be a whole number"),
        ("keys", "hospital", "b", "it says it is b's to round 3"),
        ("keys", "round", 4, "it says it is a's to round 4"),
        ("keys", "masks", bytes(31), "masks: must be 32 bytes"),
        ("keys", "sealing", "x" * 32, "sealing: must be 32 bytes"),
        # A point of small order: with it, everybody agrees on zeros.
        ("keys", "masks", bytes(32), "masks: must be public keys of X25519"),
        ("deal", "hospitals", ["a", "b", "b", "d"], "hospitals: every hospital needs a name of its own"),
        ("deal", "hospitals", [*NAMES, "e"], "hospitals: must be a list of at most 4 texts"),
        ("deal", "hospitals", ["a", "b", "c", "d" * 300], "hospitals: must be a text of at most 256 letters"),
        ("deal", "hospitals", ["a", "b", "c", "\x1b[2J"], "hospitals: holds control characters"),
        ("deal", "masks", list(MASKS[:3]), "masks: must have one key for every hospital"),
        ("deal", "masks", [*MASKS[:3], bytes(33)], "masks: must have 32 bytes each"),
        ("deal", "sealing", [*SEALING[:3], bytes(32)], "sealing: must be public keys of X25519"),
        ("deal", "threshold", 5, "hospitals: threshold must be from 2 to the 4 hospitals, got 5"),
        ("deal", "threshold", True, "threshold: must be a whole number"),
        ("dealt", "recipients", ["b", "c", "e"], "it dealt its shares to others than those who enrolled"),
        ("dealt", "recipients", ["b", "c", "c"], "recipients: must name every hospital once"),
        ("dealt", "recipients", ["b", "c"], "recipients: must name every hospital once"),
        ("dealt", "sealed", [bytes(SEALED_BYTES)] * 4, "sealed: must be a list of at most 3 byte strings"),
        ("dealt", "sealed", [b"", *[bytes(SEALED_BYTES)] * 2], "sealed: must be nothing of the hospital itself, and"),
        ("dealt", "sealed", [bytes(SEALED_BYTES + 1)] * 3, "sealed: must have 0 or 86 bytes each"),
        ("mask request", "sealed", [bytes(SEALED_BYTES)] * 4, "sealed: must be nothing of the hospital itself, and"),
        ("mask request", "weight", math.nan, "weight: must be a number from 0 to 1"),
        ("mask request", "weight", 1.5, "weight: must be a number from 0 to 1"),
        ("mask request", "summands", 5, "summands: must be a whole number from 1 to 4"),
        ("mask request", "bound", math.inf, "bound, summands, bits: bound must be positive"),
        ("mask request", "bits", 55, "bound, summands, bits: bits must be from 2 to 54, got 55"),
        ("survivors", "survivors", [*NAMES, "a"], "survivors: must be a list of at most 4 texts"),
        ("survivors", "survivors", [1], "survivors: must be a list of at most 4 texts"),
        ("released", "owners", ["a", "b", "d", "c"], "its shares are for another list of survivors"),
        ("released", "owners", ["a", "b", "c", "c"], "its shares are for another list of survivors"),
        ("released", "owners", ["a", "b", "c"], "owners: must have one share each"),
        ("released", "in_sum", [1, 1, 1, 0], "in_sum: must be a list of at most 4 truth values"),
        ("released", "in_sum", [True] * 4, "its shares are for another list of survivors"),
        ("released", "places", [1, 1, 1, 0], "places: must be a whole number from 1 to 4"),
        ("released", "places", [1, 1, 1, 5], "places: must be a whole number from 1 to 4"),
        ("released", "values", [bytes(32)] * 4, "values: must have 33 bytes each"),
        ("released", "values", [FIELD_PRIME.to_bytes(33, "little")] * 4, "values: a share is no element of the field"),
    ],
)  # fmt: skip
def test_a_part_that_cannot_be_is_named(name: str, key: str, value: Any, problem: str) -> None:
    kind = KINDS[name]
    content = kind.content()
    [record] = content.config_records.values()
    record[key] = value
    with pytest.raises(MessageError, match=f"^{problem}"):
        kind.parse(message(content))
    del record[key]
    with pytest.raises(MessageError, match=f"^{key}: must|^it says"):
        kind.parse(message(content))
    with pytest.raises(MessageError, match="has no record"):
        kind.parse(message(RecordDict()))


# Through the real apps.


def changed(content: RecordDict, **change: Any) -> RecordDict:
    records = {name: ConfigRecord({**record, **change}) for name, record in content.config_records.items()}
    return RecordDict({**content, **records})


@pytest.mark.parametrize(
    ("phase", "make", "key", "value"),
    [
        ("enrol", "keys_content", "masks", bytes(32)),
        ("deal", "dealt_content", "sealed", [bytes(SEALED_BYTES)] * 10),
        ("release", "released_content", "places", [11] * 10),
    ],
)
def test_an_answer_that_cannot_be_read_is_unusable_and_harms_nobody_else(
    ten: AppSettings, run, monkeypatch: pytest.MonkeyPatch, phase: str, make: str, key: str, value: Any
) -> None:
    original = getattr(secure_client, make)

    def forged(*arguments: Any) -> RecordDict:
        content = original(*arguments)
        [record] = content.config_records.values()
        return changed(content, **{key: value}) if record["hospital"] == "hospital-03" else content

    monkeypatch.setattr(secure_client, make, forged)
    witness = run(replace(ten, rounds=1))
    [failure] = witness.failures
    assert (failure.hospital, failure.kind, failure.phase) == ("hospital-03", "unusable", phase)
    assert failure.details.startswith(f"the answer cannot be read: {key}: must")
    assert len(witness.sums[1].hospitals) == (10 if phase == "release" else 9)


@pytest.mark.parametrize(
    ("make", "change", "problem"),
    [
        ("number_content", {"round": -1}, "round: must be a whole number from 0"),
        ("deal_content", {"sealing": [b"x"]}, "sealing: must have 32 bytes each"),
        ("add_mask_request", {"weight": math.inf}, "weight: must be a number from 0 to 1"),
        ("survivors_content", {"survivors": ["x"] * 11}, "survivors: must be a list of at most 10 texts"),
    ],
)
def test_a_request_that_cannot_be_read_is_refused_at_the_hospital(
    ten: AppSettings, run, monkeypatch: pytest.MonkeyPatch, make: str, change: Mapping[str, Any], problem: str
) -> None:
    original = getattr(secure_rounds, make)
    monkeypatch.setattr(secure_rounds, make, lambda *arguments: changed(original(*arguments), **change))
    with pytest.raises(HospitalFailure, match=f"MessageError: {problem}") as failure:
        run(replace(ten, rounds=1, on_failure="abort"))
    assert failure.value.hospital == "hospital-01"


def test_shares_that_another_hospital_should_hold_are_not_taken(
    ten: AppSettings, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Released as its own, they would spoil the secret of whoever dealt them, and nobody could tell by whom."""
    original = secure_client.deal_shares

    def swapped(own: Any, enrolment: Enrolment, source: Any) -> Any:
        shares = original(own, enrolment, source)
        return shares if own != first[0] else (shares[0], shares[2], shares[1], *shares[3:])

    first: list[Any] = []
    drawn = secure_client.draw_secrets
    monkeypatch.setattr(secure_client, "draw_secrets", lambda source: first.append(drawn(source)) or first[-1])
    monkeypatch.setattr(secure_client, "deal_shares", swapped)
    witness = run(replace(ten, rounds=1))
    assert [(failure.hospital, failure.kind) for failure in witness.failures] == [
        ("hospital-02", "exception"), ("hospital-03", "exception"),
    ]  # fmt: skip
    for failure in witness.failures:
        assert f"hospital-01 dealt the shares of another hospital than {failure.hospital}" in failure.details
    assert len(witness.sums[1].hospitals) == 8
