"""Games on corrected steps: what was added is known to everybody, and what is left is the noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hbdp_fed.audit.candidates import draw_game, play_rounds, play_steps
from hbdp_fed.audit.candidates.releases import ReplayDiffers
from hbdp_fed.audit.replay import SimulatedTraining, replay_round
from hbdp_fed.data import Records
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.seeding import generator
from hbdp_fed.training import LocalSettings, LocalStep
from hbdp_fed.types import DpSgdParams, HospitalPlan, ModelSpec, OptimizerSettings, Weights

SPEC = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
NAME, SIZE, POOL = "hospital-01", 14, 6


def records(size: int, name: str) -> Records:
    draw = generator(0, name)
    return Records(torch.rand(size, 1, 12, 12, generator=draw), torch.randint(0, 2, (size,), generator=draw))


def corrected(*, local_steps: int, noise: float = 0.4) -> tuple[SimulatedTraining, Weights]:
    start = initial_weights(build_model(SPEC), generator(0, "weights"))
    added: Weights = {
        name: 0.3 * torch.randn(value.shape, generator=generator(0, "added", name), dtype=torch.float64)
        for name, value in start.items()
    }
    training = SimulatedTraining(
        seed=0,
        architecture=SPEC,
        local=LocalSettings(optimizer=OptimizerSettings("sgd", 0.05, 0.9), correction="scaffold"),
        rounds=1,
        local_steps=local_steps,
        plans=(HospitalPlan(NAME, SIZE, DpSgdParams(noise, 0.8, 0.5, local_steps), eps_rdp=1.0),),
        records=(records(SIZE, "held"),),
        shares=(1.0,),
        device=torch.device("cpu"),
        added={(NAME, 1): added},
    )
    return training, start


def ignore(step: LocalStep) -> None:
    pass


def test_a_round_of_one_step_shows_the_same_on_both_surfaces() -> None:
    training, start = corrected(local_steps=1)
    update = replay_round(training, 0, 1, start, watch=ignore).delta
    pool = records(POOL, "pool")
    game = draw_game(records=SIZE, pool=POOL, targets=5, candidates=4, generator=generator(0, "game"))
    steps = play_steps(training, NAME, {1: (start, update)}, game, pool)
    [rounds] = play_rounds(training, "update", {(1,): (start, {NAME: update})}, {NAME: (game, pool)})
    # An update is the learning rate times the gradient.
    torch.testing.assert_close(rounds.candidates.projections / 0.05, steps.candidates.projections, rtol=1e-4, atol=1e-6)


def test_of_several_steps_little_more_than_the_noise_is_left() -> None:
    training, start = corrected(local_steps=3, noise=3.0)
    update = replay_round(training, 0, 1, start, watch=ignore).delta
    pool = records(POOL, "pool")
    game = draw_game(records=SIZE, pool=POOL, targets=5, candidates=4, generator=generator(0, "game"))
    sent = {(1,): (start, {NAME: update})}
    [found] = play_rounds(training, "update", sent, {NAME: (game, pool)})
    # Learning rates 0.05 with momentum 0.9 weigh the three gradients by 2.71, 1.9 and 1 times that.
    noise = (3.0 * 0.8 * 0.05) ** 2 * (2.71**2 + 1.9**2 + 1)
    assert float(found.candidates.noise_variance[0]) == pytest.approx(noise, rel=0.1)


def test_who_does_not_know_what_was_added_cannot_take_the_steps_again() -> None:
    training, start = corrected(local_steps=2)
    update = replay_round(training, 0, 1, start, watch=ignore).delta
    game = draw_game(records=SIZE, pool=POOL, targets=2, candidates=2, generator=generator(0, "game"))
    for added in ({}, {(NAME, 1): {name: 0 * value for name, value in training.added[NAME, 1].items()}}):
        with pytest.raises((KeyError, ReplayDiffers)):
            play_steps(replace(training, added=added), NAME, {1: (start, update)}, game, records(POOL, "pool"))
