"""The sum of the hospitals' updates without anybody seeing a single one (Bonawitz et al. 2017, CCS).

A hospital writes its weighted update in whole multiples of a step (:class:`FixedPoint`), as numbers modulo 2^k, and
adds masks that are uniform there: one for each other hospital, which that hospital subtracts, and one of its own. What
it sends is uniform, too. In the sum the pairwise masks cancel. The own masks, and the pairwise masks of hospitals that
dropped out, are rebuilt from shares of their seeds (Shamir 1979), which the hospitals dealt out among each other
beforehand: any ``threshold`` of them give the seed, fewer give nothing. Of a hospital whose update is in the sum the
server learns the own mask's seed, of one that dropped out the key of the pairwise masks, and never both of the same
hospital: with both, an update that comes late would lie open.

The course of one sum::

    enrol                         everybody: keys, and shares of them
    masked_update                 each hospital -> server
    add_masked                    the server, one update at a time; now it is known who dropped out
    release_shares                each hospital that is left -> server
    unmask_sum                    the server

Keys agree over X25519 (RFC 7748), masks are ChaCha20's stream (RFC 8439). What is played here and not done:

- Everybody is honest but curious. Nobody signs the public keys, so a server that lies about them can put itself between
  two hospitals. Nobody compares lists of survivors, so a server that tells different hospitals different lists could
  collect both secrets of one; :func:`safe_threshold` stands in its way unless a third of the hospitals help it. An
  enrolment serves one sum, and a hospital answers one request for shares: it is the caller who has to keep count.
- The shares that hospitals deal to each other pass no network; there they would pass the server, encrypted.
- With :func:`seeded_bytes` whoever knows the run's seed knows every secret. ``os.urandom`` is the source that protects.

The sum is all that the server learns, and that can be much: of two hospitals, each can take its own from it. Nor does
anybody see a hospital lie, so that no rule but the mean is possible. For H hospitals and d numbers the masks take time
H^2 d and the shares H^2 threshold: fine for tens of hospitals, slow for thousands (for those, Bell et al. 2020, CCS,
give each hospital only some neighbours).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor

from hbdp_fed.errors import HospitalFailure
from hbdp_fed.seeding import stream_seed
from hbdp_fed.types import ModelUpdate, Weights

ByteSource = Callable[[int], bytes]
"""Gives that many fresh uniform bytes. ``os.urandom`` is one."""

FIELD_PRIME = 2**256 + 297
"""The smallest prime above all secrets of 32 bytes."""

_SECRET_BYTES = 32
_WORD_BYTES = 8
_EXACT_BITS = 54


# Numbers modulo 2^k.


@dataclass(frozen=True)
class FixedPoint:
    """A grid of numbers, written as integers modulo 2^bits, that sums of so many summands cannot leave.

    The step is the smallest power of two with which they cannot, so that scaling is exact and rounding to the nearest
    multiple is the only error: at most step / 2 in a summand, H * step / 2 in a sum of H, and nothing in the decoded
    sum, which is a float64 exactly.

    Rounding comes after the noise and depends on nothing else, so it takes away no protection that the noise gives. But
    as with float32, noise that is small beside the step is no longer Gaussian: below a ratio of about 10
    (:meth:`noise_to_step`) too few values are left for anything that computes with densities, and below 1 most of it is
    rounded off, and what arrives is the noiseless update on the grid. With 54 bits the step is bound * H * 2^-53, or up
    to twice that: a wide bound costs little as long as the ratio stays large.

    Attributes:
        bound: The largest absolute value of a coordinate of a summand: of a weighted update, noise included. Announced
            beforehand, for it must not depend on the records. Nothing is clipped to it: a larger value is refused, and
            as the refusal tells something about the records, the bound should be so wide that it never happens.
        summands: H, the most that are ever added up.
        bits: k, from 2 to 54, so that each sum has at most 53 bits and a sign.

    Raises:
        ValueError: if one of them is out of range, or there are too few bits for that many summands.
    """

    bound: float
    summands: int
    bits: int = _EXACT_BITS

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= _EXACT_BITS:
            raise ValueError(f"bits must be from 2 to {_EXACT_BITS}, got {self.bits}")
        if self.summands < 1:
            raise ValueError(f"summands must be at least 1, got {self.summands}")
        if self.largest < 1:
            raise ValueError(f"{self.bits} bits cannot hold the sum of {self.summands} numbers; use more bits")
        if not (self.bound > 0 and math.isfinite(2 * self.bound * self.summands)):
            raise ValueError(f"bound must be positive and its sums finite, got {self.bound}")
        if self.step < sys.float_info.min:
            raise ValueError(f"bound is too small to be divided into steps: {self.bound}")

    @property
    def largest(self) -> int:
        """The largest absolute value of an encoded coordinate, before the modulus."""
        return ((1 << (self.bits - 1)) - 1) // self.summands

    @property
    def step(self) -> float:
        """The distance of neighbouring numbers on the grid, a power of two."""
        below = math.ldexp(0.5, math.frexp(self.bound / self.largest)[1])
        return below if below * self.largest >= self.bound else 2 * below

    @property
    def modulus(self) -> int:
        """2^bits: encoded numbers and their sums are taken modulo this."""
        return 1 << self.bits

    def max_error(self, summands: int) -> float:
        """The largest error of a coordinate of a decoded sum, given how many were added up."""
        return summands * self.step / 2

    def noise_to_step(self, noise_std: float) -> float:
        """The ratio of a summand's noise to the step.

        Args:
            noise_std: The noise's standard deviation in a coordinate of the weighted update, at least 0.
        """
        if noise_std < 0 or not math.isfinite(noise_std):
            raise ValueError(f"noise_std must be finite and not negative, got {noise_std}")
        return noise_std / self.step

    def encode(self, values: Tensor) -> Tensor:
        """The nearest numbers of the grid, int64 in [0, 2^bits), of the shape of ``values``.

        Raises:
            OverflowError: if a value is larger than the bound or not finite: wrapped around, it would be another one.
        """
        values = values.detach().cpu().double()
        # Written so that NaN is refused, too.
        if not bool((values.abs() <= self.bound).all()):
            raise OverflowError(f"a value of size {float(values.abs().max()):g} exceeds the bound of {self.bound:g}")
        return torch.round(values / self.step).to(torch.int64) & (self.modulus - 1)

    def decode(self, words: Tensor) -> Tensor:
        """What a sum of encoded values stands for, float64.

        Args:
            words: int64 in [0, 2^bits). The upper half stands for negative numbers.
        """
        return torch.where(words >= self.modulus // 2, words - self.modulus, words).double() * self.step


# Secrets and shares.


@dataclass(frozen=True)
class Share:
    """A point of a secret's polynomial.

    Attributes:
        x: Whose share it is, from 1.
        y: The polynomial there.
    """

    x: int
    y: int = field(repr=False)


def seeded_bytes(seed: int, *name: int | str) -> ByteSource:
    """Bytes that can be repeated, for simulations, from the stream called ``name`` (see :mod:`hbdp_fed.seeding`)."""
    stream = _keystream(stream_seed(seed, *name).to_bytes(_SECRET_BYTES, "little"))
    return lambda count: stream.update(bytes(count))


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


# Enrolment.


@dataclass(frozen=True)
class Enrolment:
    """What everybody knows of one sum.

    Attributes:
        round: The round whose updates are summed, and no other's: with the same masks twice, the difference of a
            hospital's two updates would lie open.
        hospitals: Names, in their fixed order.
        public_keys: X25519 keys, 32 bytes for each hospital in that order.
        threshold: How many hospitals have to give their shares, from 2 to all.

    Raises:
        ValueError: if they do not fit together.
    """

    round: int
    hospitals: tuple[str, ...]
    public_keys: tuple[bytes, ...]
    threshold: int

    def __post_init__(self) -> None:
        if len(set(self.hospitals)) != len(self.hospitals) or len(self.hospitals) != len(self.public_keys):
            raise ValueError("every hospital needs a name of its own and one public key")
        if not 2 <= self.threshold <= len(self.hospitals):
            raise ValueError(f"threshold must be from 2 to the {len(self.hospitals)} hospitals, got {self.threshold}")


@dataclass(frozen=True)
class OwnSecrets:
    """What a hospital draws for itself, for one sum.

    Attributes:
        private_key: Its X25519 key, 32 bytes: with the others' public keys, the seeds of the pairwise masks.
        self_seed: The seed of its own mask, 32 bytes.
    """

    private_key: bytes = field(repr=False)
    self_seed: bytes = field(repr=False)


@dataclass(frozen=True)
class HeldShares:
    """What one hospital holds of another's secrets."""

    private_key: Share
    self_seed: Share


