"""SCAFFOLD: local steps that are corrected for what makes one hospital's records different from all records.

Karimireddy et al. 2020 (arXiv 1910.06378, algorithm 1, option II). Between aggregations a hospital drifts towards the
optimum of its own records. So each one keeps a control variate c_i, the mean gradient of its last round, the server
keeps their mean c, and a local step goes along g - c_i + c in place of g: the hospital's own direction is replaced by
everybody's.

What c_i becomes is read out of the update, which is released with its noise in any case: it is post-processing, costs
no budget, and nothing but the update has to travel to the server. For SGD with momentum an update is -sum_j w_j (g_j -
c_i + c), where w_j is by how much gradient j moves the weights in all (see :func:`hbdp_fed.dpsgd.step_weights`). With
W = sum_j w_j, which everybody knows, c_i - c - update / W is sum_j w_j g_j / W, a mean of the noisy gradients.
"""

from __future__ import annotations

from hbdp_fed.dpsgd import step_weights
from hbdp_fed.training.local import LocalSettings, optimizer_at
from hbdp_fed.training.schedules import Progress
from hbdp_fed.types import Weights

NO_CORRECTION, SCAFFOLD = "none", "scaffold"

CORRECTIONS = (NO_CORRECTION, SCAFFOLD)
"""How local steps may be corrected."""


def gradient_weights(settings: LocalSettings, progress: Progress, steps: int) -> list[float]:
    """By how much each of a round's gradients moves the weights in all, for the optimiser ``sgd`` or a single step.

    Args:
        settings: How the hospital trains.
        progress: Where in training the round begins.
        steps: Of the round, at least 1.
    """
    rates = [optimizer_at(settings, progress.after(step)).learning_rate for step in range(steps)]
    return step_weights(rates, momentum=settings.optimizer.momentum)


def added_gradient(control: Weights, own: Weights | None) -> Weights:
    """c - c_i, which is added to every noisy gradient of a round.

    Args:
        control: c, float64 by parameter name.
        own: c_i by the same names; None before the hospital's first round, where it is 0.
    """
    return {name: value.double() - (0.0 if own is None else own[name]) for name, value in control.items()}


def mean_gradient(delta: Weights, added: Weights, *, weight: float) -> Weights:
    """The hospital's next c_i: the mean of the noisy gradients of a round, each weighted by how far it moved.

    Args:
        delta: The round's update, float64.
        added: What was added to every gradient, from :func:`added_gradient`.
        weight: The sum of :func:`gradient_weights`, positive.
    """
    return {name: -change / weight - added[name] for name, change in delta.items()}


def next_control(control: Weights, mean_update: Weights, *, share: float, weight: float) -> Weights:
    """The server's next c, float64: c + sum_i p_i (c_i+ - c_i) over those whose update was used.

    By c_i+ - c_i = -c - delta_i / W that is a function of their mean update alone, so that no single update has to be
    kept, or even seen.

    Args:
        control: c as the hospitals were sent it.
        mean_update: sum_i p_i delta_i / sum_i p_i over those that were used.
        share: sum_i p_i over them; the shares p_i of *all* hospitals add up to 1.
        weight: The sum of :func:`gradient_weights`.
    """
    return {name: value - share * (value + mean_update[name] / weight) for name, value in control.items()}
