"""Where secrets come from, and the stream that a key gives: masks are such streams."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from hbdp_fed.seeding import stream_seed

ByteSource = Callable[[int], bytes]
"""Gives that many fresh uniform bytes. ``os.urandom`` is one."""

SECRET_BYTES = 32
"""The length of every key and seed."""


def seeded_bytes(seed: int, *name: int | str) -> ByteSource:
    """Bytes that can be repeated, for simulations, from the stream called ``name`` (see :mod:`hbdp_fed.seeding`)."""
    stream = keystream(stream_seed(seed, *name).to_bytes(SECRET_BYTES, "little"))
    return lambda count: stream.update(bytes(count))


def keystream(key: bytes) -> CipherContext:
    """ChaCha20's stream under a key of 32 bytes: what it makes of zeros."""
    # A nonce of zeros: every key is used for one stream.
    return Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
