"""SCAFFOLD's arithmetic: against the paper's algorithm in numpy, and that it leads to the right optimum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from flwr.app import RecordDict
from numpy.typing import NDArray

from hbdp_fed.dpsgd import seeded_noise
from hbdp_fed.dpsgd.optimizers import build_optimizer
from hbdp_fed.federation.control import HospitalControl, ServerControl
from hbdp_fed.models import build_model, initial_weights
from hbdp_fed.seeding import generator
from hbdp_fed.training import (
    LocalSettings,
    LocalStep,
    Progress,
    ScheduleSettings,
    gradient_weights,
    mean_gradient,
    train_locally,
)
from hbdp_fed.types import DpSgdParams, ModelSpec, ModelUpdate, OptimizerSettings, Weights

Vector = NDArray[np.float64]
NAMES = ("a", "b", "c", "d")


@dataclass(frozen=True)
class Quadratics:
    """f_i(x) = (x - m_i)' H_i (x - m_i) / 2: everybody's optimum and curvature is another."""

    hessians: Sequence[Vector]
    centres: Sequence[Vector]

    @classmethod
    def drawn(cls, size: int = 3) -> Quadratics:
        draw = np.random.default_rng(0)
        roots = [draw.normal(size=(size, size)) for _ in NAMES]
        return cls([root @ root.T / size + 0.3 * np.eye(size) for root in roots], list(draw.normal(size=(4, size)) * 3))

    def gradient(self, place: int, x: Vector) -> Vector:
        return self.hessians[place] @ (x - self.centres[place])

    def optimum(self, shares: Sequence[float]) -> Vector:
        """Of sum_i p_i f_i."""
        pulls = [p * h @ m for p, h, m in zip(shares, self.hessians, self.centres, strict=True)]
        return np.linalg.solve(sum(p * h for p, h in zip(shares, self.hessians, strict=True)), sum(pulls))


def in_numpy(
    problem: Quadratics, rounds: int, steps: int, rate: float, asked: Callable[[int], Sequence[int]]
) -> Vector:
    """Algorithm 1 of the paper with option II and a global step size of 1, line by line."""
    count = len(NAMES)
    x, c = np.zeros(3), np.zeros(3)
    own = [np.zeros(3) for _ in range(count)]
    for number in range(1, rounds + 1):
        moves, changes = [], []
        for i in asked(number):
            y = x.copy()
            for _ in range(steps):
                y = y - rate * (problem.gradient(i, y) - own[i] + c)
            renewed = own[i] - c + (x - y) / (steps * rate)
            moves.append(y - x)
            changes.append(renewed - own[i])
            own[i] = renewed
        x = x + np.mean(moves, axis=0)
        c = c + len(moves) / count * np.mean(changes, axis=0)
    return x


def in_torch(
    problem: Quadratics,
    rounds: int,
    steps: int,
    optimizer: OptimizerSettings,
    shares: Mapping[str, float],
    asked: Callable[[int], Sequence[int]] = lambda _: range(4),
    *,
    corrected: bool = True,
) -> Vector:
    """The federation's own two sides around the hospitals' own optimiser."""
    settings, progress = LocalSettings(optimizer=optimizer), Progress(done=0, planned=steps)
    weight = sum(gradient_weights(settings, progress, steps))
    x: Weights = {"x": torch.zeros(3, dtype=torch.float64)}
    server, states = ServerControl(shares, like=x), [RecordDict() for _ in NAMES]
    for number in range(1, rounds + 1):
        deltas: dict[str, torch.Tensor] = {}
        for i in asked(number):
            control = HospitalControl.begun(states[i], server.sent, hospital=NAMES[i])
            y = x["x"].clone()
            descent = build_optimizer([y], optimizer)
            for _ in range(steps):
                y.grad = torch.from_numpy(problem.gradient(i, y.numpy())) + (control.added["x"] if corrected else 0.0)
                descent.step()
            deltas[NAMES[i]] = y - x["x"]
            control.keep(states[i], {"x": y - x["x"]}, round=number, weight=weight, may_be_lost=False)
        whole = sum(shares[name] for name in deltas)
        mean = {"x": sum((shares[name] / whole * delta for name, delta in deltas.items()), torch.zeros(3))}
        for _ in server.noting(ModelUpdate(name, number, {"x": delta}, 1) for name, delta in deltas.items()):
            pass
        server.take(mean, asked=list(deltas), round=number, weight=weight)
        x = {"x": x["x"] + mean["x"]}
    return np.asarray(x["x"].numpy())


EQUAL = dict.fromkeys(NAMES, 0.25)
UNEQUAL = dict(zip(NAMES, (0.1, 0.2, 0.3, 0.4), strict=True))
PLAIN = OptimizerSettings("sgd", 0.05, 0.0)


def everybody(number: int) -> Sequence[int]:
    return range(4)


def two_in_turn(number: int) -> Sequence[int]:
    return [number % 4, (number * 3 + 1) % 4] if number % 4 != (number * 3 + 1) % 4 else [number % 4]


@pytest.mark.parametrize("asked", [everybody, two_in_turn])
@pytest.mark.parametrize("rounds", [1, 2, 20])
def test_equal_hospitals_take_the_papers_steps(rounds: int, asked: Callable[[int], Sequence[int]]) -> None:
    problem = Quadratics.drawn()
    expected = in_numpy(problem, rounds, 8, 0.05, asked)
    np.testing.assert_allclose(in_torch(problem, rounds, 8, PLAIN, EQUAL, asked), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("shares", "optimizer"),
    [(EQUAL, PLAIN), (UNEQUAL, OptimizerSettings("sgd", 0.02, 0.7))],
    ids=["equal", "unequal_with_momentum"],
)
def test_many_local_steps_end_at_the_optimum_of_all(shares: Mapping[str, float], optimizer: OptimizerSettings) -> None:
    problem = Quadratics.drawn()
    found = in_torch(problem, 80, 20, optimizer, shares)
    assert np.linalg.norm(found - problem.optimum(list(shares.values()))) < 1e-6


def test_without_correction_they_end_elsewhere() -> None:
    """Where sum_i p_i (I - (I - eta H_i)^K) (x - m_i) is 0: every hospital undoes what the others did."""
    problem = Quadratics.drawn()
    shrunk = [np.eye(3) - np.linalg.matrix_power(np.eye(3) - 0.05 * h, 20) for h in problem.hessians]
    end = np.linalg.solve(sum(shrunk), sum(s @ m for s, m in zip(shrunk, problem.centres, strict=True)))
    found = in_torch(problem, 80, 20, PLAIN, EQUAL, corrected=False)
    np.testing.assert_allclose(found, end, atol=1e-6)
    assert np.linalg.norm(end - problem.optimum([0.25] * 4)) > 0.1


def test_what_a_hospital_keeps_is_the_mean_of_its_noisy_gradients_weighted_by_how_far_each_moved() -> None:
    spec = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
    weights = initial_weights(build_model(spec), generator(0, "weights"))
    settings = LocalSettings(
        optimizer=OptimizerSettings("sgd", 0.2, 0.9), schedule=ScheduleSettings("cosine", warmup=0.3)
    )
    progress, steps = Progress(done=2, planned=12), 5
    added: Weights = {
        name: torch.randn(value.shape, generator=generator(0, name), dtype=torch.float64)
        for name, value in weights.items()
    }
    seen: list[Weights] = []

    def watch(step: LocalStep) -> None:
        seen.append({name: value.clone() for name, value in step.gradient.items()})

    result = train_locally(
        architecture=spec,
        weights=weights,
        images=torch.rand(30, 1, 12, 12, generator=generator(0, "images")),
        labels=torch.randint(0, 2, (30,), generator=generator(0, "labels")),
        mechanism=DpSgdParams(noise_multiplier=0.5, max_grad_norm=0.5, sample_rate=0.4, steps=steps),
        steps=steps,
        settings=settings,
        progress=progress,
        noise=seeded_noise(generator(0, "n")),
        batch_generator=generator(0, "b"),
        augmentation_generator=generator(0, "a"),
        device=torch.device("cpu"),
        watch=watch,
        added=added,
    )
    # How far each gradient moves the weights, by a walk of one coordinate with a single gradient of 1.
    rates = [0.2 * (0.01 + 0.99 * _height(step)) for step in (2, 3, 4, 5, 6)]
    moved = []
    for only in range(steps):
        velocity, here = 0.0, 0.0
        for step, rate in enumerate(rates):
            velocity = 0.9 * velocity + (step == only)
            here += rate * velocity
        moved.append(here)
    found = mean_gradient(result.delta, added, weight=sum(gradient_weights(settings, progress, steps)))
    for name, value in found.items():
        expected = sum((w * g[name] for w, g in zip(moved, seen, strict=True)), torch.zeros(())) / sum(moved)
        torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-11)


def _height(step: int) -> float:
    progress = step / 12
    if progress < 0.3:
        return progress / 0.3
    return float((1 + np.cos(np.pi * (progress - 0.3) / 0.7)) / 2)
