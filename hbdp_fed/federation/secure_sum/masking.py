"""What a hospital sends: its weighted update on the grid, under masks that cancel in the sum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hbdp_fed.federation.secure_sum.enrolment import Enrolment, HospitalKeys
from hbdp_fed.federation.secure_sum.fixed_point import FixedPoint
from hbdp_fed.federation.secure_sum.sources import SECRET_BYTES, keystream
from hbdp_fed.types import ModelUpdate, Weights

_WORD_BYTES = 8


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
    masks = [(keys.own.self_seed, 1), *pairwise_masks(keys.hospital, keys.own.private_key, others, enrolment)]
    return MaskedUpdate(hospital=update.hospital, round=update.round, words=with_masks(words, masks, grid))


def pairwise_masks(
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
        derivation = HKDF(hashes.SHA256(), length=SECRET_BYTES, salt=None, info=b"hbdp_fed secure sum pairwise mask")
        masks.append((derivation.derive(agreed), 1 if places[hospital] < places[other] else -1))
    return masks


def with_masks(words: Weights, masks: Sequence[tuple[bytes, int]], grid: FixedPoint) -> Weights:
    """``words`` plus masks, each given by its seed and its sign, modulo 2^bits.

    One tensor after the other in their order, so that no mask is ever held whole.
    """
    streams = [(keystream(seed), sign) for seed, sign in masks]
    result = {}
    for name, value in words.items():
        # In NumPy, as unsigned numbers: their overflow is defined, and 2^bits divides 2^64.
        total = value.reshape(-1).numpy().astype(np.uint64)
        for stream, sign in streams:
            mask = np.frombuffer(stream.update(bytes(total.size * _WORD_BYTES)), dtype="<u8")
            (np.add if sign > 0 else np.subtract)(total, mask, out=total)
        result[name] = torch.from_numpy((total % np.uint64(grid.modulus)).astype(np.int64)).reshape(value.shape)
    return result
