"""The games of all targets at once against games that are played one by one, by an adversary that holds the others.

The naive adversary here computes each record's gradient by a backward pass of its own, and every game anew. Besides:
who gets a chance to be named, what a game's draws are, and what an adversary must not be handed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn
from torch.nn import functional

from hbdp_fed.adversary.worst_case import CandidateMatching, MembershipInference, participation_law
from hbdp_fed.audit.candidates import (
    CandidateGame,
    Played,
    ReplayDiffers,
    draw_game,
    identification_figures,
    membership_figures,
    play_rounds,
    play_steps,
)
from hbdp_fed.audit.replay import SimulatedTraining
from hbdp_fed.data import Records, load_dataset
from hbdp_fed.dpsgd import poisson_batches, seeded_noise
from hbdp_fed.models import build_model, initial_weights, load_weights
from hbdp_fed.privacy import worst_case
from hbdp_fed.seeding import augmentation_stream, batch_stream, generator, noise_stream
from hbdp_fed.training import (
    LocalSettings,
    LocalStep,
    ScheduleSettings,
    learning_rate_factor,
    round_progress,
    train_locally,
)
from hbdp_fed.types import (
    CandidateObservation,
    DpSgdParams,
    HospitalPlan,
    ModelSpec,
    OptimizerSettings,
    ThreatModel,
    Weights,
)

SPEC = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
NAMES, SIZES, SIGMAS = ("hospital-01", "hospital-02"), (20, 14), (0.7, 0.4)
SHARES = (0.45, 0.55)
CLIP, POOL, CANDIDATES = 0.8, 12, 4
PLAIN = OptimizerSettings("sgd", learning_rate=0.1, momentum=0.0)
FULL = OptimizerSettings("sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.05)
CONSTANT = ScheduleSettings()
COSINE = ScheduleSettings("cosine", warmup=0.2)


@pytest.fixture(scope="module")
def images() -> tuple[Records, Records]:
    """What hospitals hold and what decoys are drawn from."""
    options = {
        "seed": 0, "num_train": sum(SIZES), "num_val": 8, "num_test": POOL, "image_size": 16, "prevalence": 0.5,
    }  # fmt: skip
    data = load_dataset("phantom", root=None, options=options)
    return data.train, data.test


@dataclass(frozen=True)
class Federation:
    """What happened: by round, where it started, what each hospital sent, and each hospital's steps as it took them."""

    training: SimulatedTraining
    pool: Records
    start: tuple[Weights, ...]
    updates: tuple[Mapping[str, Weights], ...]
    steps: tuple[Mapping[str, Sequence[LocalStep]], ...]

    @property
    def rounds(self) -> range:
        return range(1, self.training.rounds + 1)

    def mean(self, number: int) -> Weights:
        updates = self.updates[number - 1]
        return {
            key: sum((share * updates[name][key] for name, share in self.shares.items()), torch.zeros(()))
            for key in self.start[0]
        }

    @property
    def shares(self) -> dict[str, float]:
        return dict(zip(NAMES, self.training.shares, strict=True))

    def to(self, hospital: str) -> dict[int, tuple[Weights, Weights]]:
        return {number: (self.start[number - 1], self.updates[number - 1][hospital]) for number in self.rounds}

    def released(self, surface: str) -> dict[tuple[int, ...], tuple[Weights, Mapping[str, Weights]]]:
        """The argument of ``play_rounds``; ``end`` stands for the last global model alone."""
        if surface == "update":
            return {(number,): (self.start[number - 1], self.updates[number - 1]) for number in self.rounds}
        if surface == "end":
            change = {key: self.start[-1][key] - self.start[0][key] for key in self.start[0]}
            return {tuple(self.rounds): (self.start[0], {"all": change})}
        return {(number,): (self.start[number - 1], {"all": self.mean(number)}) for number in self.rounds}

    def draw(self, *, targets: int, candidates: int = CANDIDATES, seed: int = 0) -> dict[str, CandidateGame]:
        return {
            name: draw_game(
                records=size,
                pool=len(self.pool),
                targets=targets,
                candidates=candidates,
                generator=generator(seed, "game", name),
            )
            for name, size in zip(NAMES, SIZES, strict=True)
        }

    def play(self, surface: str, games: Mapping[str, CandidateGame]) -> list[Played]:
        if surface == "gradient":
            return [play_steps(self.training, name, self.to(name), game, self.pool) for name, game in games.items()]
        return play_rounds(
            self.training,
            "global_model" if surface == "end" else surface,  # type: ignore[arg-type]
            self.released(surface),
            {name: (game, self.pool) for name, game in games.items()},
        )


