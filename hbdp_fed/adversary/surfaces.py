"""What the hospitals' answers to a probe look like on each surface.

A malicious server that gets every hospital's answer sees ``gradient`` (a probe is one step, so its ``update`` is the
same thing). Under secure aggregation it sees the weighted mean alone, and a bystander the change of the global model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hbdp_fed.types import ALL_HOSPITALS, ModelUpdate, Observation, PublicSideInformation, Surface, Weights


def record_scales(batches: Mapping[str, float], shares: Mapping[str, float]) -> dict[str, float]:
    """By hospital, what one of its records counts in the mean of all answers, the loudest hospital's counting 1.

    A hospital divides its clipped sum by its expected batch, and the server multiplies the result by the hospital's
    share: a record counts share / expected batch.

    Args:
        batches: By hospital that answered, its expected batch.
        shares: Each one's weight in the mean.
    """
    loudness = {hospital: shares[hospital] / batch for hospital, batch in batches.items()}
    largest = max(loudness.values())
    return {hospital: value / largest for hospital, value in loudness.items()}


def seen_on(surface: Surface, answers: Sequence[Observation], shares: Mapping[str, float]) -> list[Observation]:
    """The observations of one probe's round as an adversary at ``surface`` makes them.

    Args:
        surface: Where it stands.
        answers: What each hospital answered, on the surface ``gradient``; at least one. Or the one observation of their
            mean, where nothing else was ever seen.
        shares: Each hospital's weight in the mean; they add up to 1.

    Returns:
        One observation a hospital, or a single one of the mean, whose mechanism is that of the whole sum: the noises
        add up, and a record of the loudest hospital counts as in its own sum.

    Raises:
        ValueError: if a mean is asked for of hospitals that clip to different norms: no one unit fits its noise; or one
            hospital of a mean.
    """
    threat_model = replace(answers[0].threat_model, surface=surface)
    if surface in ("gradient", "update"):
        return [replace(answer, threat_model=threat_model) for answer in answers]
    first = answers[0]
    if first.released.hospital == ALL_HOSPITALS:
        released, public = first.released, first.public
    else:
        public = public_of_mean({answer.released.hospital: answer.public for answer in answers}, shares)
        released = ModelUpdate(
            hospital=ALL_HOSPITALS,
            round=first.released.round,
            delta=_mean([answer.released for answer in answers], shares),
            num_records=sum(answer.released.num_records for answer in answers),
        )
    if surface == "global_model":
        # What is left of the change where weights and change are one number.
        start = {name: value.double() for name, value in first.model_before.items()}
        change = {name: (start[name] + value) - start[name] for name, value in released.delta.items()}
        released = replace(released, delta=change)
    return [replace(first, threat_model=threat_model, released=released, public=public)]


def public_of_mean(publics: Mapping[str, PublicSideInformation], shares: Mapping[str, float]) -> PublicSideInformation:
    """What the adversary knows beside the hospitals' weighted mean.

    Args:
        publics: By hospital in the mean, what it knows beside that one's answer.
        shares: Each one's weight; they add up to 1.

    Returns:
        With the mechanism of the whole sum: the noises add up, and a record of the loudest hospital counts as in its
        own sum.

    Raises:
        ValueError: if hospitals clip to different norms: no one unit fits the noise.
    """
    norms = {public.mechanism.max_grad_norm for public in publics.values()}
    if len(norms) > 1:
        raise ValueError(f"the mean of hospitals needs one clipping norm, got {sorted(norms)}")
    scales = record_scales({hospital: public.expected_batch for hospital, public in publics.items()}, shares)
    noise = math.hypot(*(scales[hospital] * public.mechanism.noise_multiplier for hospital, public in publics.items()))
    loudest = max(publics, key=lambda hospital: scales[hospital])
    first = next(iter(publics.values()))
    return replace(
        first,
        mechanism=replace(first.mechanism, noise_multiplier=noise),
        expected_batch=publics[loudest].expected_batch / shares[loudest],
        records_per_unit=publics[loudest].records_per_unit,
    )


def _mean(updates: Sequence[ModelUpdate], shares: Mapping[str, float]) -> Weights:
    """In the order of the updates: floating-point addition is not associative."""
    mean = {}
    for name in updates[0].delta:
        value = updates[0].delta[name].double() * shares[updates[0].hospital]
        for update in updates[1:]:
            value = value + update.delta[name].double() * shares[update.hospital]
        mean[name] = value
    return mean
