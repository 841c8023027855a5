"""An average of the global weights over rounds, which is often a better model than the last round's.

It is computed by the server from what it has anyway. Post-processing spends no budget: whatever is done to the output
of a differentially private mechanism without another look at the data is as private as the output.
"""

from __future__ import annotations

from hbdp_fed.types import Weights


def averaging_rate(round: int, *, decay: float) -> float:
    """How much of the old average is kept after round t: min(decay, (1 + t) / (10 + t)).

    The warm-up lets the first rounds' poor weights be forgotten soon (De et al. 2022, arXiv 2204.13650).

    Args:
        round: t, from 1.
        decay: In [0, 1).
    """
    return min(decay, (1 + round) / (10 + round))


def averaged(average: Weights, latest: Weights, *, round: int, decay: float) -> Weights:
    """The exponential moving average after round t: rate * average + (1 - rate) * latest, float64.

    Args:
        average: After the round before; the initial weights before round 1.
        latest: The global weights after this round.
        round: t, from 1.
        decay: In [0, 1); 0 gives ``latest``.
    """
    if decay == 0:
        return latest
    rate = averaging_rate(round, decay=decay)
    return {name: rate * average[name].double() + (1 - rate) * value.double() for name, value in latest.items()}
