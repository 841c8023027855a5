"""Where a release of several steps went: the weights in between, as an adversary can tell who knows the records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from hbdp_fed.audit.replay import SimulatedTraining, replay_round
from hbdp_fed.training import LocalStep, gradient_weights, round_progress
from hbdp_fed.types import DpSgdParams, Weights


@dataclass(frozen=True)
class Point:
    """One step of one hospital: where it was taken and by whom.

    Attributes:
        weights: What its gradient was computed at, by parameter name.
        members: int64 (b,), which of the hospital's records its batch held.
        counts: int64 (u,), how many of them each drawn patient gave; None where each record is a unit.
        images: Their views.
        labels: Of the views.
        weight: By how much its mean gradient moved the weights in all, with the sign turned.
        round: Which round of the release it belongs to, from 0.
        step: Which step of the round, from 0.
    """

    weights: Weights
    members: Tensor
    counts: Tensor | None
    images: Tensor
    labels: Tensor
    weight: float
    round: int
    step: int


def hospital_paths(
    training: SimulatedTraining,
    shares: Mapping[str, float],
    rounds: Sequence[int],
    before: Weights,
    change: Weights,
) -> dict[str, list[Point]]:
    """The steps that led from ``before`` to ``before + change``, for each hospital.

    They are taken without noise, and then moved, so that the last one ends where the release did: noise adds up evenly
    over the steps, and over the hospitals in proportion to their noise.

    Args:
        training: The federation.
        shares: The hospitals that took part, with their weight in the mean of updates.
        rounds: The release's rounds, consecutive.
        before: The global weights before them.
        change: What they came to.
    """
    here = {name: value.double() for name, value in before.items()}
    paths: dict[str, list[Point]] = {name: [] for name in shares}
    for position, number in enumerate(rounds):
        moved = {name: value.clone() for name, value in here.items()}
        for hospital, share in shares.items():
            taken: list[Point] = []
            result = replay_round(
                training, training.index(hospital), number, here, noiseless=True, watch=_collect(taken, position)
            )
            weights = learning_weights(training, number)
            paths[hospital] += [replace(point, weight=weights[point.step]) for point in taken]
            for name, value in result.delta.items():
                moved[name] += share * value
        here = moved
    missed = {name: before[name].double() + change[name].double() - value for name, value in here.items()}
    part = _noise_parts(training, shares)
    return {
        hospital: [
            replace(
                point,
                weights={
                    name: value.double().cpu()
                    + missed[name] * (point.round + part[hospital] * point.step / training.local_steps) / len(rounds)
                    for name, value in point.weights.items()
                },
            )
            for point in points
        ]
        for hospital, points in paths.items()
    }


def learning_weights(training: SimulatedTraining, number: int) -> list[float]:
    """How much each step of a round moved the weights in all, for the optimiser ``sgd`` or a single step."""
    progress = round_progress(number, rounds=training.rounds, local_steps=training.local_steps)
    return gradient_weights(training.local, progress, training.local_steps)


def step_variance(mechanism: DpSgdParams) -> float:
    """Of the noise in each coordinate of a step's clipped sum."""
    # 0 times inf, the clipping norm of a control, would be no number.
    return (mechanism.noise_multiplier * mechanism.max_grad_norm) ** 2 if mechanism.noise_multiplier > 0 else 0.0


def _collect(taken: list[Point], position: int) -> Callable[[LocalStep], None]:
    def watch(step: LocalStep) -> None:
        weights = {name: value.detach().clone() for name, value in step.weights.items()}
        own = (step.members, step.counts, step.images, step.labels)
        taken.append(Point(weights, *own, weight=1.0, round=position, step=len(taken)))

    return watch


def _noise_parts(training: SimulatedTraining, shares: Mapping[str, float]) -> dict[str, float]:
    """What a hospital's own update most likely missed, for each unit that the mean of all missed."""
    variance = {}
    for hospital in shares:
        plan = training.plans[training.index(hospital)]
        variance[hospital] = step_variance(plan.mechanism) / plan.expected_batch**2
    total = sum(share**2 * variance[hospital] for hospital, share in shares.items())
    return {hospital: share * variance[hospital] / total if total else 1.0 for hospital, share in shares.items()}
