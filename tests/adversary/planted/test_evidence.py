"""What is expected of a gradient and read out of it, beside the hospital's own DP-SGD step."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hbdp_fed.adversary.imprint import ImprintDesign
from hbdp_fed.adversary.imprint import craft_model as craft_imprint
from hbdp_fed.adversary.planted.crafting import Loudness
from hbdp_fed.adversary.planted.evidence import expect
from hbdp_fed.adversary.planted.gradient import active_rows, planted_gradient, released_gradient
from hbdp_fed.adversary.trap_weights import TrapDesign
from hbdp_fed.adversary.trap_weights import craft_model as craft_trap
from hbdp_fed.dpsgd import plain_summer
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.types import DpSgdParams, ModelSpec, OptimizerSettings, Weights

LOUD = Loudness(1e4, base_scale=0.0)


def crafted(world, kind: str) -> tuple[ModelSpec, Weights]:
    if kind == "imprint":
        return craft_imprint(world.base, world.weights, world.public_images, ImprintDesign(bins=24, loudness=LOUD))
    design = TrapDesign(rows=24, activation=0.2, loudness=LOUD)
    return craft_trap(world.base, world.weights, world.public_images, design)


def gradients(model_and_weights: tuple[ModelSpec, Weights], images: Tensor) -> tuple[Tensor, Tensor]:
    """Each record's own gradient of the planted layer, (b, n, D) and (b, n)."""
    model = build_model(model_and_weights[0])
    load_weights(model, model_and_weights[1])
    summer = plain_summer(model, max_physical_batch=1)
    each = [summer(image[None], torch.tensor([1])).total for image in images]
    rows, bias = (torch.stack([one[f"planted.{name}"].double() for one in each]) for name in ("weight", "bias"))
    return rows, bias


@pytest.mark.parametrize("kind", ["imprint", "trap"])
def test_the_active_rows_are_those_in_which_a_record_leaves_a_gradient(world, kind: str) -> None:
    planted, images = crafted(world, kind), world.private_images[:12]
    _, bias = gradients(planted, images)
    assert torch.equal(active_rows(planted[0].args, planted[1], images), bias != 0)


@pytest.mark.parametrize("kind", ["imprint", "trap"])
@pytest.mark.parametrize("clip", [0.5, 4.0])
def test_what_is_expected_of_a_row_is_what_clipped_public_records_leave_in_it(world, kind: str, clip: float) -> None:
    planted, images = crafted(world, kind), world.public_images[:30]
    rows, bias = gradients(planted, images)
    norms = (rows.square().sum(dim=(1, 2)) + bias.square().sum(dim=1)).sqrt()
    share = torch.where(norms > 0, clip / norms, 0.0)
    held = bias != 0
    expectation = expect(planted[0].args, planted[1], images, world.public(clip=clip))
    energy = (rows * share[:, None, None]).square().sum(dim=(0, 1)) / held.sum()
    torch.testing.assert_close(expectation.energy, energy, rtol=1e-3, atol=1e-3 * float(energy.mean()))
    factors = bias * share[:, None]
    assert expectation.factor_energy == pytest.approx(float(factors.square().sum() / held.sum()), rel=1e-3)
    assert expectation.activity == pytest.approx(float(held.double().mean()))


def test_the_size_of_a_factor_is_expected_as_clipped_public_records_have_it(world) -> None:
    planted, images = crafted(world, "imprint"), world.public_images[:30]
    rows, bias = gradients(planted, images)
    # Every record is in exactly one bin.
    sizes = bias.norm(dim=1) / (rows.square().sum(dim=(1, 2)) + bias.square().sum(dim=1)).sqrt()
    expectation = expect(planted[0].args, planted[1], images, world.public(clip=3.0))
    assert expectation.size_mean == pytest.approx(3.0 * float(sizes.mean()), rel=1e-3)
    assert expectation.size_variance == pytest.approx(9.0 * float(sizes.var()), rel=1e-2)