Federate = Callable[..., Federation]


@pytest.fixture(scope="module")
def federate(images: tuple[Records, Records]) -> Federate:
    """Two hospitals of unequal size and noise train together, by the hospitals' own code and the documented streams."""
    held, pool = images
    records = tuple(held.select(part) for part in torch.arange(sum(SIZES)).split(list(SIZES)))

    def run(
        *,
        local_steps: int,
        rounds: int = 2,
        private: bool = True,
        clipped: bool = True,
        sample_rate: float = 0.4,
        sigmas: Sequence[float] = SIGMAS,
        optimizer: OptimizerSettings = PLAIN,
        schedule: ScheduleSettings = CONSTANT,
        seed: int = 0,
    ) -> Federation:
        plans = tuple(
            HospitalPlan(
                name,
                size,
                DpSgdParams(
                    sigma if private else 0.0, CLIP if clipped else math.inf, sample_rate, rounds * local_steps
                ),
                eps_rdp=1.0,
            )
            for name, size, sigma in zip(NAMES, SIZES, sigmas, strict=True)
        )
        training = SimulatedTraining(
            seed=seed,
            architecture=SPEC,
            local=LocalSettings(optimizer=optimizer, schedule=schedule),
            rounds=rounds,
            local_steps=local_steps,
            plans=plans,
            records=records,
            shares=SHARES,
            device=torch.device("cpu"),
        )
        weights = initial_weights(build_model(SPEC), generator(0, "weights"))
        done = Federation(training, pool, ({key: value.double() for key, value in weights.items()},), (), ())
        for number in done.rounds:
            done = one_round(done, number)
        return done

    return run


def one_round(done: Federation, number: int) -> Federation:
    training, start = done.training, done.start[-1]
    updates: dict[str, Weights] = {}
    steps: dict[str, list[LocalStep]] = {name: [] for name in NAMES}

    def note(name: str) -> Callable[[LocalStep], None]:
        def watch(step: LocalStep) -> None:
            weights = {key: value.detach().clone() for key, value in step.weights.items()}
            gradient = {key: value.clone() for key, value in step.gradient.items()}
            steps[name].append(replace(step, weights=weights, gradient=gradient))

        return watch

    for plan, records in zip(training.plans, training.records, strict=True):
        updates[plan.name] = train_locally(
            architecture=SPEC,
            weights={key: value.float() for key, value in start.items()},
            images=records.images,
            labels=records.labels,
            mechanism=plan.mechanism,
            steps=training.local_steps,
            settings=training.local,
            progress=round_progress(number, rounds=training.rounds, local_steps=training.local_steps),
            noise=seeded_noise(noise_stream(training.seed, plan.name, number)),
            batch_generator=batch_stream(training.seed, plan.name, number),
            augmentation_generator=augmentation_stream(training.seed, plan.name, number),
            device=training.device,
            watch=note(plan.name),
        ).delta
    done = replace(done, updates=(*done.updates, updates), steps=(*done.steps, steps))
    mean = done.mean(number)
    return replace(done, start=(*done.start, {key: start[key] + mean[key] for key in start}))


# The naive adversary.


def vector(weights: Weights) -> Tensor:
    return torch.cat([value.detach().double().flatten() for value in weights.values()])


@cache
def cnn() -> nn.Module:
    return build_model(SPEC).train()


def gradient_of(weights: Weights, records: Records, row: int) -> Tensor:
    """One record's clipped gradient by a backward pass of its own, float64 (P,)."""
    model = cnn()
    load_weights(model, weights)
    loss = functional.cross_entropy(model(records.images[row : row + 1]), records.labels[row : row + 1])
    gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))]).double()
    return gradient * min(1.0, CLIP / float(gradient.norm()))


def total_of(weights: Weights, records: Records, rows: Iterable[int]) -> Tensor:
    total = torch.zeros(sum(value.numel() for value in weights.values()), dtype=torch.float64)
    for row in rows:
        total += gradient_of(weights, records, row)
    return total


