"""What a record has been exposed to: stretches of training, each with its own noise, sample rate and steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """Consecutive or scattered steps of the Poisson-subsampled Gaussian mechanism that share their parameters.

    Attributes:
        noise_multiplier: sigma, at least 0 and finite; 0 protects nothing.
        sample_rate: q in (0, 1].
        steps: T, at least 0 (a stretch that a hospital missed counts for nothing).
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        check_mechanism(
            noise_multiplier=self.noise_multiplier, sample_rate=self.sample_rate, steps=self.steps, least_steps=0
        )


History = tuple[Segment, ...]
"""A record's whole exposure. The order does not matter: the guarantee of a composition is symmetric in its parts."""


def merged(segments: Iterable[Segment]) -> History:
    """The same exposure in its shortest form: equal mechanisms joined, empty ones left out, the noisiest first."""
    steps: dict[tuple[float, float], int] = {}
    for segment in segments:
        key = (segment.noise_multiplier, segment.sample_rate)
        steps[key] = steps.get(key, 0) + segment.steps
    return tuple(Segment(sigma, q, total) for (sigma, q), total in sorted(steps.items(), reverse=True) if total > 0)


def probability_of_inclusion(history: History) -> float:
    """The probability that a record takes part in at least one step: 1 - prod (1 - q)^T."""
    return -math.expm1(log_probability_never_included(history))


def log_probability_never_included(history: History) -> float:
    """log prod (1 - q)^T; ``-inf`` where some q is 1."""
    return sum((-math.inf if s.sample_rate == 1 else s.steps * math.log1p(-s.sample_rate) for s in history), 0.0)


def check_mechanism(*, noise_multiplier: float, sample_rate: float, steps: int, least_steps: int = 1) -> None:
    """Refuse what is not a Poisson-subsampled Gaussian mechanism.

    Raises:
        ValueError: naming the argument and what it accepts.
    """
    if not (noise_multiplier >= 0 and math.isfinite(noise_multiplier)):
        raise ValueError(f"noise_multiplier must be finite and not negative, got {noise_multiplier}")
    if not 0 < sample_rate <= 1:
        raise ValueError(f"sample_rate must lie in (0, 1], got {sample_rate}")
    if not least_steps <= steps < math.inf or steps != int(steps):
        raise ValueError(f"steps must be a whole number of at least {least_steps}, got {steps}")


def check_delta(delta: float) -> None:
    """Refuse a delta outside (0, 1).

    Raises:
        ValueError: naming the argument.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie strictly between 0 and 1, got {delta}")
