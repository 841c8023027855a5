"""Shares under way: sealed by the hospital that deals them for the one that holds them; a server can only forward.

The keys are not those of the pairwise masks. The server rebuilds the mask key of a hospital that drops out, and could
otherwise open every share that this hospital had sent and received: among them those of its own mask's seed. With both
secrets its update would lie open, if it came late (Bonawitz et al. 2017, figure 4, keep two pairs of keys, too).
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hbdp_fed.federation.secure_sum.enrolment import HeldShares, public_of
from hbdp_fed.federation.secure_sum.sharing import FIELD_PRIME, Share
from hbdp_fed.federation.secure_sum.sources import SECRET_BYTES, ByteSource

_PLACE_BYTES, _TAG_BYTES = 4, 16

VALUE_BYTES = 33
"""The length of an element of the field."""

SEALED_BYTES = _PLACE_BYTES + 2 * VALUE_BYTES + _TAG_BYTES
"""The length of every sealed message."""


def draw_sealing_key(source: ByteSource) -> bytes:
    """A hospital's X25519 key for the shares of one sum, 32 bytes."""
    return source(SECRET_BYTES)


def sealing_public(private_key: bytes) -> bytes:
    """What a hospital tells everybody, 32 bytes."""
    return public_of(private_key)


def seal(shares: HeldShares, *, private_key: bytes, peer: bytes, sender: str, recipient: str, round: int) -> bytes:
    """Shares that the recipient alone can read.

    Args:
        shares: What the recipient is to hold.
        private_key: The sender's sealing key.
        peer: The recipient's public sealing key.
        sender: Its name.
        recipient: Its name.
        round: Of the sum. A pair of keys seals one message in each direction.

    Returns:
        :data:`SEALED_BYTES` bytes.
    """
    cipher, about = _cipher(private_key, peer, sender=sender, recipient=recipient, round=round)
    # A nonce of zeros: the key is derived for this one message.
    return cipher.encrypt(bytes(12), held_to_bytes(shares), about)


def open_sealed(
    message: bytes, *, private_key: bytes, peer: bytes, sender: str, recipient: str, round: int
) -> HeldShares:
    """The inverse of :func:`seal`, with the recipient's private key and the sender's public one.

    Raises:
        ValueError: if the message was not sealed by these two hospitals for this round, or was changed, or what the
            sender sealed are no shares.
    """
    cipher, about = _cipher(private_key, peer, sender=sender, recipient=recipient, round=round)
    try:
        opened = cipher.decrypt(bytes(12), message, about)
    except InvalidTag as error:
        raise ValueError(f"the shares from {sender} were not sealed for {recipient} in round {round}") from error
    try:
        return held_from_bytes(opened)
    except ValueError as error:
        raise ValueError(f"{sender} dealt what cannot be used: {error}") from error


def held_to_bytes(shares: HeldShares) -> bytes:
    """Shares as bytes, always as many: the place, which both have in common, and the two values."""
    values = (shares.private_key.y, shares.self_seed.y)
    return shares.private_key.x.to_bytes(_PLACE_BYTES, "little") + b"".join(map(value_to_bytes, values))


def held_from_bytes(text: bytes) -> HeldShares:
    """The inverse of :func:`held_to_bytes`.

    Raises:
        ValueError: if a value is no element of the field.
    """
    place, values = int.from_bytes(text[:_PLACE_BYTES], "little"), text[_PLACE_BYTES:]
    return HeldShares(
        private_key=Share(x=place, y=value_from_bytes(values[:VALUE_BYTES])),
        self_seed=Share(x=place, y=value_from_bytes(values[VALUE_BYTES:])),
    )


def value_to_bytes(value: int) -> bytes:
    """An element of the field, :data:`VALUE_BYTES` bytes."""
    return value.to_bytes(VALUE_BYTES, "little")


def value_from_bytes(text: bytes) -> int:
    """The inverse of :func:`value_to_bytes`.

    Raises:
        ValueError: if it is no element of the field.
    """
    value = int.from_bytes(text, "little")
    if value >= FIELD_PRIME:
        raise ValueError("a share is no element of the field")
    return value


def _cipher(
    private_key: bytes, peer: bytes, *, sender: str, recipient: str, round: int
) -> tuple[ChaCha20Poly1305, bytes]:
    """The cipher of one message, and what the message is about."""
    agreed = X25519PrivateKey.from_private_bytes(private_key).exchange(X25519PublicKey.from_public_bytes(peer))
    about = repr(("hbdp_fed secure sum shares", round, sender, recipient)).encode()
    key = HKDF(hashes.SHA256(), length=SECRET_BYTES, salt=None, info=about).derive(agreed)
    return ChaCha20Poly1305(key), about
