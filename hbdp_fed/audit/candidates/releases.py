"""From what travelled to what an adversary of the worst case is left with, on each surface.

``gradient``: every step's noisy gradient, and so the weights at every step. ``update``: a round's update of one
hospital. ``aggregate`` and ``global_model``: the hospitals' weighted mean of a round, or of all rounds where only the
last model is seen.

Where a release holds several steps, the weights in between are not seen. The adversary knows all records but one: it
takes the steps again without noise, moves that path so that it ends where the release ended, the difference spread
evenly over the steps, and computes the other records' gradients there. The path is computed with the target's own
gradient in it and its first-order effect is put back into what is left, which spares one replay a game and changes the
path by a term of second order in the learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hbdp_fed.adversary.threat_models import WORST_CASE
from hbdp_fed.adversary.worst_case import participation_law
from hbdp_fed.audit.candidates.game import CandidateGame, Played, Seen, observe
from hbdp_fed.audit.candidates.gradients import Gradients, Release
from hbdp_fed.audit.candidates.paths import Point, hospital_paths, step_variance
from hbdp_fed.audit.replay import SimulatedTraining, largest_difference, replay_round
from hbdp_fed.data.contract import Records
from hbdp_fed.dpsgd import flattened
from hbdp_fed.dpsgd.optimizers import first_gradient
from hbdp_fed.privacy import aggregate_noise_multiplier
from hbdp_fed.seeding import generator
from hbdp_fed.training import LocalStep, optimizer_at, round_progress
from hbdp_fed.types import HospitalPlan, Surface, Weights

LINEAR = "sgd"
"""The optimiser whose steps add up, so that several of them can be told apart again."""

_UNCLIPPED = 1e6
"""Stands for the infinite clipping norm of a control, whose noise is zero whatever this is."""

_SAME = 1e-9
"""How far a replayed update may lie from the one that was sent, in units of its largest coordinate."""


class ReplayDiffers(RuntimeError):
    """A hospital's steps, taken again, did not give what it had sent: another machine or device computed them."""


def play_steps(
    training: SimulatedTraining,
    hospital: str,
    sent: Mapping[int, tuple[Weights, Weights]],
    game: CandidateGame,
    pool: Records,
) -> Played:
    """The games on the surface ``gradient``.

    Args:
        training: The federation.
        hospital: Whose records are the targets.
        sent: By round, the weights that the hospital received and the update that it sent.
        game: The draws.
        pool: The decoys, D records (or the records of D patients) that no hospital holds.

    Raises:
        ReplayDiffers: if the steps, taken again, do not add up to what was sent.
    """
    index = training.index(hospital)
    plan = training.plans[index]
    mechanism = plan.mechanism
    gradients = Gradients(training, mechanism)
    once = participation_law([1.0], mechanism.sample_rate)
    stream = generator(training.seed, "adversary", hospital, "views")
    found: list[Seen] = []

    def watch(step: LocalStep) -> None:
        gradients.move_to(step.weights)
        noisy = flattened(step.gradient, gradients.model) * plan.expected_batch
        # Who holds all records computes the sum that the hospital computed; here it is at hand.
        left = noisy - flattened(step.clipped_sum, gradients.model)
        release = Release(game, pool, training.records[index], gradients, training.local.records_per_patient)
        release.add(step, weight=1.0, stream=stream)
        found.append(
            release.seen(
                left, noise_variance=step_variance(mechanism) or float(left.square().mean()), participation=once
            )
        )

    for number, (before, update) in sorted(sent.items()):
        result = replay_round(training, index, number, before, watch=watch)
        _check_same(hospital, number, result.delta, update)
    steps = len(sent) * training.local_steps
    return _played(plan, found, game, "gradient", sigma=mechanism.noise_multiplier, steps=steps)


def play_rounds(
    training: SimulatedTraining,
    surface: Surface,
    sent: Mapping[tuple[int, ...], tuple[Weights, Mapping[str, Weights]]],
    games: Mapping[str, tuple[CandidateGame, Records]],
) -> list[Played]:
    """The games on the surfaces ``update``, ``aggregate`` and ``global_model``.

    Args:
        training: The federation; where a release holds several steps, its optimiser is ``sgd``.
        surface: Which of the three.
        sent: By the rounds of a release, the global weights before it and what changed: by hospital on the surface
            ``update``, and the weighted mean under any one name on the other two.
        games: By hospital whose records are targets, its draws and decoys.
    """
    found: dict[str, list[Seen]] = {name: [] for name in games}
    for rounds, (before, changes) in sorted(sent.items()):
        if surface == "update":
            for name in games:
                paths = hospital_paths(training, {name: 1.0}, rounds, before, changes[name])
                change = _linear(training, changes[name], before, rounds[0])
                found[name].append(_seen(training, name, {name: 1.0}, paths, change, games[name], rounds))
        else:
            shares = {plan.name: share for plan, share in zip(training.plans, training.shares, strict=True)}
            change = next(iter(changes.values()))
            paths = hospital_paths(training, shares, rounds, before, change)
            for name in games:
                found[name].append(_seen(training, name, shares, paths, change, games[name], rounds))
    steps = sum(len(rounds) for rounds in sent) * training.local_steps
    return [
        _played(
            training.plans[training.index(name)],
            releases,
            games[name][0],
            surface,
            sigma=_protecting_noise(training, name, surface),
            steps=steps,
        )
        for name, releases in found.items()
    ]


