"""Games about patients against games that are played one by one: a candidate is a patient with all of its records.

The naive adversary computes each patient's clipped mean gradient by a backward pass of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hbdp_fed.adversary.worst_case import CandidateMatching
from hbdp_fed.audit.candidates import CandidateGame, Played, draw_game, identification_figures, play_rounds, play_steps
from hbdp_fed.audit.candidates.subjects import Subjects
from hbdp_fed.audit.replay import SimulatedTraining, replay_batch, replay_round
from hbdp_fed.data import Records
from hbdp_fed.dpsgd import count_patients
from hbdp_fed.models import build_model, initial_weights, load_weights
from hbdp_fed.seeding import generator
from hbdp_fed.training import LocalSettings, LocalStep
from hbdp_fed.types import DpSgdParams, HospitalPlan, ModelSpec, OptimizerSettings, Weights

SPEC = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
GROUPS = torch.tensor([7, 3, 7, 12, 3, 7, 20, 21, 22, 12])
DECOYS = torch.tensor([101, 100, 101, 102, 103, 104, 104, 104])
START = initial_weights(build_model(SPEC), generator(0, "weights"))
CLIP, RATE, HOSPITAL = 0.8, 0.1, "hospital-01"


def records(groups: Tensor, name: str) -> Records:
    stream = generator(0, name)
    images = torch.rand(len(groups), 1, 12, 12, generator=stream)
    return Records(images=images, labels=torch.randint(2, (len(groups),), generator=stream), groups=groups)


HELD, POOL = records(GROUPS, "held"), records(DECOYS, "pool")


def training(*, steps: int = 1, most: int = 3, sigma: float = 0.5, sample_rate: float = 0.6) -> SimulatedTraining:
    mechanism = DpSgdParams(sigma, CLIP, sample_rate, steps)
    plan = HospitalPlan(HOSPITAL, len(HELD), mechanism, eps_rdp=1.0, patients=count_patients(GROUPS, most))
    return SimulatedTraining(
        seed=3,
        architecture=SPEC,
        local=LocalSettings(optimizer=OptimizerSettings("sgd", RATE, 0.0), records_per_patient=most),
        rounds=1,
        local_steps=steps,
        plans=(plan,),
        records=(HELD,),
        shares=(1.0,),
        device=torch.device("cpu"),
    )


def took(of: SimulatedTraining) -> tuple[Weights, list[LocalStep]]:
    steps: list[LocalStep] = []

    def watch(step: LocalStep) -> None:
        weights = {name: value.detach().clone() for name, value in step.weights.items()}
        gradient = {name: value.clone() for name, value in step.gradient.items()}
        steps.append(replace(step, weights=weights, gradient=gradient))

    return replay_round(of, 0, 1, START, watch=watch).delta, steps


def vector(weights: Weights) -> Tensor:
    return torch.cat([value.detach().double().flatten() for value in weights.values()])


def of_patient(weights: Weights, held: Records, rows: Sequence[int]) -> Tensor:
    model = build_model(SPEC).train()
    load_weights(model, weights)
    loss = functional.cross_entropy(model(held.images[list(rows)]), held.labels[list(rows)])  # the mean over records
    gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))]).double()
    return gradient * min(1.0, CLIP / float(gradient.norm()))


def rows_of(groups: Tensor, place: int) -> list[int]:
    return (groups == groups.unique()[place]).nonzero().flatten().tolist()


def drawn_patients(step: LocalStep) -> Mapping[int, list[int]]:
    """By patient's number, which of its records the step holds."""
    found: dict[int, list[int]] = {}
    for row in step.members.tolist():
        found.setdefault(int(GROUPS[row]), []).append(row)
    return found


def game(targets: int = 6, candidates: int = 4) -> CandidateGame:
    return draw_game(
        records=6, pool=5, targets=targets, candidates=candidates, generator=generator(0, "game")
    )  # six patients, five decoys


