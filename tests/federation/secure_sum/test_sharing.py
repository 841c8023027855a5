"""Secrets in shares: any threshold of them give it, fewer give nothing."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import sympy
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from hbdp_fed.federation.secure_sum import (
    FIELD_PRIME,
    Share,
    recover_secret,
    seeded_bytes,
    split_secret,
)

SECRETS = st.integers(0, FIELD_PRIME - 1)


def test_the_field_is_the_smallest_above_every_secret() -> None:
    assert sympy.nextprime(2**256) == FIELD_PRIME


def test_shares_by_hand() -> None:
    # 1234 + 166 x + 94 x^2 modulo 1613, its coefficients served as bytes.
    numbers = iter([(166).to_bytes(2, "little"), (94).to_bytes(2, "little")])
    shares = split_secret(1234, threshold=3, count=6, source=lambda _: next(numbers), prime=1613)
    assert [share.y for share in shares] == [1494, 329, 965, 176, 1188, 775]
    assert [share.x for share in shares] == [1, 2, 3, 4, 5, 6]
    for three in itertools.permutations(shares, 3):
        assert recover_secret(three, threshold=3, prime=1613) == 1234


@examples(max_examples=50, deadline=None)
@given(data=st.data(), secret=SECRETS, count=st.integers(1, 12))
def test_any_threshold_of_shares_give_the_secret(data: st.DataObject, secret: int, count: int) -> None:
    threshold = data.draw(st.integers(1, count))
    source = seeded_bytes(data.draw(st.integers(0, 2**32)), "shares")
    shares = split_secret(secret, threshold=threshold, count=count, source=source)
    chosen = data.draw(st.permutations(shares))[: data.draw(st.integers(threshold, count))]
    assert recover_secret(chosen, threshold=threshold) == secret
    if threshold > 1:
        with pytest.raises(ValueError, match=f"{threshold - 1} different shares"):
            recover_secret(chosen[: threshold - 1], threshold=threshold)
        with pytest.raises(ValueError, match="different shares"):
            recover_secret([chosen[0]] * threshold, threshold=threshold)


def test_fewer_shares_than_the_threshold_fit_every_secret_equally_often() -> None:
    """Every polynomial over a small field: two of three shares have the same distribution whatever the secret."""
    prime = 7
    seen: dict[int, Counter[tuple[int, int]]] = {}
    for secret in range(prime):
        seen[secret] = Counter()
        for coefficients in itertools.product(range(prime), repeat=2):
            numbers = iter(bytes([number]) for number in coefficients)
            shares = split_secret(secret, threshold=3, count=5, source=lambda _, n=numbers: next(n), prime=prime)
            seen[secret][shares[1].y, shares[4].y] += 1
    assert all(counts == seen[0] for counts in seen.values())
    assert set(seen[0].values()) == {1}
    assert len(seen[0]) == prime**2


def test_coefficients_are_drawn_without_favouring_small_numbers() -> None:
    # Three bits for seven elements: a 7 is drawn again, not taken for a 0.
    numbers = iter([b"\x07", b"\x0f", b"\x0d"])
    (share,) = split_secret(0, threshold=2, count=2, source=lambda _: next(numbers), prime=7)[:1]
    assert share.y == 5


@examples(max_examples=30, deadline=None)
@given(secret=SECRETS, other=SECRETS, seed=st.integers(0, 2**32))
def test_any_secret_is_possible_behind_one_share_too_few(secret: int, other: int, seed: int) -> None:
    shares = split_secret(secret, threshold=4, count=6, source=seeded_bytes(seed, "shares"))
    # One more point, chosen freely, makes them shares of any other secret: solve for it.
    few = list(shares[:3])
    low, high = (recover_secret([*few, Share(x=6, y=y)], threshold=4) for y in (0, 1))
    y = (other - low) * pow(high - low, -1, FIELD_PRIME) % FIELD_PRIME
    assert recover_secret([*few, Share(x=6, y=y)], threshold=4) == other


@pytest.mark.parametrize(("threshold", "count", "secret"), [(0, 3, 1), (4, 3, 1), (2, 3, -1), (2, 3, FIELD_PRIME)])
def test_shares_that_cannot_be_are_refused(threshold: int, count: int, secret: int) -> None:
    with pytest.raises(ValueError, match=r"threshold must be|no element"):
        split_secret(secret, threshold=threshold, count=count, source=seeded_bytes(0, "s"))
