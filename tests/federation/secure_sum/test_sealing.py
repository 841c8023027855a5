"""Shares that pass the server: only whom they are for can read them, and no key of the masks opens them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from hbdp_fed.federation.secure_sum import (
    FIELD_PRIME,
    HeldShares,
    Share,
    draw_sealing_key,
    draw_secrets,
    is_public_key,
    open_sealed,
    seal,
    sealing_public,
    seeded_bytes,
)
from hbdp_fed.federation.secure_sum.sealing import SEALED_BYTES, held_from_bytes, held_to_bytes

SHARES = HeldShares(private_key=Share(x=7, y=FIELD_PRIME - 1), self_seed=Share(x=7, y=3))


@dataclass(frozen=True)
class Envelope:
    """Who seals or opens: whose private key, whose public key, and what the message is said to be about."""

    private_key: bytes
    peer: bytes
    sender: str = "a"
    recipient: str = "b"
    round: int = 4


def keys(name: str) -> tuple[bytes, bytes]:
    private = draw_sealing_key(seeded_bytes(0, name))
    return private, sealing_public(private)


def test_what_is_sealed_comes_back_to_the_recipient_alone() -> None:
    (a, public_a), (b, public_b), (c, _) = keys("a"), keys("b"), keys("c")
    sealed = seal(SHARES, **vars(Envelope(a, public_b)))
    assert len(sealed) == SEALED_BYTES
    assert open_sealed(sealed, **vars(Envelope(b, public_a))) == SHARES
    # Neither another key, nor another round, direction or name, nor a changed bit.
    wrong = [
        Envelope(c, public_a), Envelope(b, public_a, round=5), Envelope(b, public_a, sender="b", recipient="a"),
        Envelope(b, public_a, sender="c"),
    ]  # fmt: skip
    for envelope in wrong:
        with pytest.raises(ValueError, match="were not sealed for"):
            open_sealed(sealed, **vars(envelope))
    with pytest.raises(ValueError, match="were not sealed for b in round 4"):
        open_sealed(bytes([sealed[0] ^ 1]) + sealed[1:], **vars(Envelope(b, public_a)))


def test_the_mask_key_that_a_dropped_hospital_loses_opens_nothing() -> None:
    """The server rebuilds it; were it the sealing key, too, the seed of the own mask would follow."""
    source = seeded_bytes(0, "a")
    own, sealing = draw_secrets(source), draw_sealing_key(source)
    (_, public_b) = keys("b")
    sealed = seal(SHARES, **vars(Envelope(sealing, public_b)))
    with pytest.raises(ValueError, match="were not sealed for"):
        open_sealed(sealed, **vars(Envelope(own.private_key, public_b)))
    # The sender itself can open it, as anybody with its sealing key could: that is what must not be the mask key.
    assert open_sealed(sealed, **vars(Envelope(sealing, public_b))) == SHARES


@pytest.mark.parametrize("value", [0, 1, 2**256, FIELD_PRIME - 1])
def test_shares_as_bytes_come_back(value: int) -> None:
    shares = HeldShares(private_key=Share(x=2**31, y=value), self_seed=Share(x=2**31, y=FIELD_PRIME - 1 - value))
    assert held_from_bytes(held_to_bytes(shares)) == shares


def test_what_a_hospital_seals_must_be_shares() -> None:
    (a, public_a), (b, public_b) = keys("a"), keys("b")
    no_share = HeldShares(private_key=Share(x=1, y=5), self_seed=Share(x=1, y=FIELD_PRIME))
    sealed = seal(no_share, **vars(Envelope(a, public_b)))
    with pytest.raises(ValueError, match=r"^a dealt what cannot be used: a share is no element of the field"):
        open_sealed(sealed, **vars(Envelope(b, public_a)))


@pytest.mark.parametrize(
    ("key", "usable"),
    [
        # The point that everybody's public key is a multiple of.
        (bytes([9, *[0] * 31]), True),
        # All points of small order that have a name of their own (RFC 7748, section 6.1, refuses what they give).
        *((value.to_bytes(32, "little"), False) for value in (0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18)),
        (bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"), False),
        (bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"), False),
    ],
)
def test_a_key_with_which_everybody_agrees_on_zeros_is_none(key: bytes, usable: bool) -> None:
    assert is_public_key(key) is usable
    if usable:
        return
    private, _ = keys("a")
    with pytest.raises(ValueError, match="shared key"):
        X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(key))
