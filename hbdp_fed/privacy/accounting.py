"""Epsilon, delta and calibrated noise of the Poisson-subsampled Gaussian mechanism under add/remove of one record.

Two accountants answer, from epsilon 0.1 to 1e15:

- ``rdp`` is Opacus' with its default orders: the convention of Ziller et al. (2024), and so what "a budget of 1e12"
  means in this project. It is an upper bound, and above 1e3 a loose one (:mod:`~hbdp_fed.privacy.renyi`).
- ``tight`` is the smallest of several upper bounds, within a percent of a lower one (:mod:`~hbdp_fed.privacy.tight`).

Every question can be asked of one mechanism (``noise_multiplier``, ``sample_rate``, ``steps``) or of a history of
segments that differ in them: rounds that a hospital missed, hospitals that joined late, stretches with other noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from scipy.optimize import brentq

from hbdp_fed.privacy import tight
from hbdp_fed.privacy.history import (
    History,
    Segment,
    check_delta,
    check_mechanism,
    merged,
    probability_of_inclusion,
)
from hbdp_fed.privacy.renyi import ORDERS, delta_of_renyi, epsilon_by_renyi, epsilon_of_renyi, renyi_divergence
from hbdp_fed.types import Accountant

_FARTHEST = 40.0
"""How far beyond a first guess of the noise, in logarithm, calibration looks."""


@dataclass(frozen=True)
class _Answers:
    """What an accountant can answer about a history, and how its epsilon is inverted.

    Attributes:
        epsilon: From a history and delta.
        delta: From a history and epsilon.
        floor: What epsilon tends to as noise grows in all steps after a history.
        guess: Near which log scale of a history's noise a budget lies.
        precision: To which log scale is solved for. Opacus' numbers are exact; those of grids carry their own error.
    """

    epsilon: Callable[[History, float], float]
    delta: Callable[[History, float], float]
    floor: Callable[[History, float], float]
    guess: Callable[[History, float], float]
    precision: float


def _guess_by_divergence(history: History, eps: float) -> float:
    """At huge budgets epsilon is T order / (2 sigma^2) at the smallest order."""
    divergence = sum(segment.steps * ORDERS[0] / (2 * segment.noise_multiplier**2) for segment in history)
    return 0.5 * math.log(divergence / eps)


def _guess_by_participation(history: History, eps: float) -> float:
    """At huge budgets epsilon is about 1/(2 sigma^2) for each expected participation."""
    loss = sum(max(1.0, part.steps * part.sample_rate) / (2 * part.noise_multiplier**2) for part in history)
    return 0.5 * math.log(loss / eps)


ACCOUNTANTS: Mapping[str, _Answers] = {
    "rdp": _Answers(
        epsilon=lambda history, delta: epsilon_by_renyi(history, delta=delta) if history else 0.0,
        delta=lambda history, epsilon: delta_of_renyi(renyi_divergence(history), epsilon=epsilon) if history else 0.0,
        floor=lambda history, delta: epsilon_by_renyi(history, delta=delta),
        guess=_guess_by_divergence,
        precision=1e-7,
    ),
    "tight": _Answers(
        epsilon=lambda history, delta: tight.epsilon_interval(history, delta=delta)[1],
        delta=lambda history, epsilon: tight.delta_interval(history, epsilon=epsilon)[1],
        floor=lambda history, delta: tight.epsilon_interval(history, delta=delta)[1],
        guess=_guess_by_participation,
        precision=1e-4,
    ),
}
"""The accountants by name."""


def epsilon(
    *, noise_multiplier: float, sample_rate: float, steps: int, delta: float, accountant: Accountant = "rdp"
) -> float:
    """Epsilon of ``steps`` compositions of one mechanism: an upper bound by either accountant.

    Args:
        noise_multiplier: sigma, at least 0; 0 gives ``inf`` (by ``tight`` only where the record takes part at all with
            more than probability ``delta``).
        sample_rate: q in (0, 1].
        steps: T, at least 0.
        delta: in (0, 1).
        accountant: ``rdp`` or ``tight``.

    Raises:
        ValueError: naming the argument that is out of its range.
    """
    segment = Segment(noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps)
    return _cached_epsilon(segment, delta, accountant)


def epsilon_interval(*, noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> tuple[float, float]:
    """A lower and an upper bound of the smallest epsilon there is; the upper one is that of ``accountant="tight"``.

    Args:
        noise_multiplier: sigma, at least 0.
        sample_rate: q in (0, 1].
        steps: T, at least 0.
        delta: in (0, 1).

    Raises:
        ValueError: naming the argument that is out of its range.
    """
    return history_epsilon_interval([Segment(noise_multiplier, sample_rate, steps)], delta=delta)


def delta_for(
    *, epsilon: float, noise_multiplier: float, sample_rate: float, steps: int, accountant: Accountant = "rdp"
) -> float:
    """The delta that goes with an epsilon: an upper bound by either accountant.

    Args:
        epsilon: At least 0.
        noise_multiplier: sigma, at least 0.
        sample_rate: q in (0, 1].
        steps: T, at least 0.
        accountant: ``rdp`` or ``tight``.

    Returns:
        delta in [0, 1].

    Raises:
        ValueError: naming the argument that is out of its range.
    """
    segment = Segment(noise_multiplier, sample_rate, steps)
    return history_delta([segment], epsilon=epsilon, accountant=accountant)


@lru_cache(maxsize=1024)
def calibrate(*, eps: float, delta: float, sample_rate: float, steps: int, accountant: Accountant = "rdp") -> float:
    """The noise multiplier whose epsilon is the budget or just below it.

    Args:
        eps: The budget, positive; ``inf`` gives 0.
        delta: in (0, 1).
        sample_rate: q in (0, 1].
        steps: T, at least 1.
        accountant: ``rdp`` or ``tight``.

    Returns:
        sigma, with ``0.999 * eps <= epsilon(sigma) <= eps``.

    Raises:
        ValueError: naming the argument out of its range, or stating what stands in the way: the floor below which
            ``rdp`` cannot go, or a delta that allows what the budget is meant to prevent.
    """
    check_mechanism(noise_multiplier=1.0, sample_rate=sample_rate, steps=steps)
    return calibrate_history([Segment(1.0, sample_rate, steps)], eps=eps, delta=delta, accountant=accountant)


def history_epsilon(history: Iterable[Segment], *, delta: float, accountant: Accountant = "rdp") -> float:
    """As :func:`epsilon`, of a history of segments."""
    check_delta(delta)
    return _answers(accountant).epsilon(merged(history), delta)


def history_epsilon_interval(history: Iterable[Segment], *, delta: float) -> tuple[float, float]:
    """As :func:`epsilon_interval`, of a history of segments."""
    check_delta(delta)
    return tight.epsilon_interval(merged(history), delta=delta)


def history_delta(history: Iterable[Segment], *, epsilon: float, accountant: Accountant = "rdp") -> float:
    """As :func:`delta_for`, of a history of segments."""
    if not epsilon >= 0:
        raise ValueError(f"epsilon must not be negative, got {epsilon}")
    return _answers(accountant).delta(merged(history), epsilon)


def calibrate_history(
    planned: Iterable[Segment],
    *,
    eps: float,
    delta: float,
    accountant: Accountant = "rdp",
    spent: Iterable[Segment] = (),
) -> float:
    """The factor by which to multiply the noise of every planned segment, so that the whole history keeps a budget.

    Args:
        planned: Segments still to come, with positive noise multipliers that say how they compare.
        eps: The budget of everything, positive; ``inf`` gives 0.
        delta: in (0, 1).
        accountant: ``rdp`` or ``tight``.
        spent: Segments that lie behind; their noise is what it was.

    Returns:
        The factor, with ``0.999 * eps <= epsilon <= eps`` for the history of ``spent`` and the scaled ``planned``.

    Raises:
        ValueError: naming the argument out of its range, or stating what stands in the way.
    """
    if not eps > 0:
        raise ValueError(f"eps must be positive (or inf), got {eps}")
    check_delta(delta)
    answers, future, past = _answers(accountant), merged(planned), merged(spent)
    if not future or any(segment.noise_multiplier == 0 for segment in future):
        raise ValueError("planned must hold at least one step, and every noise_multiplier in it must be positive")
    if math.isinf(eps):
        return 0.0

    def log_excess(log_scale: float) -> float:
        return math.log(max(answers.epsilon(_scaled(past, future, math.exp(log_scale)), delta), 1e-300) / eps)

    floor = answers.floor(past, delta)
    included = probability_of_inclusion(merged((*past, *future)))
    if accountant == "tight" and included <= delta:
        raise ValueError(
            f"delta={delta:g} allows a record to be published whenever it takes part at all, which happens with "
            f"probability {included:.3g}: no noise would be needed. Choose a smaller delta"
        )
    log_scale = None
    if eps > floor:
        log_scale = _solve(log_excess, start=answers.guess(future, eps), precision=answers.precision)
    if log_scale is None:
        reason = f"the Renyi orders end at {ORDERS[-1]:g}" if accountant == "rdp" else "steps already taken spend it"
        raise ValueError(
            f"eps={eps:g} is out of the {accountant} accountant's reach: at delta={delta:g} its epsilon never falls "
            f"below {floor:.4g}, however large the noise is ({reason})"
        )
    return math.exp(log_scale)


def least_epsilon(*, delta: float, accountant: Accountant = "rdp", spent: Iterable[Segment] = ()) -> float:
    """The floor: what an accountant's epsilon tends to as the noise of all further steps grows.

    Args:
        delta: in (0, 1).
        accountant: ``rdp``, whose finite orders leave about 0.103 at delta 1e-5, or ``tight``, which has none.
        spent: Segments that lie behind.
    """
    check_delta(delta)
    return _answers(accountant).floor(merged(spent), delta)


def epsilon_schedule(
    *, noise_multiplier: float, sample_rate: float, delta: float, accountant: Accountant = "rdp"
) -> Callable[[int], float]:
    """Epsilon as a function of the steps taken, for one mechanism: what a ledger needs after every round.

    Args:
        noise_multiplier: sigma, at least 0.
        sample_rate: q in (0, 1].
        delta: in (0, 1).
        accountant: ``rdp`` or ``tight``.

    Returns:
        A function from steps (at least 0) to epsilon; 0 steps spend 0.
    """
    check_delta(delta)
    check_mechanism(noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=1)
    if _answers(accountant) is not ACCOUNTANTS["rdp"]:
        return lambda steps: _cached_epsilon(Segment(noise_multiplier, sample_rate, steps), delta, accountant)
    # Divergences add up over steps: one evaluation, which is the expensive part, serves them all.
    of_one_step = renyi_divergence((Segment(noise_multiplier, sample_rate, 1),))

    def spent(steps: int) -> float:
        check_mechanism(noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps, least_steps=0)
        return 0.0 if steps == 0 else epsilon_of_renyi(of_one_step * steps, delta=delta)

    return spent


@lru_cache(maxsize=4096)
def _cached_epsilon(segment: Segment, delta: float, accountant: Accountant) -> float:
    """Hospitals of one size share their mechanism, and ask the same after every round."""
    return history_epsilon([segment], delta=delta, accountant=accountant)


def _answers(accountant: str) -> _Answers:
    if accountant not in ACCOUNTANTS:
        raise ValueError(f"accountant must be one of {', '.join(ACCOUNTANTS)}, got '{accountant}'")
    return ACCOUNTANTS[accountant]


def _scaled(past: History, future: History, scale: float) -> History:
    scaled = (Segment(segment.noise_multiplier * scale, segment.sample_rate, segment.steps) for segment in future)
    return merged((*past, *scaled))


def _solve(log_excess: Callable[[float], float], start: float, precision: float) -> float | None:
    """The root of a falling function, approached from the right, where the promise is kept; None if it has none."""
    value = lru_cache(maxsize=None)(log_excess)
    low = high = start
    # From a good guess a bracket is near, and near brackets matter: by RDP an evaluation between sigma 0.5 and 5 takes
    # a hundred times one elsewhere.
    while value(low) < 0:
        low -= 1.0
    while value(high) > 0:
        high += 1.0
        if high - start > _FARTHEST:
            return None
    root = low if low == high else float(brentq(value, low, high, xtol=precision))
    while value(root) > 0:
        root += precision
    return root