@dataclass(frozen=True)
class Left:
    """What is left for one game when the others are taken from a release, and where its candidates are computed."""

    rest: Tensor
    path: Sequence[tuple[Weights, float]]

    def against(self, records: Records, row: int) -> tuple[float, float]:
        """The inner product with a record's mean gradient, and that gradient's squared norm."""
        whole = sum(weight for _, weight in self.path)
        gradient = torch.zeros_like(self.rest)
        for weights, weight in self.path:
            gradient += weight / whole * gradient_of(weights, records, row)
        return float(gradient @ self.rest), float(gradient @ gradient)


Adversary = Callable[[Federation, str, int, int | None], list[Left]]
"""What is left in each release of a hospital (its name, its position) for whoever does not know one record of it.

Where that record is None, all that were there are known.
"""


def step_by_step(federation: Federation, hospital: str, index: int, target: int | None) -> list[Left]:
    training = federation.training
    found = []
    for steps in federation.steps:
        for step in steps[hospital]:
            rows = [row for row in step.members.tolist() if row != target]
            noisy = vector(step.gradient) * training.plans[index].expected_batch
            found.append(Left(noisy - total_of(step.weights, training.records[index], rows), [(step.weights, 1.0)]))
    return found


def rate_of(training: SimulatedTraining, number: int, step: int) -> float:
    progress = ((number - 1) * training.local_steps + step) / (training.rounds * training.local_steps)
    return training.local.optimizer.learning_rate * learning_rate_factor(training.local.schedule, progress)


def decayed(training: SimulatedTraining, weights: Weights, rate: float) -> Tensor:
    """By how much weight decay moved the weights in a step of this rate."""
    return rate * training.local.optimizer.weight_decay * vector(weights)


def round_by_round(federation: Federation, hospital: str, index: int, target: int | None) -> list[Left]:
    """From updates of one step."""
    training, found = federation.training, []
    batch = training.plans[index].expected_batch
    for number in federation.rounds:
        (step,), rate = federation.steps[number - 1][hospital], rate_of(training, number, 0)
        rows = [row for row in step.members.tolist() if row != target]
        rest = -vector(federation.updates[number - 1][hospital]) - decayed(training, step.weights, rate)
        rest = rest * batch - rate * total_of(step.weights, training.records[index], rows)
        found.append(Left(rest, [(step.weights, rate)]))
    return found


def mean_by_mean(federation: Federation, hospital: str, index: int, target: int | None) -> list[Left]:
    """From the mean of all hospitals' updates of one step, in units of this hospital's clipped sums."""
    training, found = federation.training, []
    for number in federation.rounds:
        rate = rate_of(training, number, 0)
        rest = -vector(federation.mean(number))
        for name, plan, records in zip(NAMES, training.plans, training.records, strict=True):
            (step,) = federation.steps[number - 1][name]
            rows = [row for row in step.members.tolist() if name != hospital or row != target]
            mean = total_of(step.weights, records, rows) / plan.expected_batch
            rest = rest - federation.shares[name] * (rate * mean + decayed(training, step.weights, rate))
        unit = training.plans[index].expected_batch / federation.shares[hospital]
        found.append(Left(rest * unit, [(federation.steps[number - 1][hospital][0].weights, rate)]))
    return found


