"""The honest models that a check is calibrated on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from hbdp_fed.dpsgd.optimizers import build_optimizer
from hbdp_fed.models import build_model
from hbdp_fed.screening import Effort, honest_models
from hbdp_fed.screening.honest import Training, noise_of_steps
from hbdp_fed.types import OptimizerSettings, Weights
from tests.screening.conftest import CNN, SMALL, Site, fresh, stream


def models(site: Site, **changes) -> list[dict[str, torch.Tensor]]:
    arguments = {"effort": SMALL, "generator": stream(1), **changes}
    return list(honest_models(CNN, arguments.pop("training", site.training), site.references, **arguments))


def test_fresh_weights_come_first_and_are_those_of_the_architecture(site: Site) -> None:
    found = models(site)
    # Fresh, after 1, 2 and 4 steps, and three walks: for each of two starts.
    assert len(found) == 2 * 7
    # Draws follow one another: the first start's are the generator's first.
    assert all(torch.equal(value, found[0][name]) for name, value in fresh(CNN, seed=1).items())


def test_agreed_initial_weights_are_tried_too(site: Site) -> None:
    start = fresh(CNN, seed=99)
    assert all(torch.equal(value, models(site, initial=[start])[0][name]) for name, value in start.items())


def test_every_start_is_really_trained_on_the_reference_images(site: Site) -> None:
    training = replace(site.training, mechanism=replace(site.training.mechanism, noise_multiplier=0.0))
    found = models(site, training=training, effort=Effort(starts=1, steps=30))
    # Without noise there is no walk: fresh, after 1, 15 and 30 steps.
    assert len(found) == 4

    module = build_model(CNN)

    def loss(weights: Weights) -> float:
        logits = torch.func.functional_call(module, dict(weights), (site.references.images,))
        return float(functional.cross_entropy(logits, site.references.labels))

    assert loss(found[-1]) < loss(found[0])


@pytest.mark.parametrize(
    ("optimizer", "slack"),
    [
        (OptimizerSettings("sgd", learning_rate=0.1, momentum=0.0), 1.05),
        # With momentum the last steps have not yet moved the weights in full.
        (OptimizerSettings("sgd", learning_rate=0.1, momentum=0.9), 1.3),
        (OptimizerSettings("adamw", learning_rate=0.01, momentum=0.9), 2.0),
    ],
)
def test_noise_of_steps_is_what_the_optimiser_makes_of_noise(site: Site, optimizer, slack: float) -> None:
    training: Training = replace(site.training, optimizer=optimizer)
    steps, std = 60, 0.5 * 1.0 / 8.0
    weights = torch.zeros(4000, dtype=torch.float64)
    stepping = build_optimizer([weights], optimizer)
    noise = stream(3)
    for _ in range(steps):
        weights.grad = std * torch.randn(4000, dtype=torch.float64, generator=noise)
        stepping.step()
    walked = float(weights.std())
    # The Adam family's very first steps are as long as the learning rate in every coordinate.
    assert walked < 1.2 * noise_of_steps(training, steps)
    assert noise_of_steps(training, steps) < slack * walked


def test_last_walk_carries_the_noise_of_the_whole_plan(site: Site) -> None:
    found = models(site, effort=Effort(starts=1, steps=4))
    trained, walked = found[3], found[-1]
    name = "features.4.weight"
    moved = (walked[name] - trained[name]).std()
    assert float(moved) == pytest.approx(noise_of_steps(site.training, 36), rel=0.1)