def naive(steps: Sequence[LocalStep], of: SimulatedTraining, drawn: CandidateGame) -> Tensor:
    """Projections and squared norms of every game's candidates in their order, (2, M, S, K)."""
    games = []
    for target, decoys, truth in zip(drawn.targets.tolist(), drawn.decoys.tolist(), drawn.truth.tolist(), strict=True):
        candidates = [(POOL, rows_of(DECOYS, place)) for place in decoys]
        candidates.insert(truth, (HELD, rows_of(GROUPS, target)))
        seen = []
        for step in steps:
            rest = vector(step.gradient) * of.plans[0].expected_batch
            for patient, rows in drawn_patients(step).items():
                if patient != int(GROUPS.unique()[target]):
                    rest = rest - of_patient(step.weights, HELD, rows)
            gradients = [of_patient(step.weights, held, rows) for held, rows in candidates]
            seen.append([(float(gradient @ rest), float(gradient @ gradient)) for gradient in gradients])
        games.append(seen)
    return torch.tensor(games, dtype=torch.float64).movedim(-1, 0)


def largest_error(played: Played, expected: Tensor) -> float:
    found = torch.stack([played.candidates.projections, played.candidates.squared_norms])
    assert found.shape == expected.shape
    return float((found - expected).abs().max())


@pytest.mark.parametrize("steps", [1, 3])
def test_on_the_gradients_patients_games_at_once_are_the_games_one_by_one(steps: int) -> None:
    of = training(steps=steps)
    delta, taken = took(of)
    played = play_steps(of, HOSPITAL, {1: (START, delta)}, game(), POOL)
    assert any(max(map(len, drawn_patients(step).values())) == 3 for step in taken)
    assert largest_error(played, naive(taken, of, game())) < 1e-5
    assert played.unit == "patient"


def test_on_an_update_of_one_step_patients_games_are_those_on_its_gradient() -> None:
    of = training()
    delta, taken = took(of)
    (played,) = play_rounds(of, "update", {(1,): (START, {HOSPITAL: delta})}, {HOSPITAL: (game(), POOL)})
    # In units of the learning rate, by which a step's gradient moved the weights.
    expected = naive(taken, of, game()) * torch.tensor([RATE, 1.0])[:, None, None, None]
    assert largest_error(played, expected) < 1e-5


def test_without_noise_every_patient_that_was_drawn_is_named() -> None:
    of = training(sigma=1e-4, sample_rate=1.0)
    delta, _ = took(of)
    played = play_steps(of, HOSPITAL, {1: (START, delta)}, game(), POOL)
    figures = identification_figures(CandidateMatching(), "gradient", [played], generator(0, "a"))
    assert (figures.records, figures.success_rate, figures.unit) == (6, 1.0, "patient")
    assert "all other patients are known" in figures.criterion


def test_a_guess_of_a_patients_records_is_as_many_as_a_step_takes() -> None:
    everybody = Subjects.of(HELD, 2)
    assert len(everybody) == 6
    assert everybody.counts is not None
    chosen = everybody.select(torch.tensor([1, 0]))
    # Patient 7, with three records, and 3, with two.
    assert chosen.counts is not None
    assert chosen.counts.tolist() == [3, 2]
    seen = set()
    for seed in range(20):
        guess = chosen.as_a_step_takes_them(generator(seed, "guess"))
        assert guess.counts is not None
        assert guess.counts.tolist() == [2, 2]
        assert guess.records.groups is not None
        assert guess.records.groups.tolist() == [7, 7, 3, 3]
        seen.add(float(guess.records.images[:2].sum()))
    assert len(seen) == math.comb(3, 2)


def test_a_replayed_probe_holds_the_records_that_the_patients_gave() -> None:
    of = training(most=2)
    _, (step,) = took(of)
    batch = replay_batch(of, HOSPITAL, 1)
    assert torch.equal(batch.images, step.images)
    assert torch.equal(batch.groups, GROUPS[step.members])
    assert step.counts is not None
    assert int(step.counts.max()) == 2
    # Of what was not drawn.
    assert not any(torch.equal(image, other) for image in batch.controls for other in batch.images)
