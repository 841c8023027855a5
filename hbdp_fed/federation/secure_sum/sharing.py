"""A secret in shares, of which some give it back and fewer give nothing (Shamir 1979)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from hbdp_fed.federation.secure_sum.sources import ByteSource

FIELD_PRIME = 2**256 + 297
"""The smallest prime above all secrets of 32 bytes."""


@dataclass(frozen=True)
class Share:
    """A point of a secret's polynomial.

    Attributes:
        x: Whose share it is, from 1.
        y: The polynomial there.
    """

    x: int
    y: int = field(repr=False)


def split_secret(
    secret: int, *, threshold: int, count: int, source: ByteSource, prime: int = FIELD_PRIME
) -> tuple[Share, ...]:
    """Shares of which any ``threshold`` give the secret and fewer give nothing (Shamir 1979).

    They are points of a random polynomial of degree threshold - 1 whose value at 0 is the secret.

    Args:
        secret: In [0, prime).
        threshold: From 1 to ``count``.
        count: How many shares, less than ``prime``.
        source: Where the coefficients come from.
        prime: The field's order.
    """
    if not 0 <= secret < prime:
        raise ValueError("the secret is no element of the field")
    if not 1 <= threshold <= count < prime:
        raise ValueError(f"threshold must be from 1 to the {count} shares, got {threshold}")
    coefficients = [secret, *(_uniform(source, prime) for _ in range(threshold - 1))]
    return tuple(Share(x=x, y=_evaluate(coefficients, x, prime)) for x in range(1, count + 1))


def recover_secret(shares: Sequence[Share], *, threshold: int, prime: int = FIELD_PRIME) -> int:
    """The secret behind shares: their polynomial at 0, by Lagrange's formula.

    Args:
        shares: At least ``threshold``, of different owners; the first ones are used.
        threshold: As it was for :func:`split_secret`.
        prime: As there.

    Raises:
        ValueError: if there are too few.
    """
    used = {share.x: share.y for share in shares}
    if len(used) < threshold:
        raise ValueError(f"{len(used)} different shares do not give a secret that needs {threshold}")
    places = tuple(used)[:threshold]
    factors = _at_zero(places, prime)
    return sum(factor * used[x] for factor, x in zip(factors, places, strict=True)) % prime


def _uniform(source: ByteSource, prime: int) -> int:
    """Uniform in [0, prime). A remainder would favour small numbers, so what is too large is drawn again."""
    bits = prime.bit_length()
    while True:
        value = int.from_bytes(source((bits + 7) // 8), "little") & ((1 << bits) - 1)
        if value < prime:
            return value


def _evaluate(coefficients: Sequence[int], x: int, prime: int) -> int:
    """A polynomial, lowest coefficient first, by Horner's rule."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % prime
    return value


@lru_cache(maxsize=8)
def _at_zero(places: tuple[int, ...], prime: int) -> tuple[int, ...]:
    """Lagrange's basis polynomials at 0. The same for all secrets that the same hospitals hold shares of."""
    factors = []
    for x in places:
        above, below = 1, 1
        for other in places:
            if other != x:
                above, below = above * other % prime, below * (other - x) % prime
        inverse: int = pow(below, -1, prime)
        factors.append(above * inverse % prime)
    return tuple(factors)
