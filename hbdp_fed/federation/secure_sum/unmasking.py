"""From masked updates to their sum: what hospitals release for it, and what the server makes of that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hbdp_fed.errors import HospitalFailure, Refusal
from hbdp_fed.federation.secure_sum.enrolment import Enrolment, HospitalKeys, public_of
from hbdp_fed.federation.secure_sum.fixed_point import FixedPoint
from hbdp_fed.federation.secure_sum.masking import MaskedUpdate, pairwise_masks, with_masks
from hbdp_fed.federation.secure_sum.sharing import Share, recover_secret
from hbdp_fed.federation.secure_sum.sources import SECRET_BYTES
from hbdp_fed.types import Weights


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


def release_shares(keys: HospitalKeys, enrolment: Enrolment, survivors: Sequence[str]) -> ReleasedShares:
    """A hospital's answer to the server: shares of one secret of every hospital. It must answer once an enrolment.

    Args:
        keys: The hospital's.
        enrolment: The sum's.
        survivors: Those whose updates the server says are in the sum.

    Raises:
        Refusal: if there are fewer survivors than the threshold, or one that did not enrol.
    """
    unknown = sorted(set(survivors) - set(enrolment.hospitals))
    if unknown or len(set(survivors)) < enrolment.threshold:
        raise Refusal(
            f"{keys.hospital} gives no shares: the sum must hold at least {enrolment.threshold} of the enrolled "
            f"hospitals and nobody else, got {', '.join(survivors) or 'none'}"
        )
    inside = set(survivors)
    return ReleasedShares(
        hospital=keys.hospital,
        self_seed={owner: held.self_seed for owner, held in keys.held.items() if owner in inside},
        private_key={owner: held.private_key for owner, held in keys.held.items() if owner not in inside},
    )


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
        if public_of(key) != enrolment.public_keys[enrolment.hospitals.index(name)]:
            raise ValueError(f"the shares of the key of {name} do not belong together")
        # The survivors' masks have the opposite signs, and are taken away.
        masks += pairwise_masks(name, key, total.hospitals, enrolment)
    words = with_masks(total.words, masks, grid)
    return {name: grid.decode(value) for name, value in words.items()}


def _in_ring(words: Tensor, grid: FixedPoint) -> bool:
    return words.dtype == torch.int64 and bool(((words >= 0) & (words < grid.modulus)).all())


def _layout(words: Weights) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(value.shape)) for name, value in words.items()]


def _secret_of(owner: str, shares: Sequence[Share], enrolment: Enrolment) -> bytes:
    secret = recover_secret(shares, threshold=enrolment.threshold)
    if secret >> (8 * SECRET_BYTES):
        raise ValueError(f"the shares of a secret of {owner} do not belong together")
    return secret.to_bytes(SECRET_BYTES, "little")
