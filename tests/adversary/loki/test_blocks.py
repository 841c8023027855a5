"""A layer of blocks: what each hospital is handed of it leaves the gradient of every other block at exactly zero."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hbdp_fed.adversary.imprint import ImprintDesign, craft_model
from hbdp_fed.adversary.loki import first_block, of_one_hospital, repeated, split
from hbdp_fed.adversary.planted.crafting import Loudness
from hbdp_fed.adversary.planted.gradient import BIAS, WEIGHT, PlantedGradient
from hbdp_fed.dpsgd import clipped_summer
from hbdp_fed.models import build_model, load_weights
from hbdp_fed.types import ModelSpec, Weights

BINS, HOSPITALS = 32, 3
READOUT = "readout.weight"


@pytest.fixture(scope="module")
def block(world) -> tuple[ModelSpec, Weights]:
    return craft_model(world.base, world.weights, world.public_images, ImprintDesign(BINS, Loudness(100.0)))


@pytest.fixture(scope="module")
def whole(block) -> tuple[ModelSpec, Weights]:
    return repeated(*block, HOSPITALS)


def clipped_sum(architecture: ModelSpec, weights: Weights, images: Tensor) -> Weights:
    model = build_model(architecture)
    load_weights(model, weights)
    labels = torch.arange(len(images)) % 2
    return clipped_summer(model, max_grad_norm=1.0, max_physical_batch=4)(images, labels).total


def own(place: int) -> slice:
    return slice(place * BINS, (place + 1) * BINS)


@pytest.mark.parametrize("place", range(HOSPITALS))
def test_a_hospitals_gradient_outside_its_own_block_is_exactly_zero(world, whole, place: int) -> None:
    architecture, weights = whole
    extremes = torch.stack([torch.zeros(1, 28, 28), torch.ones(1, 28, 28)])
    images = torch.cat([world.private_images[:10], extremes])
    total = clipped_sum(architecture, of_one_hospital(weights, place, HOSPITALS), images)
    for name, by_row in ((WEIGHT, total[WEIGHT]), (BIAS, total[BIAS]), (READOUT, total[READOUT].T)):
        left = by_row.clone()
        left[own(place)] = 0
        assert not left.any(), name
        assert by_row[own(place)].any(), name


def test_the_sums_block_is_that_hospitals_own_gradient_in_a_model_of_one_block(world, block, whole) -> None:
    """Bit for bit: what the others add to it is zero."""
    architecture, weights = whole
    batches = [world.private_images[7 * place : 7 * (place + 1)] for place in range(HOSPITALS)]
    sent = [
        clipped_sum(architecture, of_one_hospital(weights, place, HOSPITALS), batch)
        for place, batch in enumerate(batches)
    ]
    total = {name: sum(one[name] for one in sent) for name in (WEIGHT, BIAS)}
    alone = [clipped_sum(*block, batch) for batch in batches]
    for place in range(HOSPITALS):
        for name in (WEIGHT, BIAS):
            assert torch.equal(total[name][own(place)], sent[place][name][own(place)])
            torch.testing.assert_close(total[name][own(place)], alone[place][name], rtol=1e-5, atol=1e-7)
    # In one model for all the records of different hospitals would have met in a row.
    met = sum((one[BIAS] != 0).int() for one in alone)
    assert int(met.max()) > 1


def test_hospitals_are_handed_one_architecture_and_nearly_the_base_models_answers(world, block, whole) -> None:
    architecture, weights = whole
    handed = [of_one_hospital(weights, place, HOSPITALS) for place in range(HOSPITALS)]
    assert all({name: value.shape for name, value in one.items()} == shapes(weights) for one in handed)
    assert not torch.equal(handed[0][WEIGHT], handed[1][WEIGHT])
    models = [build_model(architecture) for _ in handed] + [build_model(block[0])]
    with torch.no_grad():
        answers = []
        for model, one in zip(models, [*handed, block[1]], strict=True):
            load_weights(model, one)
            answers.append(model(world.private_images))
    for answer in answers:
        torch.testing.assert_close(answer, answers[-1], rtol=1e-4, atol=1e-4)


def shapes(weights: Weights) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in weights.items()}


def test_a_block_is_taken_out_again_as_it_was(block, whole) -> None:
    architecture, weights = first_block(*whole, HOSPITALS)
    assert architecture == block[0]
    assert all(torch.equal(weights[name], block[1][name]) for name in block[1])


@pytest.mark.parametrize("count", [2, 4, 6])
def test_a_layer_of_other_blocks_is_refused(whole, count: int) -> None:
    with pytest.raises(ValueError, match=f"96 rows is none of {count} equal blocks"):
        first_block(*whole, count)


def test_a_gradient_is_told_apart_in_the_hospitals_order() -> None:
    rows = torch.arange(12.0).double().reshape(6, 2)
    parts = split(PlantedGradient(rows=rows, bias=rows[:, 0], noise_std=0.5), 3)
    assert [part.bias.tolist() for part in parts] == [[0, 2], [4, 6], [8, 10]]
    assert torch.equal(torch.cat([part.rows for part in parts]), rows)
    assert {part.noise_std for part in parts} == {0.5}
