"""The server's own optimiser: what one step makes of the mean update, and that a federation can train as one place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hbdp_fed.data import read_shard
from hbdp_fed.dpsgd import seeded_noise
from hbdp_fed.federation.server_step import ServerSettings, ServerStep
from hbdp_fed.federation.settings import AppSettings
from hbdp_fed.models import build_model, initial_weights, weights_sha256
from hbdp_fed.seeding import generator
from hbdp_fed.training import LocalSettings, Progress, ScheduleSettings, train_locally
from hbdp_fed.types import DpSgdParams, ModelSpec, OptimizerSettings, Weights

SPEC = ModelSpec("cnn", {"in_channels": 1, "num_classes": 2, "width": 4})
CONSTANT = ScheduleSettings()
Runner = Callable[..., Any]


def test_without_an_optimiser_the_mean_update_is_added() -> None:
    step = ServerStep(None, rounds=3)
    after = step.take({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([0.5, -0.25], dtype=torch.float64)}, round=1)
    assert after["w"].dtype == torch.float64
    assert after["w"].tolist() == [1.5, 1.75]


def test_plain_descent_with_rate_one_is_the_same_as_adding() -> None:
    weights, mean = {"w": torch.rand(5).double()}, {"w": torch.rand(5).double()}
    settings = ServerSettings(OptimizerSettings("sgd", 1.0, 0.0), CONSTANT)
    plain, optimised = ServerStep(None, rounds=1), ServerStep(settings, rounds=1)
    torch.testing.assert_close(
        optimised.take(weights, mean, round=1), plain.take(weights, mean, round=1), rtol=0, atol=1e-15
    )


def test_momentum_lives_through_the_rounds() -> None:
    step = ServerStep(ServerSettings(OptimizerSettings("sgd", 1.0, 0.5), CONSTANT), rounds=3)
    weights = {"w": torch.zeros(1).double()}
    seen = []
    for number in (1, 2, 3):
        weights = step.take(weights, {"w": torch.ones(1).double()}, round=number)
        seen.append(float(weights["w"]))
    # Velocities 1, 1.5, 1.75, added up.
    assert seen == [1.0, 2.5, 4.25]


def test_the_schedule_is_over_the_rounds() -> None:
    schedule = ScheduleSettings("linear", final_fraction=0.5)
    step = ServerStep(ServerSettings(OptimizerSettings("sgd", 1.0, 0.0), schedule), rounds=2)
    weights = step.take({"w": torch.zeros(1).double()}, {"w": torch.ones(1).double()}, round=1)
    assert float(weights["w"]) == 1.0
    assert float(step.take(weights, {"w": torch.ones(1).double()}, round=2)["w"]) == 1.75


@pytest.mark.parametrize("name", ["sgd", "nadam", "adamw"])
def test_one_step_hospitals_under_a_servers_optimiser_train_as_one_place_would(
    settings: AppSettings, run: Runner, name: str
) -> None:
    rounds, rate = 4, 0.05 if name == "sgd" else 2e-3
    # Everybody's every record in every step, without noise: what is left is the arithmetic.
    everyone = DpSgdParams(noise_multiplier=0.0, max_grad_norm=0.5, sample_rate=1.0, steps=rounds)
    sites = tuple(replace(site, plan=replace(site.plan, mechanism=everyone)) for site in settings.sites)
    federated = run(
        replace(
            settings,
            sites=sites,
            rounds=rounds,
            local_steps=1,
            local=LocalSettings(optimizer=OptimizerSettings("sgd", 1.0, 0.0), precision="float64"),
            server=ServerSettings(OptimizerSettings(name, rate, 0.9), CONSTANT),
        )
    ).final
    records = [read_shard(Path(site.shard)) for site in sites]
    initial = initial_weights(build_model(SPEC), generator(settings.seed, "initial-weights"))
    central = train_locally(
        architecture=SPEC,
        weights=initial,
        images=torch.cat([own.images for own in records]),
        labels=torch.cat([own.labels for own in records]),
        mechanism=everyone,
        steps=rounds,
        settings=LocalSettings(optimizer=OptimizerSettings(name, rate, 0.9), precision="float64"),
        progress=Progress(done=0, planned=rounds),
        noise=seeded_noise(generator(0, "noise")),
        batch_generator=generator(0, "batches"),
        augmentation_generator=generator(0, "views"),
        device=torch.device("cpu"),
    )
    moved = math.sqrt(sum(float(change.square().sum()) for change in central.delta.values()))
    # Weights travel to the hospitals in float32, which is all that the two differ by.
    difference = {key: federated[key] - initial[key].double() - change for key, change in central.delta.items()}
    apart = math.sqrt(sum(float(value.square().sum()) for value in difference.values()))
    assert moved > 0.01
    assert apart < 1e-3 * moved


def test_server_settings_travel_with_the_others(settings: AppSettings) -> None:
    server = ServerSettings(OptimizerSettings("nadam", 2e-3, 0.9), ScheduleSettings("cosine"))
    asked = replace(settings, server=server)
    assert AppSettings.from_json(asked.to_json()) == asked


@pytest.mark.parametrize("name", ["sgd", "nadam", "adamw"])
def test_an_optimiser_goes_on_from_its_state_to_the_last_bit(name: str) -> None:
    settings = ServerSettings(OptimizerSettings(name, 0.05, 0.9), ScheduleSettings("cosine"))
    draw = generator(0, "server-step", name)
    start = {"b": torch.randn(3, generator=draw, dtype=torch.float64), "a": torch.randn(2, 2, generator=draw).double()}
    updates = [{key: torch.randn(v.shape, generator=draw, dtype=torch.float64) for key, v in start.items()}] * 6
    whole = ServerStep(settings, rounds=6)
    weights = start
    for number, update in enumerate(updates, start=1):
        weights = whole.take(weights, update, round=number)
    again = start
    state: Weights = {}
    for number, update in enumerate(updates, start=1):
        step = ServerStep(settings, rounds=6, state=state)
        again = step.take(again, update, round=number)
        state = step.state
    assert weights_sha256(again) == weights_sha256(weights)
