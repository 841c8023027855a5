"""What training costs: time, bytes that travel, and energy, a round and in all.

A round waits for its slowest hospital. A hospital that can be reached with probability a takes part in that share of
the rounds; outages are independent, and nobody waits for who is not there. With the hospitals from the slowest to the
quickest, t_1 >= t_2 >= ..., a round is expected to take sum_i t_i a_i prod_{j < i} (1 - a_j).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hbdp_fed.planning.consortium import Consortium, HospitalEntry
from hbdp_fed.planning.model_size import ModelSize
from hbdp_fed.training.pace import DOWNLOAD_BYTES, UPLOAD_BYTES, Pace, SiteProfile

ARRAY_BYTES = 128
"""What each array of a message has before its numbers: NumPy's header."""

ENVELOPE_BYTES = 700
"""What a message has besides its arrays, rounded up: names, the model's description, a hospital's report."""

GIVEN, CALIBRATED, PROFILE = "given", "calibrated", "profile"
"""Where a speed comes from: the consortium's file, a measurement on this machine, or a plausible default."""

_JOULE = 1 / 3600
"""In watt-hours."""

_NAME_BYTES = 80
"""An array's name, shape and type beside it, about."""


@dataclass(frozen=True)
class Speed:
    """How quick a hospital is at this model and image size.

    Attributes:
        records_per_s: Record gradients a second, every view counted.
        source: :data:`GIVEN`, :data:`CALIBRATED` or :data:`PROFILE`.
    """

    records_per_s: float
    source: str


@dataclass(frozen=True)
class HospitalCost:
    """One hospital's part.

    Attributes:
        name: Its own.
        compute_s: Of a round that it takes part in.
        transfer_s: Of the same: latency, download and upload.
        round_s: Both.
        gigabytes: That travel to it and from it in all rounds, 1e9 bytes each.
        kilowatt_hours: That its computer draws while it computes, in all rounds.
    """

    name: str
    compute_s: float
    transfer_s: float
    round_s: float
    gigabytes: float
    kilowatt_hours: float


@dataclass(frozen=True)
class RoundCost:
    """A round that everybody takes part in.

    Attributes:
        seconds: Until the slowest has answered.
        gigabytes: That travel.
        watt_hours: That all computers draw while they compute.
        waits_for: The slowest hospital.
    """

    seconds: float
    gigabytes: float
    watt_hours: float
    waits_for: str


@dataclass(frozen=True)
class TotalCost:
    """All rounds, outages taken into account.

    Attributes:
        hours: Expected.
        gigabytes: Expected.
        kilowatt_hours: Expected.
    """

    hours: float
    gigabytes: float
    kilowatt_hours: float


@dataclass(frozen=True)
class Cost:
    """What training costs. Steps besides those of the training rounds are left out."""

    round: RoundCost
    total: TotalCost
    hospitals: tuple[HospitalCost, ...]


def cost(consortium: Consortium, size: ModelSize, speeds: Mapping[str, Speed]) -> Cost:
    """Time, bytes and energy of training.

    Args:
        consortium: A checked one.
        size: Of its model.
        speeds: By hospital.
    """
    rounds = consortium.training.rounds
    sent = round_bytes(size) / 1e9
    hospitals, computing = [], 0.0
    for hospital in consortium.hospitals:
        pace = _pace(consortium, hospital, speeds[hospital.name].records_per_s)
        compute = pace.compute_seconds(consortium.training.local_steps)
        transfer = pace.transfer_seconds(parameters=size.parameters, corrected=False)
        watt_hours = hospital.watts * compute * _JOULE
        taken = rounds * hospital.availability
        hospitals.append(
            HospitalCost(
                name=hospital.name,
                compute_s=compute,
                transfer_s=transfer,
                round_s=compute + transfer,
                gigabytes=taken * sent,
                kilowatt_hours=taken * watt_hours / 1000,
            )
        )
        computing += watt_hours
    slowest = max(hospitals, key=lambda hospital: hospital.round_s)
    seconds = {hospital.name: hospital.round_s for hospital in hospitals}
    return Cost(
        round=RoundCost(
            seconds=slowest.round_s,
            gigabytes=sent * len(hospitals),
            watt_hours=computing,
            waits_for=slowest.name,
        ),
        total=TotalCost(
            hours=rounds * expected_round_seconds(seconds, availability(consortium)) / 3600,
            gigabytes=math.fsum(hospital.gigabytes for hospital in hospitals),
            kilowatt_hours=math.fsum(hospital.kilowatt_hours for hospital in hospitals),
        ),
        hospitals=tuple(hospitals),
    )


def availability(consortium: Consortium) -> Mapping[str, float]:
    """By hospital."""
    return {hospital.name: hospital.availability for hospital in consortium.hospitals}


def expected_round_seconds(seconds: Mapping[str, float], available: Mapping[str, float]) -> float:
    """The expected time of a round, over the hospitals' outages; a round in which nobody is there takes none."""
    expected, nobody_slower = 0.0, 1.0
    for name in sorted(seconds, key=lambda name: -seconds[name]):
        expected += nobody_slower * available[name] * seconds[name]
        nobody_slower *= 1 - available[name]
    return expected


def round_bytes(size: ModelSize) -> int:
    """What travels between the server and one hospital in a round: weights in float32, the update in float64."""
    numbers = size.parameters * (DOWNLOAD_BYTES + UPLOAD_BYTES)
    return numbers + 2 * (size.tensors * (ARRAY_BYTES + _NAME_BYTES) + ENVELOPE_BYTES)


def _pace(consortium: Consortium, hospital: HospitalEntry, records_per_s: float) -> Pace:
    profile = SiteProfile(
        records_per_s=records_per_s,
        download_mbit_s=hospital.download_mbit_s,
        upload_mbit_s=hospital.upload_mbit_s,
        latency_s=hospital.latency_s,
        availability=hospital.availability,
    )
    return Pace(profile, consortium.expected_batch(hospital) * consortium.training.multiplicity)