@dataclass(frozen=True)
class HospitalKeys:
    """What one hospital alone knows.

    Attributes:
        hospital: Its name.
        own: Its secrets.
        held: Its shares of everybody's secrets (its own included), by their owner.
    """

    hospital: str
    own: OwnSecrets
    held: Mapping[str, HeldShares]


def safe_threshold(num_hospitals: int) -> int:
    """The smallest threshold above two thirds of the hospitals (Bonawitz et al. 2017), at least 2.

    To get both secrets of one hospital, a server needs 2 * threshold answers. Each hospital gives one, and two if it
    helps the server: with c of them that is n + c answers, too few unless c is more than a third of n.
    """
    return max(2, 2 * num_hospitals // 3 + 1)


def draw_secrets(source: ByteSource) -> OwnSecrets:
    """A hospital's secrets for one sum."""
    return OwnSecrets(private_key=source(_SECRET_BYTES), self_seed=source(_SECRET_BYTES))


def public_key(own: OwnSecrets) -> bytes:
    """What a hospital tells everybody, 32 bytes."""
    return _public(own.private_key)


def deal_shares(own: OwnSecrets, enrolment: Enrolment, source: ByteSource) -> tuple[HeldShares, ...]:
    """A hospital's secrets as shares, one pair for each hospital in the enrolment's order."""
    count = len(enrolment.hospitals)
    keys, seeds = (
        split_secret(int.from_bytes(secret, "little"), threshold=enrolment.threshold, count=count, source=source)
        for secret in (own.private_key, own.self_seed)
    )
    return tuple(HeldShares(private_key=key, self_seed=seed) for key, seed in zip(keys, seeds, strict=True))


def enrol(
    hospitals: Sequence[str], *, round: int, threshold: int, source_of: Callable[[str], ByteSource]
) -> tuple[Enrolment, Mapping[str, HospitalKeys]]:
    """Play the rounds of messages in which hospitals exchange their keys and shares, all in one place.

    Args:
        hospitals: Names, in their fixed order.
        round: The round whose updates will be summed.
        threshold: How many hospitals have to survive, from 2 to all; see :func:`safe_threshold`.
        source_of: From a hospital's name to where its secrets come from, for example
            ``lambda name: seeded_bytes(seed, name, round, "secure sum")``.

    Returns:
        What everybody knows, and what each hospital alone knows, by its name.
    """
    sources = {hospital: source_of(hospital) for hospital in hospitals}
    own = {hospital: draw_secrets(sources[hospital]) for hospital in hospitals}
    enrolment = Enrolment(
        round=round,
        hospitals=tuple(hospitals),
        public_keys=tuple(public_key(own[hospital]) for hospital in hospitals),
        threshold=threshold,
    )
    dealt = {owner: deal_shares(own[owner], enrolment, sources[owner]) for owner in hospitals}
    keys = {
        hospital: HospitalKeys(
            hospital=hospital, own=own[hospital], held={owner: dealt[owner][position] for owner in hospitals}
        )
        for position, hospital in enumerate(hospitals)
    }
    return enrolment, keys


# Masks.


def _keystream(key: bytes) -> CipherContext:
    # A nonce of zeros: every key is used for one stream.
    return Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()


def _public(private_key: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def _pairwise_masks(
    hospital: str, private_key: bytes, others: Iterable[str], enrolment: Enrolment
) -> list[tuple[bytes, int]]:
    """The seeds that a hospital shares with ``others``, each with the sign of the mask in the hospital's own update.

    Of two hospitals, the first in the enrolment's order adds and the other one subtracts.
    """
    places = {name: place for place, name in enumerate(enrolment.hospitals)}
    key = X25519PrivateKey.from_private_bytes(private_key)
    masks = []
    for other in others:
        agreed = key.exchange(X25519PublicKey.from_public_bytes(enrolment.public_keys[places[other]]))
        # What X25519 gives is not uniform.
        derivation = HKDF(hashes.SHA256(), length=_SECRET_BYTES, salt=None, info=b"hbdp_fed secure sum pairwise mask")
        masks.append((derivation.derive(agreed), 1 if places[hospital] < places[other] else -1))
    return masks


def _with_masks(words: Weights, masks: Sequence[tuple[bytes, int]], grid: FixedPoint) -> Weights:
    """``words`` plus masks, each given by its seed and its sign, modulo 2^bits.

    One tensor after the other in their order, so that no mask is ever held whole.
    """
    streams = [(_keystream(seed), sign) for seed, sign in masks]
    result = {}
    for name, value in words.items():
        # In NumPy, as unsigned numbers: their overflow is defined, and 2^bits divides 2^64.
        total = value.reshape(-1).numpy().astype(np.uint64)
        for stream, sign in streams:
            mask = np.frombuffer(stream.update(bytes(total.size * _WORD_BYTES)), dtype="<u8")
            (np.add if sign > 0 else np.subtract)(total, mask, out=total)
        result[name] = torch.from_numpy((total % np.uint64(grid.modulus)).astype(np.int64)).reshape(value.shape)
    return result


# What hospitals do.


@dataclass(frozen=True)
class MaskedUpdate:
    """What a hospital sends: uniform numbers to everybody who lacks a seed of its masks.

    Attributes:
        hospital: Its name.
        round: The update's.
        words: int64 in [0, 2^bits), by the update's names and of its shapes.
    """

    hospital: str
    round: int
    words: Weights


@dataclass(frozen=True)
class ReleasedShares:
    """What a hospital tells the server when it is known whose updates are in the sum.

    Attributes:
        hospital: Its name.
        self_seed: Its shares of the own masks' seeds, by owner: of those in the sum.
        private_key: Its shares of the keys of the pairwise masks, by owner: of those that dropped out.

    Raises:
        ValueError: if it tells both of the same owner.
    """

    hospital: str
    self_seed: Mapping[str, Share]
    private_key: Mapping[str, Share]

    def __post_init__(self) -> None:
        both = sorted(set(self.self_seed) & set(self.private_key))
        if both:
            raise ValueError(f"both secrets of {', '.join(both)} would lay that update open")


def masked_update(
    update: ModelUpdate, *, weight: float, keys: HospitalKeys, enrolment: Enrolment, grid: FixedPoint
) -> MaskedUpdate:
    """A hospital's weighted update on the grid, under its masks.

    Args:
        update: The hospital's update in the enrolment's round.
        weight: What the update is multiplied by before it is rounded.
        keys: The hospital's.
        enrolment: Whose masks cancel.
        grid: Wide enough for all hospitals of the enrolment.

    Raises:
        OverflowError: if a coordinate of the weighted update exceeds the grid's bound.
        ValueError: if the update is of another round or hospital, or the grid too narrow for so many.
    """
    if (update.hospital, update.round) != (keys.hospital, enrolment.round):
        raise ValueError(
            f"{keys.hospital} enrolled for round {enrolment.round}, not {update.hospital} for round {update.round}"
        )
    if grid.summands < len(enrolment.hospitals):
        raise ValueError(f"a grid for {grid.summands} summands is too narrow for {len(enrolment.hospitals)} hospitals")
    words = {name: grid.encode(value.double() * weight) for name, value in update.delta.items()}
    others = [other for other in enrolment.hospitals if other != keys.hospital]
    masks = [(keys.own.self_seed, 1), *_pairwise_masks(keys.hospital, keys.own.private_key, others, enrolment)]
    return MaskedUpdate(hospital=update.hospital, round=update.round, words=_with_masks(words, masks, grid))


def release_shares(keys: HospitalKeys, enrolment: Enrolment, survivors: Sequence[str]) -> ReleasedShares:
    """A hospital's answer to the server: shares of one secret of every hospital. It must answer once an enrolment.

    Args:
        keys: The hospital's.
        enrolment: The sum's.
        survivors: Those whose updates the server says are in the sum.

    Raises:
        PermissionError: if there are fewer survivors than the threshold, or one that did not enrol.
    """
    unknown = sorted(set(survivors) - set(enrolment.hospitals))
    if unknown or len(set(survivors)) < enrolment.threshold:
        raise PermissionError(
            f"{keys.hospital} gives no shares: the sum must hold at least {enrolment.threshold} of the enrolled "
            f"hospitals and nobody else, got {', '.join(survivors) or 'none'}"
        )
    inside = set(survivors)
    return ReleasedShares(
        hospital=keys.hospital,
        self_seed={owner: held.self_seed for owner, held in keys.held.items() if owner in inside},
        private_key={owner: held.private_key for owner, held in keys.held.items() if owner not in inside},
    )


# What the server does.


@dataclass(frozen=True)
class MaskedSum:
    """What the server holds before it unmasks.

    Attributes:
        hospitals: Those whose updates are in it.
        words: Their sum modulo 2^bits, int64.
    """

    hospitals: tuple[str, ...]
    words: Weights


def add_masked(updates: Iterable[MaskedUpdate], *, enrolment: Enrolment, grid: FixedPoint) -> MaskedSum:
    """Add up what hospitals sent, one at a time. Integers: the order does not matter, not even to the last bit.

    Raises:
        HospitalFailure: if there are none.
        ValueError: if one is not of this enrolment, comes twice, or has other names, shapes or numbers.
    """
    hospitals: list[str] = []
    total: dict[str, Tensor] = {}
    for update in updates:
        if update.hospital not in enrolment.hospitals or update.round != enrolment.round:
            raise ValueError(f"{update.hospital} did not enrol for the sum of round {update.round}")
        if update.hospital in hospitals:
            raise ValueError(f"{update.hospital} sent two updates")
        if not all(_in_ring(value, grid) for value in update.words.values()):
            raise ValueError(f"{update.hospital} sent numbers that are not modulo 2^{grid.bits}")
        if not hospitals:
            total = {name: value.clone() for name, value in update.words.items()}
        elif _layout(update.words) != _layout(total):
            raise ValueError(f"the update of {update.hospital} has other tensors than that of {hospitals[0]}")
        else:
            for name, value in update.words.items():
                # Reduced at once: both are below 2^54, and their sum is far from the end of int64.
                total[name].add_(value).remainder_(grid.modulus)
        hospitals.append(update.hospital)
    if not hospitals:
        raise HospitalFailure("the federation", "no hospital sent a masked update")
    return MaskedSum(hospitals=tuple(name for name in enrolment.hospitals if name in hospitals), words=total)


def unmask_sum(
    total: MaskedSum, released: Sequence[ReleasedShares], *, enrolment: Enrolment, grid: FixedPoint
) -> Weights:
    """The sum of the weighted updates of those that did not drop out, float64.

    Off by at most ``grid.max_error(len(total.hospitals))`` in each coordinate. It is no mean where hospitals dropped
    out: their weights are missing, and the caller divides by the weights that are left.

    Args:
        total: From :func:`add_masked`.
        released: The hospitals' answers of :func:`release_shares` for ``total.hospitals``.
        enrolment: The sum's.
        grid: As the hospitals had it.

    Raises:
        HospitalFailure: if fewer hospitals answered than the threshold. The sum then stays masked.
        ValueError: if an answer is about other survivors or by a stranger, or shares do not belong to the secret.
    """
    dropped = [name for name in enrolment.hospitals if name not in total.hospitals]
    answers = {answer.hospital: answer for answer in released}
    strangers = sorted(set(answers) - set(enrolment.hospitals))
    if strangers:
        raise ValueError(f"{', '.join(strangers)} did not enrol and can hold no shares")
    silent = [name for name in enrolment.hospitals if name not in answers]
    if len(enrolment.hospitals) - len(silent) < enrolment.threshold:
        raise HospitalFailure(
            ", ".join(silent),
            f"the sum of round {enrolment.round} stays masked: {len(enrolment.hospitals) - len(silent)} of "
            f"{len(enrolment.hospitals)} hospitals gave their shares, and {enrolment.threshold} are needed",
        )
    for answer in answers.values():
        if set(answer.self_seed) != set(total.hospitals) or set(answer.private_key) != set(dropped):
            raise ValueError(f"the shares of {answer.hospital} are for another list of survivors")
    masks = []
    for name in total.hospitals:
        seed = _secret_of(name, [answer.self_seed[name] for answer in answers.values()], enrolment)
        masks.append((seed, -1))
    for name in dropped:
        key = _secret_of(name, [answer.private_key[name] for answer in answers.values()], enrolment)
        if _public(key) != enrolment.public_keys[enrolment.hospitals.index(name)]:
            raise ValueError(f"the shares of the key of {name} do not belong together")
        # The survivors' masks have the opposite signs, and are taken away.
        masks += _pairwise_masks(name, key, total.hospitals, enrolment)
    words = _with_masks(total.words, masks, grid)
    return {name: grid.decode(value) for name, value in words.items()}


def _in_ring(words: Tensor, grid: FixedPoint) -> bool:
    return words.dtype == torch.int64 and bool(((words >= 0) & (words < grid.modulus)).all())


def _layout(words: Weights) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(value.shape)) for name, value in words.items()]


def _secret_of(owner: str, shares: Sequence[Share], enrolment: Enrolment) -> bytes:
    secret = recover_secret(shares, threshold=enrolment.threshold)
    if secret >> (8 * _SECRET_BYTES):
        raise ValueError(f"the shares of a secret of {owner} do not belong together")
    return secret.to_bytes(_SECRET_BYTES, "little")