def test_occupancy_is_the_chance_that_a_poisson_batch_leaves_a_row_not_empty(world) -> None:
    planted = crafted(world, "imprint")
    expectation = expect(planted[0].args, planted[1], world.public_images, world.public(expected_batch=6.0))
    assert expectation.activity == pytest.approx(1 / 24)
    counts = torch.poisson(torch.full((200_000,), 6.0 / 24), generator=torch.Generator().manual_seed(0))
    assert expectation.occupancy == pytest.approx(float((counts > 0).double().mean()), abs=3e-3)


def test_of_patients_more_records_are_expected_and_each_of_them_fainter(world) -> None:
    """A patient's clipped gradient is its records' mean: of two, each has half of the factor and of the codes."""
    (architecture, weights), images = crafted(world, "imprint"), world.public_images
    alone = expect(architecture.args, weights, images, world.public(expected_batch=6.0))
    paired = replace(world.public(expected_batch=6.0), records_per_unit=2.0)
    together = expect(architecture.args, weights, images, paired)
    assert together.expected_records == 12.0
    assert together.size_mean == pytest.approx(alone.size_mean / 2)
    assert together.factor_energy == pytest.approx(alone.factor_energy / 4)
    torch.testing.assert_close(together.energy, alone.energy / 4)
    assert together.occupancy == pytest.approx(1 - (1 - alone.occupancy) ** 2)


@pytest.mark.parametrize("clip", [1.0, math.inf])
def test_rows_that_no_public_image_activates_leave_finite_expectations(world, clip: float) -> None:
    architecture, weights = crafted(world, "trap")
    dead = {**weights, "planted.weight": weights["planted.weight"] * 0, "planted.bias": weights["planted.bias"] * 0 - 1}
    expectation = expect(architecture.args, dead, world.public_images, world.public(clip=clip))
    assert expectation.activity == 0 == expectation.occupancy
    assert bool(expectation.energy.isfinite().all())
    assert math.isfinite(expectation.factor_energy)


@pytest.mark.parametrize(
    "optimizer",
    [OptimizerSettings("sgd", 0.05, 0.9, weight_decay=1e-2), OptimizerSettings("nadam", 2e-3, 0.9)],
    ids=lambda settings: settings.name,
)
def test_the_planted_gradient_is_read_out_of_whatever_the_optimiser_made_of_it(
    world, optimizer: OptimizerSettings
) -> None:
    planted, images = crafted(world, "imprint"), world.private_images[:4]
    public = world.public(clip=math.inf, optimizer=optimizer)
    rows, bias = gradients(planted, images)
    read = released_gradient(world.answer(planted, public, images, labels=torch.ones(4, dtype=torch.int64)))
    assert read.rows.dtype == read.bias.dtype == torch.float64
    torch.testing.assert_close(read.rows, rows.sum(dim=0), rtol=1e-4, atol=1e-4 * float(rows.abs().max()))
    torch.testing.assert_close(read.bias, bias.sum(dim=0), rtol=1e-4, atol=1e-4 * float(bias.abs().max()))
    assert read.noise_std == 0


@pytest.mark.parametrize(
    ("sigma", "clip", "std"), [(0.0, 1.0, 0.0), (0.0, math.inf, 0.0), (0.5, 4.0, 2.0), (2.0, 0.25, 0.5)]
)
def test_the_noise_is_sigma_times_the_clipping_norm(sigma: float, clip: float, std: float) -> None:
    total = {"planted.weight": torch.ones(2, 3), "planted.bias": torch.ones(2), "base.other": torch.ones(1)}
    mechanism = DpSgdParams(noise_multiplier=sigma, max_grad_norm=clip, sample_rate=0.1, steps=1)
    assert planted_gradient(total, mechanism).noise_std == std


def test_reading_the_gradient_leaves_the_observation_as_it_was(world) -> None:
    planted = crafted(world, "imprint")
    observation = world.answer(planted, world.public(sigma=0.1), world.private_images[:4])
    delta = observation.released.delta
    before = {name: value.clone() for name, value in delta.items()}
    first = released_gradient(observation)
    again = released_gradient(replace(observation))
    assert all(torch.equal(delta[name], before[name]) for name in delta)
    assert torch.equal(first.rows, again.rows)