def _seen(
    training: SimulatedTraining,
    hospital: str,
    shares: Mapping[str, float],
    paths: Mapping[str, Sequence[Point]],
    change: Weights,
    game: tuple[CandidateGame, Records],
    rounds: Sequence[int],
) -> Seen:
    """One release against one hospital's targets, in units of that hospital's clipped sums."""
    index = training.index(hospital)
    plan, decay = training.plans[index], _decay(training)
    unit = plan.expected_batch / shares[hospital]
    own = Gradients(training, plan.mechanism)
    left = -flattened(change, own.model).double().to(training.device) * unit
    release = Release(game[0], game[1], training.records[index], own, training.local.records_per_patient)
    stream = generator(training.seed, "adversary", hospital, "views")
    variance = 0.0
    for name, points in paths.items():
        other = training.plans[training.index(name)]
        scale = unit * shares[name] / other.expected_batch
        gradients = own if name == hospital else Gradients(training, other.mechanism)
        added = _added(training, name, rounds, own)
        for point in points:
            gradients.move_to(point.weights)
            left -= point.weight * scale * gradients.total(point.images, point.labels, point.counts)
            if decay:
                here = flattened(point.weights, own.model).to(left.device)
                left -= decay * point.weight * unit * shares[name] * here
            if added:
                left -= point.weight * unit * shares[name] * added[point.round]
            variance += (point.weight * scale) ** 2 * step_variance(other.mechanism)
            if name == hospital:
                release.add(point, weight=point.weight, stream=stream)
    return release.seen(
        left,
        # Where the path is guessed, more than noise is left.
        noise_variance=max(variance, float(left.square().mean())),
        participation=participation_law([point.weight for point in paths[hospital]], plan.mechanism.sample_rate),
    )


def _linear(training: SimulatedTraining, change: Weights, before: Weights, number: int) -> Weights:
    """The change as plain SGD would have made it: what an optimiser of the Adam family did in one step is undone."""
    if training.local.optimizer.name == LINEAR:
        return change
    weights = {name: value.float() for name, value in before.items()}
    progress = round_progress(number, rounds=training.rounds, local_steps=training.local_steps)
    settings = optimizer_at(training.local, progress.after(0))
    gradient = first_gradient(change, weights, settings)
    return {name: -settings.learning_rate * value for name, value in gradient.items()}


def _added(training: SimulatedTraining, hospital: str, rounds: Sequence[int], own: Gradients) -> list[Tensor]:
    """What was added to each gradient of the hospital in each of the rounds, which is no secret; empty for nothing."""
    found = [training.added_to(hospital, number) for number in rounds]
    return [flattened(added, own.model).double().to(training.device) for added in found if added is not None]


def _decay(training: SimulatedTraining) -> float:
    settings = training.local.optimizer
    return settings.weight_decay if settings.name == LINEAR else 0.0


def _check_same(hospital: str, number: int, replayed: Weights, sent: Weights) -> None:
    largest = max(float(value.abs().max()) for value in sent.values())
    # Written so that an update that is no number is refused, too.
    if not largest_difference(replayed, sent) <= _SAME * largest:
        raise ReplayDiffers(
            f"the steps of {hospital} in round {number}, taken again, do not give the update that it sent: "
            "replay a run on the machine, the device and with the threads that made it"
        )


def _protecting_noise(training: SimulatedTraining, hospital: str, surface: Surface) -> float:
    """The noise multiplier between a record of the hospital and what the surface shows of each step.

    Whoever sees the last model alone sees less than whoever sees every round's mean, and has the same protection.
    """
    index = training.index(hospital)
    if surface == "update":
        return training.plans[index].mechanism.noise_multiplier
    return aggregate_noise_multiplier(
        [plan.mechanism.noise_multiplier for plan in training.plans],
        hospital=index,
        local_steps=training.local_steps,
        sensitivities=[
            share * min(plan.mechanism.max_grad_norm, _UNCLIPPED) / plan.expected_batch
            for share, plan in zip(training.shares, training.plans, strict=True)
        ],
    )


def _played(
    plan: HospitalPlan, seen: Sequence[Seen], game: CandidateGame, surface: Surface, *, sigma: float, steps: int
) -> Played:
    naming, telling = observe(seen, game, replace(WORST_CASE, surface=surface))
    there = torch.arange(telling.projections.shape[0]) < len(game.targets)
    return Played(
        hospital=plan.name,
        candidates=naming,
        truth=game.truth,
        members=telling,
        was_there=there,
        noise_multiplier=sigma,
        sample_rate=plan.mechanism.sample_rate,
        steps=steps,
        unit=plan.unit,
    )
