"""What a mechanism protects against, in one place: the figures that a plan, a report and a table of budgets share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from hbdp_fed.privacy.accounting import epsilon, epsilon_interval
from hbdp_fed.privacy.image_error import LinearProbe
from hbdp_fed.privacy.reconstruction import relaxed_coherent, relaxed_paper, worst_case


@dataclass(frozen=True)
class Protection:
    """The guarantee of one record at one hospital for all of its steps.

    Attributes:
        eps_rdp: Epsilon by Opacus' RDP accountant, the paper's convention.
        eps_tight: The smallest upper bound of epsilon.
        eps_lower: A lower bound of epsilon: the truth lies between this and ``eps_tight``.
        worst_case: The largest probability of reconstruction by an adversary who holds candidates.
        relaxed: The same for one who does not know the record, whose direction is one and the same in all steps.
        relaxed_paper: The formula of Ziller et al. (2024) for the relaxed model: a reference, not a bound.
    """

    eps_rdp: float
    eps_tight: float
    eps_lower: float
    worst_case: float
    relaxed: float
    relaxed_paper: float


@lru_cache(maxsize=4096)
def protection(*, noise_multiplier: float, sample_rate: float, steps: int, delta: float, prior: float) -> Protection:
    """Every figure for one mechanism.

    Args:
        noise_multiplier: sigma, at least 0.
        sample_rate: q in (0, 1].
        steps: T, at least 1.
        delta: in (0, 1).
        prior: in (0, 1): how likely the adversary names or guesses the record without any release.

    Raises:
        ValueError: naming the argument that is out of its range.
    """
    lower, tight = epsilon_interval(
        noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps, delta=delta
    )
    rdp = epsilon(noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps, delta=delta)
    risks = [
        risk(prior=prior, noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps)
        for risk in (worst_case, relaxed_coherent, relaxed_paper)
    ]
    return Protection(
        eps_rdp=rdp,
        eps_tight=tight,
        eps_lower=lower,
        worst_case=risks[0],
        relaxed=risks[1],
        relaxed_paper=risks[2],
    )


def best_psnr(
    *, noise_multiplier: float, sample_rate: float, steps: int, records: int, pixels: int, image_rms: float
) -> float:
    """How close the best of a hospital's images is expected to come out of the linear probe, in dB.

    Args:
        noise_multiplier: sigma, at least 0.
        sample_rate: q in (0, 1].
        steps: T, at least 1.
        records: How many the hospital has, at least 1.
        pixels: Numbers in an image, all channels counted; at least 2.
        image_rms: Root mean square of their values in [0, 1], positive.

    Returns:
        See :meth:`~hbdp_fed.privacy.image_error.LinearProbe.expected_best_psnr`; ``inf`` without noise.

    Raises:
        ValueError: naming the argument that is out of its range.
    """
    probe = LinearProbe(
        noise_multiplier=noise_multiplier,
        sample_rate=sample_rate,
        steps=steps,
        pixels=pixels,
        norm=image_rms * math.sqrt(pixels),
    )
    return probe.expected_best_psnr(records)
