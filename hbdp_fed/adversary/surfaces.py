"""What the hospitals' answers to a probe look like on each surface.

A malicious server that gets every hospital's answer sees ``gradient`` (a probe is one step, so its ``update`` is the
same thing). Under secure aggregation it sees the weighted mean alone, and a bystander the change of the global model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hbdp_fed.types import ALL_HOSPITALS, ModelUpdate, Observation, Surface, Weights


def record_scales(answers: Sequence[Observation], shares: Mapping[str, float]) -> dict[str, float]:
    """By hospital, what one of its records counts in the mean of all answers, the loudest hospital's counting 1.

    A hospital divides its clipped sum by its expected batch, and the server multiplies the result by the hospital's
    share: a record counts share / expected batch.
    """
    loudness = {
        answer.released.hospital: shares[answer.released.hospital] / answer.public.expected_batch for answer in answers
    }
    largest = max(loudness.values())
    return {hospital: value / largest for hospital, value in loudness.items()}


def seen_on(surface: Surface, answers: Sequence[Observation], shares: Mapping[str, float]) -> list[Observation]:
    """The observations of one probe's round as an adversary at ``surface`` makes them.

    Args:
        surface: Where it stands.
        answers: What each hospital answered, on the surface ``gradient``; at least one.
        shares: Each hospital's weight in the mean; they add up to 1.

    Returns:
        One observation a hospital, or a single one of the mean, whose mechanism is that of the whole sum: the noises
        add up, and a record of the loudest hospital counts as in its own sum.

    Raises:
        ValueError: if a mean is asked for of hospitals that clip to different norms: no one unit fits its noise.
    """
    threat_model = replace(answers[0].threat_model, surface=surface)
    if surface in ("gradient", "update"):
        return [replace(answer, threat_model=threat_model) for answer in answers]
    norms = {answer.public.mechanism.max_grad_norm for answer in answers}
    if len(norms) > 1:
        raise ValueError(f"the mean of hospitals needs one clipping norm, got {sorted(norms)}")
    scales = record_scales(answers, shares)
    mean = _mean([answer.released for answer in answers], shares)
    first = answers[0]
    if surface == "global_model":
        # What is left of the change where weights and change are one number.
        start = {name: value.double() for name, value in first.model_before.items()}
        mean = {name: (start[name] + value) - start[name] for name, value in mean.items()}
    noise = math.hypot(*(scales[a.released.hospital] * a.public.mechanism.noise_multiplier for a in answers))
    released = ModelUpdate(
        hospital=ALL_HOSPITALS,
        round=first.released.round,
        delta=mean,
        num_records=sum(answer.released.num_records for answer in answers),
    )
    loudest = max(answers, key=lambda answer: scales[answer.released.hospital])
    public = replace(
        first.public,
        mechanism=replace(first.public.mechanism, noise_multiplier=noise),
        expected_batch=loudest.public.expected_batch / shares[loudest.released.hospital],
    )
    return [replace(first, threat_model=threat_model, released=released, public=public)]


def _mean(updates: Sequence[ModelUpdate], shares: Mapping[str, float]) -> Weights:
    """In the order of the updates: floating-point addition is not associative."""
    mean = {}
    for name in updates[0].delta:
        value = updates[0].delta[name].double() * shares[updates[0].hospital]
        for update in updates[1:]:
            value = value + update.delta[name].double() * shares[update.hospital]
        mean[name] = value
    return mean
