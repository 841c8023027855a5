"""How long an honest hospital's update can be: what its clipping, its noise and its learning rate allow."""

from __future__ import annotations

import math
from functools import lru_cache

from hbdp_fed.dpsgd.optimizers import BETA2
from hbdp_fed.types import DpSgdParams, OptimizerSettings

UNLIKELY = 1e-12
"""How often, at most, chance makes a larger batch, and how often louder noise, in one step than is counted with."""


def largest_update_norm(
    mechanism: DpSgdParams,
    optimizer: OptimizerSettings,
    *,
    num_units: int,
    num_parameters: int,
    steps: int,
    start_norm: float,
    proximal: float = 0.0,
    control_norm: float | None = None,
) -> float:
    """A bound on the Euclidean norm of a hospital's update of some steps, but for a chance of 2e-12 a step.

    A step's gradient is (S + Z) / B. At most n units were drawn, each clipped to C, so that |S| <= n C, and the
    noise's squared norm is sigma^2 C^2 times a chi-squared variable with as many degrees of freedom as there are
    parameters. Plain SGD moves by that times the learning rate; momentum m adds a geometric series, 1 / (1 - m). The
    Adam family divides by the root of its second moment, which is at least sqrt(1 - beta2) times any recent gradient,
    so that a coordinate moves by no more than about 1 / sqrt(1 - beta2) learning rates, whatever is clipped. Weight
    decay moves by its share of the weights, and FedProx's term pulls back by its share of the way made so far.
    SCAFFOLD adds c - c_i to a gradient; c_i, a mean of the hospital's own noisy gradients, is no longer than one.

    Args:
        mechanism: The hospital's; its clipping norm may be infinite.
        optimizer: With the largest learning rate of these steps.
        num_units: The hospital's units of privacy: its records, or its patients.
        num_parameters: All of the model's.
        steps: At least 1.
        start_norm: Euclidean norm of the weights before.
        proximal: mu of FedProx.
        control_norm: Euclidean norm of SCAFFOLD's c, for ``sgd``; None where nothing is corrected.

    Returns:
        Positive; infinite for plain SGD without clipping.
    """
    rate, momentum = optimizer.learning_rate, optimizer.momentum
    if optimizer.name == "sgd":
        own = _longest_gradient(mechanism, num_units, num_parameters)
        longest = (own if control_norm is None else 2 * own + control_norm) / (1 - momentum)
        decay, pull = optimizer.weight_decay / (1 - momentum), proximal / (1 - momentum)
    else:
        # The weights of the gradients in a first moment add up to 1; NAdam's look-ahead to less than 2.
        spread = (1 - momentum) / (1 - momentum / math.sqrt(BETA2)) if momentum < math.sqrt(BETA2) else math.inf
        longest, decay = 2 * spread / math.sqrt(1 - BETA2) * math.sqrt(num_parameters), optimizer.weight_decay
        pull = 0.0  # part of the gradient, whose length is all the same to them
    if math.isinf(longest):
        return math.inf
    length = 0.0
    for _ in range(steps):
        length += rate * (longest + decay * (start_norm + length) + pull * length)
    return length


@lru_cache(maxsize=1024)
def _longest_gradient(mechanism: DpSgdParams, num_units: int, num_parameters: int) -> float:
    from scipy import stats  # the server's alone: hospitals start sooner without it

    if math.isinf(mechanism.max_grad_norm):
        return math.inf
    q = mechanism.sample_rate
    drawn = float(stats.binom.isf(UNLIKELY, num_units, q)) if q < 1 else float(num_units)
    noise = mechanism.noise_multiplier * math.sqrt(float(stats.chi2.isf(UNLIKELY, num_parameters)))
    return mechanism.max_grad_norm * (drawn + noise) / (q * num_units)
