"""What a hospital draws for one sum, what it tells everybody, and what it holds of the others' secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from hbdp_fed.federation.secure_sum.sharing import Share, split_secret
from hbdp_fed.federation.secure_sum.sources import SECRET_BYTES, ByteSource


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

    def among(self, hospitals: Sequence[str]) -> Enrolment:
        """The same for those alone who dealt their shares: a hospital whose shares nobody holds cannot be in the sum.

        Args:
            hospitals: Some of the enrolled ones, in any order.
        """
        keys = dict(zip(self.hospitals, self.public_keys, strict=True))
        names = tuple(name for name in self.hospitals if name in set(hospitals))
        return Enrolment(self.round, names, tuple(keys[name] for name in names), self.threshold)


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
    return OwnSecrets(private_key=source(SECRET_BYTES), self_seed=source(SECRET_BYTES))


def public_key(own: OwnSecrets) -> bytes:
    """What a hospital tells everybody, 32 bytes."""
    return public_of(own.private_key)


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


def public_of(private_key: bytes) -> bytes:
    """The public half of an X25519 key, 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def is_public_key(key: bytes) -> bool:
    """Whether a secret can be agreed on with the owner of an X25519 key.

    With the few points of small order everybody agrees on zeros, which RFC 7748 (section 6.1) lets one refuse: a
    hospital that sent one would make all others fail after they have trained.

    Args:
        key: 32 bytes.
    """
    try:
        X25519PrivateKey.from_private_bytes(bytes(SECRET_BYTES)).exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError:
        return False
    return True
