"""How much noise stands between a record and what an adversary sees of several hospitals."""

from __future__ import annotations

import math
from collections.abc import Sequence


def aggregate_noise_multiplier(
    noise_multipliers: Sequence[float],
    *,
    hospital: int,
    local_steps: int,
    sensitivities: Sequence[float] | None = None,
    honest: Sequence[bool] | None = None,
) -> float:
    """The noise multiplier that protects one hospital's records in the sum of all updates (secure aggregation).

    With one local step a round, the sum is a Gaussian mechanism of the hospital's step whose noise is everybody's: its
    variance is the sum of the hospitals' variances. For H hospitals with equal weights that is sqrt(H) sigma. Hospitals
    that tell the adversary their noise, or add none, do not count.

    With **more than one local step** no amplification is granted, and the hospital's own sigma is returned. The second
    step starts from weights that hold the first step's own noise and not the others', so the sum is not a composition
    of steps with the summed noise; a proof would need more than this, and post-processing of the hospital's own update
    is what is left. For the same reason of missing proof, drawing hospitals at random grants nothing here.

    Args:
        noise_multipliers: sigma of every hospital, at least 0.
        hospital: Whose records are meant, an index.
        local_steps: Steps between two aggregations, at least 1.
        sensitivities: By how much one record moves each hospital's share of the sum: weight times clipping norm over
            expected batch, positive; None for equal ones.
        honest: Which hospitals keep their noise to themselves; None for all. The hospital itself must be one.

    Returns:
        The noise's standard deviation in the sum over the sensitivity of the hospital's record.

    Raises:
        ValueError: naming the argument that cannot be used.
    """
    count = len(noise_multipliers)
    scales = [1.0] * count if sensitivities is None else list(sensitivities)
    trusted = [True] * count if honest is None else list(honest)
    if any(not (sigma >= 0 and math.isfinite(sigma)) for sigma in noise_multipliers):
        raise ValueError(f"noise_multipliers must be finite and not negative, got {list(noise_multipliers)}")
    if not 0 <= hospital < count:
        raise ValueError(f"hospital must be an index from 0 to {count - 1}, got {hospital}")
    if local_steps < 1:
        raise ValueError(f"local_steps must be at least 1, got {local_steps}")
    if len(scales) != count or any(not (scale > 0 and math.isfinite(scale)) for scale in scales):
        raise ValueError(f"sensitivities must be one positive number a hospital, got {scales}")
    if len(trusted) != count or not trusted[hospital]:
        raise ValueError("honest must have an entry for every hospital, and the hospital itself must be honest")
    if local_steps > 1:
        return noise_multipliers[hospital]
    parts = [
        sigma * scale for sigma, scale, honest_one in zip(noise_multipliers, scales, trusted, strict=True) if honest_one
    ]
    return math.hypot(*parts) / scales[hospital]