def left_out_by_left_out(federation: Federation, hospital: str, index: int, target: int | None) -> list[Left]:
    """From updates of several steps: takes the steps again without noise and *without the target*.

    That path is moved to where the release ended, evenly over its steps, and the others' gradients are computed there.
    """
    training = federation.training
    found: list[Left] = []
    plan, records, settings = training.plans[index], training.records[index], training.local.optimizer
    for number in federation.rounds:
        start = {key: value.float().double() for key, value in federation.start[number - 1].items()}
        here = {key: value.clone() for key, value in start.items()}
        optimizer = torch.optim.SGD(
            list(here.values()), lr=1.0, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
        path: list[tuple[Weights, Sequence[int]]] = []
        for position, step in enumerate(federation.steps[number - 1][hospital]):
            known = [row for row in step.members.tolist() if row != target]
            path.append(({key: value.clone() for key, value in here.items()}, known))
            mean = total_of(here, records, known) / plan.expected_batch
            for value, part in zip(here.values(), mean.split([one.numel() for one in here.values()]), strict=True):
                value.grad = part.view_as(value)
            optimizer.param_groups[0]["lr"] = rate_of(training, number, position)
            optimizer.step()
        update = federation.updates[number - 1][hospital]
        missed = {key: start[key] + update[key] - value for key, value in here.items()}
        moved = [
            {key: value + missed[key] * position / len(path) for key, value in weights.items()}
            for position, (weights, _) in enumerate(path)
        ]
        counts = [
            sum(
                rate_of(training, number, later) * settings.momentum ** (later - position)
                for later in range(position, len(path))
            )
            for position in range(len(path))
        ]
        rest = -vector(update) * plan.expected_batch
        for weights, (_, rows), count in zip(moved, path, counts, strict=True):
            decay = settings.weight_decay * plan.expected_batch * vector(weights)
            rest = rest - count * (total_of(weights, records, rows) + decay)
        found.append(Left(rest, list(zip(moved, counts, strict=True))))
    return found


def naive_candidates(federation: Federation, hospital: str, game: CandidateGame, adversary: Adversary) -> Tensor:
    """Projections and squared norms of every game's candidates in their order, (2, M, S, K)."""
    index = NAMES.index(hospital)
    games = []
    for target, decoys, truth in zip(game.targets.tolist(), game.decoys.tolist(), game.truth.tolist(), strict=True):
        candidates = [(federation.pool, row) for row in decoys]
        candidates.insert(truth, (federation.training.records[index], target))
        left = adversary(federation, hospital, index, target)
        games.append([[release.against(*candidate) for candidate in candidates] for release in left])
    return torch.tensor(games, dtype=torch.float64).movedim(-1, 0)


def naive_outsiders(federation: Federation, hospital: str, adversary: Adversary) -> Tensor:
    """Of every decoy, held against what is left when all that were there are known, (2, D, S)."""
    left = adversary(federation, hospital, NAMES.index(hospital), None)
    found = [[release.against(federation.pool, row) for release in left] for row in range(len(federation.pool))]
    return torch.tensor(found, dtype=torch.float64).movedim(-1, 0)


def largest_error(played: Played, federation: Federation, game: CandidateGame, adversary: Adversary) -> float:
    """Of all inner products and squared norms; these are at most 0.64, the clipping norm squared, but for the noise."""
    own = naive_candidates(federation, played.hospital, game, adversary)
    outsiders = naive_outsiders(federation, played.hospital, adversary)
    targets = torch.stack([own[:, row, :, truth] for row, truth in enumerate(game.truth.tolist())], dim=1)
    pairs = [
        (played.candidates.projections, own[0]),
        (played.candidates.squared_norms, own[1]),
        (played.members.projections, torch.cat([targets[0], outsiders[0]])[..., None]),
        (played.members.squared_norms, torch.cat([targets[1], outsiders[1]])[..., None]),
    ]
    assert all(found.shape == expected.shape and found.dtype == torch.float64 for found, expected in pairs)
    return max(float((found - expected).abs().max()) for found, expected in pairs)


FLOAT32 = 1e-5
"""Gradients are computed in float32: two ways of doing so differ by some of its last bits."""


@pytest.mark.parametrize(("local_steps", "optimizer"), [(1, PLAIN), (3, FULL)], ids=["one_step", "three_steps"])
def test_on_the_gradients_all_games_at_once_are_the_games_one_by_one(
    federate: Federate, local_steps: int, optimizer: OptimizerSettings
) -> None:
    federation = federate(local_steps=local_steps, optimizer=optimizer)
    games = federation.draw(targets=4)
    for played, game in zip(federation.play("gradient", games), games.values(), strict=True):
        assert played.candidates.projections.shape == (4, 2 * local_steps, CANDIDATES)
        assert largest_error(played, federation, game, step_by_step) < FLOAT32


@pytest.mark.parametrize(
    ("surface", "adversary"),
    [("update", round_by_round), ("aggregate", mean_by_mean), ("global_model", mean_by_mean)],
)
def test_on_rounds_of_one_step_all_games_at_once_are_the_games_one_by_one(
    federate: Federate, surface: str, adversary: Adversary
) -> None:
    federation = federate(local_steps=1, optimizer=FULL, schedule=COSINE)
    games = federation.draw(targets=3)
    for played, game in zip(federation.play(surface, games), games.values(), strict=True):
        assert largest_error(played, federation, game, adversary) < FLOAT32


@pytest.mark.parametrize(("learning_rate", "typical"), [(0.1, 0.02), (0.01, 0.001)])
@pytest.mark.parametrize("optimizer", [PLAIN, FULL], ids=["plain", "full"])
def test_on_rounds_of_three_steps_they_come_near_those_of_an_adversary_without_the_target(
    federate: Federate, optimizer: OptimizerSettings, learning_rate: float, typical: float
) -> None:
    """In standard deviations of the noise in each inner product. What differs vanishes with the learning rate.

    Now and then a unit of the net switches between the two paths, which is a jump and not a small change.
    """
    federation = federate(
        local_steps=3, optimizer=replace(optimizer, learning_rate=learning_rate), schedule=COSINE, rounds=1
    )
    games, differences = federation.draw(targets=4), []
    for played, game in zip(federation.play("update", games), games.values(), strict=True):
        projections, norms = naive_candidates(federation, played.hospital, game, left_out_by_left_out)
        noise = (played.candidates.noise_variance[:, None] * norms).sqrt()
        differences.append(((played.candidates.projections - projections) / noise).abs().flatten())
        assert torch.allclose(played.candidates.squared_norms, norms, rtol=0.03)
    assert float(torch.cat(differences).max()) < 0.25
    assert float(torch.cat(differences).median()) < typical


# What is told of the noise and of taking part.


def noise_in_units(federation: Federation, index: int, *, of_all: bool) -> float:
    """The noise's variance, for a rate of 1, in this hospital's clipped sums of one step."""
    plans, shares = federation.training.plans, federation.training.shares
    stds = [
        share * plan.mechanism.noise_multiplier * CLIP / plan.expected_batch
        for plan, share in zip(plans, shares, strict=True)
    ]
    unit = plans[index].expected_batch / shares[index]
    return sum((unit * std) ** 2 for at, std in enumerate(stds) if of_all or at == index)


@pytest.mark.parametrize(("surface", "of_all"), [("update", False), ("aggregate", True), ("global_model", True)])
def test_the_noise_is_that_of_the_mechanisms_whose_answers_are_seen(
    federate: Federate, surface: str, of_all: bool
) -> None:
    federation = federate(local_steps=1, rounds=2, schedule=COSINE)
    for index, played in enumerate(federation.play(surface, federation.draw(targets=2))):
        for release, number in enumerate(federation.rounds):
            rate = rate_of(federation.training, number, 0)
            # The noise as it came out may be a little more than was to be expected.
            found = float(played.candidates.noise_variance[release]) / rate**2
            assert found >= (1 - 1e-9) * noise_in_units(federation, index, of_all=of_all)
            assert found == pytest.approx(noise_in_units(federation, index, of_all=of_all), rel=0.15)
            values, probabilities = played.candidates.participation[release]
            assert values.tolist() == pytest.approx([0, rate])
            assert probabilities.tolist() == pytest.approx([0.6, 0.4])


def test_a_release_of_a_whole_training_counts_every_step_with_its_weight(federate: Federate) -> None:
    federation = federate(local_steps=2, rounds=2, optimizer=FULL, schedule=COSINE)
    training = federation.training
    weights = []
    for number in federation.rounds:
        first, second = (rate_of(training, number, step) for step in range(2))
        weights += [first + 0.9 * second, second]
    for index, played in enumerate(federation.play("end", federation.draw(targets=2))):
        assert played.steps == 4
        assert played.candidates.projections.shape[1] == 1
        values, probabilities = played.candidates.participation[0]
        expected = participation_law(weights, 0.4)
        assert torch.allclose(values, expected[0])
        assert torch.allclose(probabilities, expected[1])
        squares = sum(weight**2 for weight in weights)
        noise = squares * noise_in_units(federation, index, of_all=True)
        assert float(played.candidates.noise_variance[0]) == pytest.approx(noise, rel=0.3)


def test_what_protects_a_record_is_what_the_bound_is_asked_about(federate: Federate) -> None:
    """Its own hospital's noise; of one step a round, everybody's noise protects it in their mean."""
    one, three = federate(local_steps=1), federate(local_steps=3)
    games = one.draw(targets=2)
    for surface in ("gradient", "update"):
        assert [played.noise_multiplier for played in one.play(surface, games)] == list(SIGMAS)
    for index, played in enumerate(one.play("aggregate", games)):
        everybody = math.sqrt(noise_in_units(one, index, of_all=True)) / CLIP
        assert played.noise_multiplier == pytest.approx(everybody, rel=1e-12)
        assert played.noise_multiplier > SIGMAS[index]
    assert [played.noise_multiplier for played in three.play("aggregate", games)] == list(SIGMAS)
    for played in three.play("gradient", games):
        assert (played.sample_rate, played.steps) == (0.4, 6)
        assert played.was_there.tolist() == [True] * 2 + [False] * POOL


# Without noise.

LOCAL = {
    "one_step": {"local_steps": 1},
    "unclipped": {"local_steps": 1, "clipped": False, "optimizer": replace(PLAIN, learning_rate=0.02)},
    "momentum_decay_and_cosine": {"local_steps": 3, "optimizer": FULL, "schedule": COSINE},
    # Unclipped gradients are long: from one step to the next they change less at a smaller rate.
    "unclipped_momentum": {"local_steps": 3, "clipped": False, "optimizer": replace(FULL, learning_rate=0.02)},
}
SURFACES = ("gradient", "update", "aggregate", "global_model", "end")


def drawn(federation: Federation, hospital: str) -> set[int]:
    """The records that were in some batch of the hospital."""
    index, training = NAMES.index(hospital), federation.training
    found: set[int] = set()
    for number in federation.rounds:
        for batch in poisson_batches(
            num_records=SIZES[index],
            sample_rate=training.plans[index].mechanism.sample_rate,
            steps=training.local_steps,
            generator=batch_stream(training.seed, hospital, number),
        ):
            found.update(batch.tolist())
    return found


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("local", LOCAL.values(), ids=LOCAL.keys())
def test_without_noise_who_was_drawn_is_named_and_who_was_not_is_guessed(
    federate: Federate, local: dict[str, object], surface: str
) -> None:
    federation = federate(private=False, sample_rate=0.15, **local)
    games = federation.draw(targets=99)
    guesses = right = 0
    for played, game in zip(federation.play(surface, games), games.values(), strict=True):
        assert game.targets.tolist() == list(range(len(game.targets)))
        there = torch.tensor([row in drawn(federation, played.hospital) for row in game.targets.tolist()])
        assert bool(there.any())
        assert not bool(there.all())
        lots = generator(0, "lots")
        for _ in range(100):
            named = CandidateMatching().identify(played.candidates, lots) == played.truth
            assert bool(named[there].all())
            guesses, right = guesses + int((~there).sum()), right + int(named[~there].sum())
        scores = MembershipInference().score(played.members)[:, 0]
        outside = scores[~played.was_there]
        assert float(scores[: len(there)][there].min()) > float(outside.max())
        assert scores[: len(there)][~there].tolist() == pytest.approx([float(outside[0])] * int((~there).sum()))
    chance = 1 / CANDIDATES
    assert abs(right / guesses - chance) < 4 * math.sqrt(chance * (1 - chance) / guesses)


@pytest.mark.parametrize("schedule", [CONSTANT, COSINE], ids=["constant", "cosine"])
@pytest.mark.parametrize("name", ["adamw", "nadam"])
def test_an_optimiser_that_hides_the_size_of_its_step_hides_nothing(
    federate: Federate, name: str, schedule: ScheduleSettings
) -> None:
    """An update of one step tells as much as the noisy gradient that it was made from."""
    federation = federate(
        local_steps=1, optimizer=OptimizerSettings(name, 1e-3, momentum=0.9, weight_decay=0.02), schedule=schedule
    )
    games = federation.draw(targets=4)
    for steps, rounds in zip(federation.play("gradient", games), federation.play("update", games), strict=True):
        rates = torch.tensor([rate_of(federation.training, number, 0) for number in federation.rounds])
        found = rounds.candidates.projections / rates[:, None]
        assert torch.allclose(found, steps.candidates.projections, atol=1e-4)
        assert torch.allclose(rounds.candidates.squared_norms, steps.candidates.squared_norms, atol=1e-6)


# What must not be.


def test_an_update_that_the_steps_do_not_give_is_refused(federate: Federate) -> None:
    federation = federate(local_steps=3)
    sent = federation.to(NAMES[0])
    before, update = sent[2]
    name = next(iter(update))
    changed = {**update, name: update[name].clone()}
    largest = max(float(value.abs().max()) for value in update.values())
    changed[name].view(-1)[3] += 1e-7 * largest
    game = federation.draw(targets=2)[NAMES[0]]
    with pytest.raises(ReplayDiffers, match=f"the steps of {NAMES[0]} in round 2, taken again"):
        play_steps(federation.training, NAMES[0], {**sent, 2: (before, changed)}, game, federation.pool)


def test_an_update_that_is_no_number_is_refused(federate: Federate) -> None:
    federation = federate(local_steps=1)
    before, update = federation.to(NAMES[0])[1]
    broken = {name: torch.full_like(value, math.nan) for name, value in update.items()}
    with pytest.raises(ReplayDiffers):
        play_steps(
            federation.training, NAMES[0], {1: (before, broken)}, federation.draw(targets=2)[NAMES[0]], federation.pool
        )


def test_steps_that_another_seed_took_are_refused(federate: Federate) -> None:
    federation, other = federate(local_steps=1), federate(local_steps=1, seed=1)
    game = federation.draw(targets=2)[NAMES[0]]
    with pytest.raises(ReplayDiffers):
        play_steps(federation.training, NAMES[0], other.to(NAMES[0]), game, federation.pool)


@pytest.mark.parametrize("surface", ["gradient", "update", "end"])
def test_noise_that_drowns_everything_leaves_a_guess(federate: Federate, surface: str) -> None:
    right = count = 0
    for seed in range(8):
        federation = federate(local_steps=1, sigmas=(1e4, 1e4), seed=seed)
        for played in federation.play(surface, federation.draw(targets=99, seed=seed)):
            named = CandidateMatching().identify(played.candidates, generator(seed, "lots"))
            right, count = right + int((named == played.truth).sum()), count + len(named)
    # Games of one hospital share noise where they share decoys, so this is not quite as sharp as it looks.
    assert abs(right / count - 1 / CANDIDATES) < 4 * math.sqrt(0.25 * 0.75 / count)


def inside(value: object, path: str = "observation") -> Iterator[tuple[str, object]]:
    """Everything that can be reached from a value, with the way to it."""
    yield path, value
    if dataclasses.is_dataclass(value):
        assert not hasattr(value, "__dict__") or vars(value).keys() == {one.name for one in dataclasses.fields(value)}
        for one in dataclasses.fields(value):
            yield from inside(getattr(value, one.name), f"{path}.{one.name}")
    elif isinstance(value, list | tuple):
        for position, one in enumerate(value):
            yield from inside(one, f"{path}[{position}]")


@pytest.mark.parametrize("surface", SURFACES)
def test_an_adversary_is_handed_inner_products_and_nothing_of_the_hospital(federate: Federate, surface: str) -> None:
    federation = federate(local_steps=2)
    games = federation.draw(targets=5)
    secrets = [vector(updates[name]) for updates in federation.updates for name in NAMES]
    secrets += [vector(step.gradient) for steps in federation.steps for name in NAMES for step in steps[name]]
    for records in (*federation.training.records, federation.pool):
        secrets += [records.images.double().flatten(), records.labels.double()]
        secrets += [gradient_of(federation.start[0], records, row) for row in range(len(records))]
    for played in federation.play(surface, games):
        for observation, candidates in ((played.candidates, (5, CANDIDATES)), (played.members, (5 + POOL, 1))):
            assert isinstance(observation, CandidateObservation)
            releases = len(observation.participation)
            shapes = {
                "observation.projections": (candidates[0], releases, candidates[1]),
                "observation.squared_norms": (candidates[0], releases, candidates[1]),
                "observation.noise_variance": (releases,),
            }
            for path, value in inside(observation):
                assert isinstance(value, CandidateObservation | ThreatModel | Tensor | list | tuple | str | bool), path
                if not isinstance(value, Tensor):
                    continue
                assert path in shapes or path.startswith("observation.participation"), path
                assert tuple(value.shape) == shapes.get(path, tuple(value.shape))
                # Nothing behind it either: no view of something larger, no graph that leads back.
                assert value.untyped_storage().nbytes() <= value.numel() * value.element_size()
                assert not value.requires_grad
                assert value.grad_fn is None
                held = value.double().flatten()
                assert not any(len(held) == len(secret) and torch.allclose(held, secret) for secret in secrets), path
            for values, probabilities in observation.participation:
                # The law that everybody can compute, and not what was drawn.
                assert float(probabilities.sum()) == pytest.approx(1)
                assert float((values * probabilities).sum()) == pytest.approx(0.4 * float(values.max()))


# The draws.


def test_the_order_of_the_candidates_tells_nothing() -> None:
    games = [
        draw_game(records=50, pool=20, targets=50, candidates=8, generator=generator(seed, "game"))
        for seed in range(100)
    ]
    truth = torch.stack([game.truth for game in games])
    assert chisquare(torch.bincount(truth.flatten(), minlength=8).numpy()).pvalue > 1e-3
    # The same for each record over the games, and whatever decoy is in front.
    by_record = torch.stack([torch.bincount(column, minlength=8) for column in truth.T]).double()
    assert float((by_record - 100 / 8).square().sum() / (100 / 8)) < 50 * 7 + 5 * math.sqrt(2 * 50 * 7)
    first = torch.stack([game.decoys[:, 0] for game in games])
    assert abs(float(torch.corrcoef(torch.stack([truth.flatten(), first.flatten()]).double())[0, 1])) < 0.06


def test_every_decoy_is_drawn_as_often_and_none_twice_in_a_game() -> None:
    game = draw_game(records=3000, pool=10, targets=3000, candidates=5, generator=generator(0, "game"))
    assert bool((game.decoys.sort(dim=1).values.diff(dim=1) > 0).all())
    assert chisquare(torch.bincount(game.decoys.flatten(), minlength=10).numpy()).pvalue > 1e-3


def test_targets_are_different_records_in_ascending_order_and_all_of_them_where_there_are_fewer() -> None:
    some = draw_game(records=40, pool=5, targets=10, candidates=3, generator=generator(0, "game"))
    assert len(some.targets) == 10
    assert bool((some.targets.diff() > 0).all())
    assert int(some.targets.min()) >= 0
    assert int(some.targets.max()) < 40
    few = draw_game(records=4, pool=5, targets=10, candidates=3, generator=generator(0, "game"))
    assert few.targets.tolist() == [0, 1, 2, 3]
    assert few.decoys.shape == (4, 2)
    assert few.candidates == 3


@pytest.mark.parametrize(("pool", "candidates"), [(5, 7), (0, 2), (5, 1), (5, 0)])
def test_a_pool_that_is_too_small_is_refused(pool: int, candidates: int) -> None:
    with pytest.raises(ValueError, match=f"candidates must be from 2 to {pool + 1}"):
        draw_game(records=9, pool=pool, targets=3, candidates=candidates, generator=generator(0, "game"))
    assert draw_game(records=9, pool=5, targets=3, candidates=6, generator=generator(0, "game")).decoys.shape == (3, 5)


def test_no_decoy_is_a_record_of_a_hospital(federate: Federate) -> None:
    """Decoys come from the pool, whole: with another pool all candidates change but the targets."""
    federation = federate(local_steps=1)
    games = federation.draw(targets=5)
    other = replace(federation, pool=federation.pool.select(torch.arange(POOL).flip(0)))
    for game, played, changed in zip(
        games.values(), federation.play("gradient", games), other.play("gradient", games), strict=True
    ):
        target = torch.nn.functional.one_hot(game.truth, CANDIDATES).bool()[:, None, :].expand(-1, 2, -1)
        same = played.candidates.projections == changed.candidates.projections
        assert bool(same[target].all())
        # Row i of the pool and row D - 1 - i are different images.
        assert not bool(same[~target].any())


# The figures.


def test_figures_are_counted_over_all_hospitals_and_bounded_by_the_least_protected(federate: Federate) -> None:
    federation = federate(local_steps=1)
    games = federation.draw(targets=9)
    played = federation.play("gradient", games)
    found = identification_figures(CandidateMatching(), "gradient", played, generator(0, "lots"))
    lots = generator(0, "lots")
    right = [CandidateMatching().identify(one.candidates, lots) == one.truth for one in played]
    assert found.success_rate == pytest.approx(float(torch.cat(right).double().mean()))
    assert (found.records, found.candidates, found.baseline_success_rate, found.steps) == (18, 4, 0.25, 2)
    weakest = worst_case(prior=0.25, noise_multiplier=min(SIGMAS), sample_rate=0.4, steps=2)
    assert found.bound == pytest.approx(weakest)
    assert found.optimal is not None
    assert 0.25 < found.optimal < found.bound
    told = membership_figures(MembershipInference(), "gradient", played, level=0.1)
    assert (told.records, told.outsiders) == (18, 2 * POOL)
    assert [point.level for point in told.points] == sorted({0.1, *(point.level for point in told.points)})
    for point in told.points:
        assert point.false_positive_rate <= point.level
        assert point.bound_at_limit >= point.bound
    assert told.auc is not None
    assert 0.5 < told.auc <= 1
